// Windows of pooling: which taps lie inside, how winners are kept, and the loops over output pixels.

struct Window {
  int first, last;  // taps [first, last) that fall inside the input
  int start;        // input position of tap 0
  int size;         // taps that count for the average
};

// The window of output position p along one axis.
inline Window window(int p, int stride, int pad, int dilation, int taps, int size, int outputs, bool adaptive,
                     bool pads_count) {
  if (adaptive) {
    const int start = static_cast<int>(static_cast<i64>(p) * size / outputs);
    const int end = static_cast<int>(blocks(static_cast<i64>(p + 1) * size, outputs));
    return {0, end - start, start, end - start};
  }
  const int start = p * stride - pad;
  const int first = start < 0 ? static_cast<int>(blocks(-start, dilation)) : 0;
  const int last = start < size ? least(taps, static_cast<int>(blocks(size - start, dilation))) : 0;
  // the divisor counts padding, but not what ceil_mode adds beyond it
  const int counted = static_cast<int>(least<i64>(taps, blocks(size + pad - start, dilation)));
  return {first, most(first, last), start, pads_count ? counted : most(last - first, 0)};
}

inline float divisor_of(const Pool2dShape& s, int rows, int columns) {
  return s.divisor ? static_cast<float>(s.divisor) : static_cast<float>(rows) * static_cast<float>(columns);
}

inline Window rows_of(const Pool2dShape& s, int p) {
  return window(p, s.stride_h, s.pad_h, s.dilation_h, s.R, s.H, s.P, s.adaptive, s.count_include_pad);
}
inline Window columns_of(const Pool2dShape& s, int q) {
  return window(q, s.stride_w, s.pad_w, s.dilation_w, s.S, s.W, s.Q, s.adaptive, s.count_include_pad);
}

constexpr int POOL_VECTORS = V == 16 ? 4 : 2;  // channels of a step: values, winners and masks in the registers

struct NoIndex {};
inline void store_index(NoIndex*, veci, int) {}
inline void store_index(u8* p, veci a, int lanes) {
  store_bytes(p, a, lanes);
}
inline void store_index(int* p, veci a, int lanes) {
  store_first(reinterpret_cast<float*>(p), reinterpret_cast<vec>(a), lanes);
}
inline veci load_index(const u8* p, int lanes) {
  return load_bytes(p, lanes);
}
inline veci load_index(const int* p, int lanes) {
  return reinterpret_cast<veci>(load_first(reinterpret_cast<const float*>(p), lanes));
}
template <class Index>
inline Index* index_at(Index* index, i64 at) {
  return index ? index + at : nullptr;
}

// One output pixel's windows of a call.
struct PoolWindow {
  Window h, w;
  const float* x;             // at the window's tap (0, 0)
  i64 row_step, column_step;  // from tap to tap
  int taps_w;                 // S: a winner is r * S + s
  bool stream;
  i64 ahead;  // floats from a tap's value to its value in the next row of windows, which is asked for; 0: not
  int ahead_h, ahead_w;  // a window's last taps, which it does not share with the next one
};

inline void store_pooled(bool stream, float* y, vec a, int lanes) {
  if (stream) {
    store_stream(y, a);
  } else {
    store_first(y, a, lanes);
  }
}

// Calls body(begin, end, columns, line) for pieces of about `size` output rows; line(row): the row's window, tap (0, 0)
// at the first input column.
template <class F>
void for_each_piece(const Pool2dShape& shape, i64 size, const float* x, const float* y, const F& body) {
  const Pool2dShape s = shape;
  const i64 rows = static_cast<i64>(s.N) * s.P, cost = static_cast<i64>(s.Q) * s.C * s.R * s.S * 2;
  const i64 row_size = static_cast<i64>(s.W) * s.C;
  const bool stream = s.C % V == 0 && is_aligned(y) && rows * s.Q * s.C * 4 > STREAM_BYTES;
  const bool early = static_cast<i64>(s.N) * s.H * row_size * 4 > STREAM_BYTES;
  Window* columns = scratch<Window>(cnn::TAPS, s.Q);
  for (int q = 0; q < s.Q; q++) columns[q] = columns_of(s, q);
  const auto line = [=](i64 row) {
    PoolWindow p;
    p.h = rows_of(s, static_cast<int>(row % s.P));
    p.x = x + row / s.P * s.H * row_size + p.h.start * row_size;
    p.row_step = s.dilation_h * row_size;
    p.column_step = static_cast<i64>(s.dilation_w) * s.C;
    p.taps_w = s.S;
    p.stream = stream;
    p.ahead = early ? s.stride_h * row_size : 0;
    p.ahead_h = least(s.stride_h, s.R);
    p.ahead_w = least(s.stride_w, s.S);
    return p;
  };
  parallel_pieces(rows, size, cost, [&](i64 begin, i64 end) {
    body(begin, end, columns, line);
    if (stream) stream_fence();
  });
}

// Calls body(window, output pixel) for every output pixel.
template <class F>
void for_each_window(const Pool2dShape& shape, const float* x, const float* y, const F& body) {
  const Pool2dShape s = shape;
  const i64 cost = static_cast<i64>(s.Q) * s.C * s.R * s.S * 2;
  for_each_piece(s, most<i64>(1, 32768 / cost), x, y,
                 [=](i64 begin, i64 end, const Window* columns, const auto& line_of) {
                   for (i64 row = begin; row < end; row++) {
                     PoolWindow p = line_of(row);
                     const float* line = p.x;
                     for (int q = 0; q < s.Q; q++) {
                       p.w = columns[q];
                       p.x = line + static_cast<i64>(p.w.start) * s.C;
                       body(p, row * s.Q + q);
                     }
                   }
                 });
}
