// Pooling over NHWC, vectors along the channels. Max keeps the first of equal values in row-major window order and a
// NaN before all; padding never wins. Each output row (forward) and each image's rows of dx (backward) belong to one
// work item, so nothing is added by two threads. Bound by memory.

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

inline Window rows_of(const Pool2dShape& s, int p) {
  return window(p, s.stride_h, s.pad_h, s.dilation_h, s.R, s.H, s.P, s.adaptive, s.count_include_pad);
}
inline Window columns_of(const Pool2dShape& s, int q) {
  return window(q, s.stride_w, s.pad_w, s.dilation_w, s.S, s.W, s.Q, s.adaptive, s.count_include_pad);
}

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
void max_rows(const Pool2dShape& s, const float* x, float* y, Index* index, i64 first_row, i64 last_row) {
  const i64 row_stride = static_cast<i64>(s.W) * s.C;
  for (i64 row = first_row; row < last_row; row++) {
    const Window h = rows_of(s, static_cast<int>(row % s.P));
    const float* image = x + row / s.P * s.H * row_stride;
    for (int q = 0; q < s.Q; q++) {
      const Window w = columns_of(s, q);
      const i64 out = (row * s.Q + q) * s.C;
      for (int c = 0; c < s.C; c += V) {
        const int lanes = least(V, s.C - c);
        vec best = broadcast(-__builtin_inff());
        veci winner{};
        winner += h.first * s.S + w.first;
        for (int r = h.first; r < h.last; r++) {
          const float* in = image + (h.start + r * s.dilation_h) * row_stride + static_cast<i64>(w.start) * s.C + c;
          for (int t = w.first; t < w.last; t++) {
            const vec value = load_first(in + static_cast<i64>(t) * s.dilation_w * s.C, lanes);
            const veci wins = (value > best) | ((value != value) & (best == best));
            best = blend(wins, value, best);
            if (index) winner = wins ? veci{} + (r * s.S + t) : winner;
          }
        }
        store_first(y + out + c, best, lanes);
        if (index) store_index(index + out + c, winner, lanes);
      }
    }
  }
}

void max_pool2d_forward(const Pool2dShape& shape, const float* x, float* y, void* index, int index_bytes) {
  const Pool2dShape s = shape;
  const i64 rows = static_cast<i64>(s.N) * s.P, cost = static_cast<i64>(s.Q) * s.C * s.R * s.S * 4;
  parallel_pieces(rows, most<i64>(1, 131072 / cost), cost, [=](i64 begin, i64 end) {
    if (index_bytes == 1) {
      max_rows(s, x, y, static_cast<u8*>(index), begin, end);
    } else {
      max_rows(s, x, y, static_cast<int*>(index), begin, end);
    }
  });
}

// Few channels: the S * C values of a window's row fill a vector; lane i belongs to tap i / C and channel i % C.
struct WindowRow {
  bool fits;
  int lanes;
  veci tap, channel;
  explicit WindowRow(const Pool2dShape& s) : fits(s.S * s.C <= V), lanes(s.S * s.C), tap{}, channel{} {
    for (int i = 0; fits && i < lanes; i++) {
      tap[i] = i / s.C;
      channel[i] = i % s.C;
    }
  }
};

// Each gradient goes to where its window's winner lies. ADD: windows may overlap, dx is cleared and added to; else each
// element of dx has one window at most and is written.
template <bool ADD, class Index>
void max_scatter(const Pool2dShape& s, const float* dy, const Index* index, float* dx, i64 first_row, i64 last_row) {
  const i64 row_stride = static_cast<i64>(s.W) * s.C;
  const WindowRow together(s);
  for (i64 row = first_row; row < last_row; row++) {
    const Window h = rows_of(s, static_cast<int>(row % s.P));
    float* image = dx + row / s.P * s.H * row_stride;
    for (int q = 0; q < s.Q; q++) {
      const Window w = columns_of(s, q);
      const i64 out = (row * s.Q + q) * s.C;
      if (!ADD && together.fits && w.last - w.first == s.S) {
        const vec gradient = load_first(dy + out, s.C), spread = shuffle(gradient, gradient, together.channel);
        const vec winner = reinterpret_cast<vec>(load_index(index + out, s.C));
        const veci winners = reinterpret_cast<veci>(shuffle(winner, winner, together.channel)) - together.tap;
        for (int r = h.first; r < h.last; r++)
          store_first(image + (h.start + r) * row_stride + static_cast<i64>(w.start) * s.C,
                      blend(winners == r * s.S, spread, vec{}), together.lanes);
        continue;
      }
      for (int c = 0; c < s.C; c += V) {
        const int lanes = least(V, s.C - c);
        const vec gradient = load_first(dy + out + c, lanes);
        const veci winner = load_index(index + out + c, lanes);
        for (int r = h.first; r < h.last; r++) {
          float* in = image + (h.start + r * s.dilation_h) * row_stride + static_cast<i64>(w.start) * s.C + c;
          for (int t = w.first; t < w.last; t++) {
            float* at = in + static_cast<i64>(t) * s.dilation_w * s.C;
            const vec share = blend(winner == r * s.S + t, gradient, vec{});
            store_first(at, ADD ? load_first(at, lanes) + share : share, lanes);
          }
        }
      }
    }
  }
}

template <bool ADD>
void avg_scatter(const Pool2dShape& s, const float* dy, float* dx, i64 first_row, i64 last_row) {
  const i64 row_stride = static_cast<i64>(s.W) * s.C;
  const WindowRow together(s);
  for (i64 row = first_row; row < last_row; row++) {
    const Window h = rows_of(s, static_cast<int>(row % s.P));
    float* image = dx + row / s.P * s.H * row_stride;
    for (int q = 0; q < s.Q; q++) {
      const Window w = columns_of(s, q);
      const float divisor = static_cast<float>(h.size) * static_cast<float>(w.size);
      if (!ADD && together.fits && w.last - w.first == s.S) {
        const vec gradient = load_first(dy + (row * s.Q + q) * s.C, s.C) / divisor;
        const vec spread = shuffle(gradient, gradient, together.channel);
        for (int r = h.first; r < h.last; r++)
          store_first(image + (h.start + r) * row_stride + static_cast<i64>(w.start) * s.C, spread, together.lanes);
        continue;
      }
      for (int c = 0; c < s.C; c += V) {
        const int lanes = least(V, s.C - c);
        const vec gradient = load_first(dy + (row * s.Q + q) * s.C + c, lanes) / divisor;
        for (int r = h.first; r < h.last; r++)
          for (int t = w.first; t < w.last; t++) {
            float* at = image + (h.start + r * s.dilation_h) * row_stride +
                        static_cast<i64>(w.start + t * s.dilation_w) * s.C + c;
            store_first(at, ADD ? load_first(at, lanes) + gradient : gradient, lanes);
          }
      }
    }
  }
}

// Runs scatter(first output row, last) over bands that touch different rows of dx, after clearing these rows unless
// the windows tile the input without gaps. Where windows of neighbouring output rows overlap a band is a whole image.
template <class F>
void backward_bands(const Pool2dShape& s, float* dx, const F& scatter) {
  const i64 row_size = static_cast<i64>(s.W) * s.C, work = static_cast<i64>(s.N) * s.P * s.Q * s.C * s.R * s.S * 4;
  const bool apart = !s.adaptive && s.dilation_h == 1 && s.R <= s.stride_h && s.pad_h == 0;
  const bool tiled = apart && s.R == s.stride_h && s.S == s.stride_w && s.pad_w == 0 && s.dilation_w == 1 &&
                     s.P * s.R == s.H && s.Q * s.S == s.W;
  const i64 band = apart ? most<i64>(1, least<i64>(s.P, 32768 / (row_size * s.stride_h))) : s.P;  // output rows
  const i64 bands = blocks(s.P, band);
  parallel(s.N * bands, work, [=](i64 item) {
    const i64 image = item / bands, first = item % bands * band, last = least<i64>(s.P, first + band);
    const i64 top = bands == 1 ? 0 : first * s.stride_h, bottom = last == s.P ? s.H : last * s.stride_h;
    if (!tiled) __builtin_memset(dx + (image * s.H + top) * row_size, 0, sizeof(float) * (bottom - top) * row_size);
    scatter(image * s.P + first, image * s.P + last);
  });
}

// Windows that share no element of the input.
inline bool disjoint(const Pool2dShape& s) {
  return !s.adaptive && s.dilation_h == 1 && s.dilation_w == 1 && s.R <= s.stride_h && s.S <= s.stride_w;
}

template <class Index>
void max_backward(const Pool2dShape& shape, const float* dy, const Index* index, float* dx) {
  const Pool2dShape s = shape;
  const auto scatter = disjoint(s) ? max_scatter<false, Index> : max_scatter<true, Index>;
  backward_bands(s, dx, [=](i64 first, i64 last) { scatter(s, dy, index, dx, first, last); });
}

void max_pool2d_backward(const Pool2dShape& s, const float* dy, const void* index, int index_bytes, float* dx) {
  if (index_bytes == 1) {
    max_backward(s, dy, static_cast<const u8*>(index), dx);
  } else {
    max_backward(s, dy, static_cast<const int*>(index), dx);
  }
}

void avg_pool2d_backward(const Pool2dShape& shape, const float* dy, float* dx) {
  const Pool2dShape s = shape;
  const auto scatter = disjoint(s) ? avg_scatter<false> : avg_scatter<true>;
  backward_bands(s, dx, [=](i64 first, i64 last) { scatter(s, dy, dx, first, last); });
}

void avg_pool2d_forward(const Pool2dShape& shape, const float* x, float* y) {
  const Pool2dShape s = shape;
  const i64 row_stride = static_cast<i64>(s.W) * s.C;
  parallel_pieces(static_cast<i64>(s.N) * s.P, 1, static_cast<i64>(s.Q) * s.C * s.R * s.S * 4, [=](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      const Window h = rows_of(s, static_cast<int>(row % s.P));
      const float* image = x + row / s.P * s.H * row_stride;
      for (int q = 0; q < s.Q; q++) {
        const Window w = columns_of(s, q);
        const float divisor = static_cast<float>(h.size) * static_cast<float>(w.size);
        for (int c = 0; c < s.C; c += V) {
          const int lanes = least(V, s.C - c);
          vec total{};
          for (int r = h.first; r < h.last; r++) {
            vec line{};  // a row's sum first: shorter chains, less rounding
            for (int t = w.first; t < w.last; t++)
              line += load_first(image + (h.start + r * s.dilation_h) * row_stride +
                                     static_cast<i64>(w.start + t * s.dilation_w) * s.C + c,
                                 lanes);
            total += line;
          }
          store_first(y + (row * s.Q + q) * s.C + c, total / divisor, lanes);
        }
      }
    }
  });
}
