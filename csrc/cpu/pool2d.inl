// Pooling over NHWC, vectors along the channels, several of them at a time. Max keeps the first of equal values in
// row-major window order and a NaN before all; padding never wins. Backward gathers: each input takes the shares of the
// windows that hold it, in order, and is written once. Bound by memory.

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

// ---- forward

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
  float divisor;              // of an average
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

// Channels c .. c + VECTORS * V of a whole window of R x S taps. Of numbers, one comparison tells who wins; false, and
// what was stored is to be replaced, where the values' sum is NaN.
template <class Index, int VECTORS, int R, int S>
__attribute__((noinline)) bool max_of_numbers(const PoolWindow& p, int c, float* y, Index* index) {
  vec best[VECTORS], total[VECTORS];
  veci winner[VECTORS] = {};
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) best[v] = total[v] = load(p.x + c + v * V);
#pragma GCC unroll 9
  for (int tap = 1; tap < R * S; tap++) {
    const float* at = p.x + tap / S * p.row_step + tap % S * p.column_step + c;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      const vec value = load(at + v * V);
      total[v] += value;
      winner[v] = value > best[v] ? veci{} + tap : winner[v];
      best[v] = at_least(best[v], value);
    }
  }
  if (p.ahead)
    for (int r = R - p.ahead_h; r < R; r++)
      for (int t = S - p.ahead_w; t < S; t++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) prefetch_l2(p.x + r * p.row_step + t * p.column_step + c + v * V + p.ahead);
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) {
    store_pooled(p.stream, y + c + v * V, best[v], V);
    store_index(index_at(index, c + v * V), winner[v], V);
  }
  return !any_nan(total[0], total[1 % VECTORS], total[2 % VECTORS], total[3 % VECTORS]);
}

// Channels c .. c + VECTORS * V of any window, or `lanes` of one vector.
template <class Index, int VECTORS>
inline void max_window(const PoolWindow& p, int c, int lanes, float* y, Index* index) {
  vec best[VECTORS];
  veci winner[VECTORS] = {};
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) {
    best[v] = broadcast(-__builtin_inff());
    winner[v] += p.h.first * p.taps_w + p.w.first;
  }
  for (int r = p.h.first; r < p.h.last; r++) {
    const float* at = p.x + r * p.row_step + p.w.first * p.column_step + c;
    for (int t = p.w.first; t < p.w.last; t++, at += p.column_step) {
      const veci tap = veci{} + (r * p.taps_w + t);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        const vec value = VECTORS == 1 ? load_first(at, lanes) : load(at + v * V);
        const veci wins = ~(value <= best[v]) & (best[v] == best[v]);  // larger, or the first NaN
        best[v] = wins ? value : best[v];
        winner[v] = wins ? tap : winner[v];
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) {
    store_pooled(p.stream, y + c + v * V, best[v], lanes);
    store_index(index_at(index, c + v * V), winner[v], lanes);
  }
}

template <int VECTORS>
inline void average_window(const PoolWindow& p, int c, int lanes, float* y) {
  vec total[VECTORS] = {};
  for (int r = p.h.first; r < p.h.last; r++) {
    const float* at = p.x + r * p.row_step + p.w.first * p.column_step + c;
    vec line[VECTORS] = {};  // a row's sum first: shorter chains, less rounding
    for (int t = p.w.first; t < p.w.last; t++, at += p.column_step)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) line[v] += VECTORS == 1 ? load_first(at, lanes) : load(at + v * V);
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) total[v] += line[v];
  }
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) store_pooled(p.stream, y + c + v * V, total[v] / p.divisor, lanes);
}

// Calls body(window, output pixel) for every output pixel, several rows a work item.
template <class F>
void for_each_window(const Pool2dShape& shape, const float* x, const float* y, const F& body) {
  const Pool2dShape s = shape;
  const i64 rows = static_cast<i64>(s.N) * s.P, cost = static_cast<i64>(s.Q) * s.C * s.R * s.S * 2;
  const i64 row_size = static_cast<i64>(s.W) * s.C;
  const bool stream = s.C % V == 0 && is_aligned(y) && rows * s.Q * s.C * 4 > STREAM_BYTES;
  const bool early = static_cast<i64>(s.N) * s.H * row_size * 4 > STREAM_BYTES;
  Window* columns = scratch<Window>(cnn::TAPS, s.Q);
  for (int q = 0; q < s.Q; q++) columns[q] = columns_of(s, q);
  parallel_pieces(rows, most<i64>(1, 32768 / cost), cost, [&](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      PoolWindow p;
      p.h = rows_of(s, static_cast<int>(row % s.P));
      p.row_step = s.dilation_h * row_size;
      p.column_step = static_cast<i64>(s.dilation_w) * s.C;
      p.taps_w = s.S;
      p.stream = stream;
      p.ahead = early ? s.stride_h * row_size : 0;
      p.ahead_h = least(s.stride_h, s.R);
      p.ahead_w = least(s.stride_w, s.S);
      const float* line = x + row / s.P * s.H * row_size + p.h.start * row_size;
      for (int q = 0; q < s.Q; q++) {
        p.w = columns[q];
        p.divisor = divisor_of(s, p.h.size, p.w.size);
        p.x = line + static_cast<i64>(p.w.start) * s.C;
        body(p, row * s.Q + q);
      }
    }
    if (stream) stream_fence();
  });
}

// Few channels: a vector holds neighbouring output pixels, lane i channel i % C of pixel i / C. What a tap reads under
// them lies within `span` floats of a row of x, at most two vectors, of which a permutation takes the lanes.
struct PixelLanes {
  int pixels;       // of a vector
  int first, last;  // output columns whose windows lie inside x
  int span;
  veci source{};  // of tap 0
};

// pixels is 0 where it is not possible or a pixel fills most of a vector
inline PixelLanes pixel_lanes(const Pool2dShape& s) {
  PixelLanes l{};
  if (s.adaptive || 2 * s.C > V) return l;
  const int width = (s.S - 1) * s.dilation_w + 1;
  if (width > 2 * V || width > s.W) return l;
  l.first = static_cast<int>(blocks(s.pad_w, s.stride_w));
  l.last = least(s.Q, (s.W + s.pad_w - width) / s.stride_w + 1);
  l.pixels = most(0, least(V / s.C, least((2 * V / s.C - width) / s.stride_w + 1, l.last - l.first)));
  if (width * s.C > 2 * V) l.pixels = 0;
  l.span = ((l.pixels - 1) * s.stride_w + width) * s.C;
  for (int i = 0; i < l.pixels * s.C; i++) l.source[i] = i / s.C * s.stride_w * s.C + i % s.C;
  return l;
}

// The windows of some pixels; p is the first's. NUMBERS: as in max_of_numbers; false where the sum is NaN.
template <class Index, bool NUMBERS>
inline bool max_pixels(const PoolWindow& p, const PixelLanes& l, int lanes, float* y, Index* index) {
  vec best = broadcast(-__builtin_inff()), total{};
  veci winner = veci{} + p.h.first * p.taps_w;
  for (int r = p.h.first; r < p.h.last; r++) {
    const float* at = p.x + r * p.row_step;
    const vec a = load_first(at, l.span), b = l.span > V ? load_first(at + V, l.span - V) : vec{};
    veci source = l.source;
    for (int t = 0; t < p.taps_w; t++, source += static_cast<int>(p.column_step)) {
      const vec value = shuffle(a, b, source);
      const veci tap = veci{} + (r * p.taps_w + t);
      if (NUMBERS) {
        total += value;
        winner = value > best ? tap : winner;
        best = at_least(best, value);
      } else {
        const veci wins = ~(value <= best) & (best == best);  // as in max_window
        best = wins ? value : best;
        winner = wins ? tap : winner;
      }
    }
  }
  store_first(y, best, lanes);
  store_index(index, winner, lanes);
  return !NUMBERS || !any_nan(total, total, total, total);
}

template <class Index>
void max_forward_of_pixels(const Pool2dShape& shape, const PixelLanes& lanes, const float* x, float* y, Index* index) {
  const Pool2dShape s = shape;
  const PixelLanes l = lanes;
  const i64 row_size = static_cast<i64>(s.W) * s.C, cost = static_cast<i64>(s.Q) * s.C * s.R * s.S * 2;
  parallel_pieces(static_cast<i64>(s.N) * s.P, most<i64>(1, 16384 / cost), cost, [=](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      PoolWindow p;
      p.h = rows_of(s, static_cast<int>(row % s.P));
      p.row_step = s.dilation_h * row_size;
      p.column_step = static_cast<i64>(s.dilation_w) * s.C;
      p.taps_w = s.S;
      p.stream = false;
      const float* line = x + row / s.P * s.H * row_size + p.h.start * row_size;
      const auto move_to = [&](int q) {
        p.x = line + (static_cast<i64>(q) * s.stride_w - s.pad_w) * s.C;
        return (row * s.Q + q) * s.C;
      };
      for (int q = l.first > 0 ? 0 : l.last; q < s.Q; q = q + 1 == l.first ? l.last : q + 1) {
        p.w = columns_of(s, q);  // it reaches over the border
        const i64 out = move_to(q);
        max_window<Index, 1>(p, 0, s.C, y + out, index_at(index, out));
      }
      for (int q = l.first; q < l.last; q += l.pixels) {  // the last vector begins before the end of the one before
        const i64 out = move_to(least(q, l.last - l.pixels));
        if (!max_pixels<Index, true>(p, l, l.pixels * s.C, y + out, index_at(index, out)))
          max_pixels<Index, false>(p, l, l.pixels * s.C, y + out, index_at(index, out));
      }
    }
  });
}

// R x S: the windows, whose whole ones then are unrolled; or 0 x 0.
template <class Index, int R, int S>
void max_forward_of_windows(const Pool2dShape& s, const float* x, float* y, Index* index) {
  for_each_window(s, x, y, [=](const PoolWindow& p, i64 pixel) {
    const i64 out = pixel * s.C;
    const bool whole = R > 0 && p.h.first == 0 && p.h.last == R && p.w.first == 0 && p.w.last == S;
    int c = 0;
    for (; c + POOL_VECTORS * V <= s.C; c += POOL_VECTORS * V) {
      if constexpr (R > 0) {
        if (whole && max_of_numbers<Index, POOL_VECTORS, R, S>(p, c, y + out, index_at(index, out))) continue;
      }
      max_window<Index, POOL_VECTORS>(p, c, V, y + out, index_at(index, out));
    }
    for (; c < s.C; c += V) max_window<Index, 1>(p, c, least(V, s.C - c), y + out, index_at(index, out));
  });
}

template <class Index>
void max_forward(const Pool2dShape& s, const float* x, float* y, Index* index) {
  const PixelLanes lanes = pixel_lanes(s);
  if (lanes.pixels > 1) return max_forward_of_pixels(s, lanes, x, y, index);
  const bool square = s.R == s.S && !s.adaptive;
  (square && s.R == 2   ? max_forward_of_windows<Index, 2, 2>
   : square && s.R == 3 ? max_forward_of_windows<Index, 3, 3>
                        : max_forward_of_windows<Index, 0, 0>)(s, x, y, index);
}

void max_pool2d_forward(const Pool2dShape& s, const float* x, float* y, void* index, int index_bytes) {
  if (!index) {
    max_forward(s, x, y, static_cast<NoIndex*>(nullptr));
  } else if (index_bytes == 1) {
    max_forward(s, x, y, static_cast<u8*>(index));
  } else {
    max_forward(s, x, y, static_cast<int*>(index));
  }
}

void avg_pool2d_forward(const Pool2dShape& s, const float* x, float* y) {
  for_each_window(s, x, y, [=](const PoolWindow& p, i64 pixel) {
    float* out = y + pixel * s.C;
    int c = 0;
    for (; c + POOL_VECTORS * V <= s.C; c += POOL_VECTORS * V) average_window<POOL_VECTORS>(p, c, V, out);
    for (; c < s.C; c += V) average_window<1>(p, c, least(V, s.C - c), out);
  });
}

// ---- backward

// The windows along one axis that hold an input position: (output position, tap), ascending.
struct Holder {
  int output, tap, size;  // size: taps that count for the average
};
struct Reach {
  int* first;  // (positions + 1,) numbers of a position's holders
  Holder* holders;
};

// Fills first (size + 1,) and holders (outputs * taps,) from window(output).
template <class F>
Reach reach(int size, int outputs, int dilation, const F& window, int* first, Holder* holders) {
  for (int i = 0; i <= size; i++) first[i] = 0;
  for (int o = 0; o < outputs; o++) {
    const Window w = window(o);
    for (int t = w.first; t < w.last; t++) first[w.start + t * dilation + 1]++;
  }
  for (int i = 0; i < size; i++) first[i + 1] += first[i];
  for (int o = 0; o < outputs; o++) {
    const Window w = window(o);
    for (int t = w.first; t < w.last; t++) holders[first[w.start + t * dilation]++] = {o, t, w.size};
  }
  for (int i = size; i > 0; i--) first[i] = first[i - 1];
  first[0] = 0;
  return {first, holders};
}

// What an input pixel reads.
struct PoolGather {
  const Pool2dShape& s;
  const float* dy;  // of the image
  const Holder *row, *row_end, *column, *column_end;
  bool stream;
};

// What a window hands back to the input at its tap: an average's share, or all to a maximum's winner.
inline vec share_of(const NoIndex*, i64, int, int, vec gradient, float share) {
  return gradient * share;
}
template <class Index>
inline vec share_of(const Index* index, i64 at, int lanes, int tap, vec gradient, float) {
  return load_index(index + at, lanes) == tap ? gradient : vec{};
}

// The gradient of channels c .. c + VECTORS * V of an input pixel, or of `lanes` of one vector; index: of the image.
template <class Index, int VECTORS>
inline void gather_pixel(const PoolGather& g, const Index* index, int c, int lanes, float* dx) {
  vec total[VECTORS] = {};
  for (const Holder* i = g.row; i < g.row_end; i++)
    for (const Holder* j = g.column; j < g.column_end; j++) {
      const i64 at = (static_cast<i64>(i->output) * g.s.Q + j->output) * g.s.C + c;
      const float share = 1.0f / divisor_of(g.s, i->size, j->size);
      const int tap = i->tap * g.s.S + j->tap;
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        const vec gradient = VECTORS == 1 ? load_first(g.dy + at, lanes) : load(g.dy + at + v * V);
        total[v] += share_of(index, at + v * V, lanes, tap, gradient, share);
      }
    }
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) store_pooled(g.stream, dx + c + v * V, total[v], lanes);
}

template <class Index>
void gather_windows(const Pool2dShape& shape, const float* dy, const Index* index, float* dx) {
  const Pool2dShape s = shape;
  const i64 holders = static_cast<i64>(s.P) * s.R + static_cast<i64>(s.Q) * s.S;
  Holder* table = scratch<Holder>(cnn::OFFSETS, holders);
  int* first = scratch<int>(cnn::TAPS, s.H + s.W + 2);
  const Reach rows = reach(s.H, s.P, s.dilation_h, [&](int p) { return rows_of(s, p); }, first, table);
  const Reach columns = reach(
      s.W, s.Q, s.dilation_w, [&](int q) { return columns_of(s, q); }, first + s.H + 1,
      table + static_cast<i64>(s.P) * s.R);
  const i64 lines = static_cast<i64>(s.N) * s.H, line = static_cast<i64>(s.W) * s.C;
  const bool stream = s.C % V == 0 && is_aligned(dx) && lines * line * 4 > STREAM_BYTES;
  parallel_pieces(lines, most<i64>(1, 16384 / line), line * 8, [&](i64 begin, i64 end) {
    for (i64 number = begin; number < end; number++) {
      const i64 n = number / s.H, h = number % s.H, image = n * s.P * s.Q * s.C;
      PoolGather g{s,       dy + image, rows.holders + rows.first[h], rows.holders + rows.first[h + 1], nullptr,
                   nullptr, stream};
      const Index* indices = index_at(index, image);
      float* out = dx + number * line;
      for (int w = 0; w < s.W; w++, out += s.C) {
        g.column = columns.holders + columns.first[w];
        g.column_end = columns.holders + columns.first[w + 1];
        int c = 0;
        for (; c + POOL_VECTORS * V <= s.C; c += POOL_VECTORS * V)
          gather_pixel<Index, POOL_VECTORS>(g, indices, c, V, out);
        for (; c < s.C; c += V) gather_pixel<Index, 1>(g, indices, c, least(V, s.C - c), out);
      }
    }
    if (stream) stream_fence();
  });
}

// Whether the windows cover the input, each element once.
inline bool tiles_input(const Pool2dShape& s) {
  return !s.adaptive && s.dilation_h == 1 && s.dilation_w == 1 && s.pad_h == 0 && s.pad_w == 0 && s.R == s.stride_h &&
         s.S == s.stride_w && s.P * s.R == s.H && s.Q * s.S == s.W;
}

// Windows that tile an input of few channels: each hands its gradient to its own elements. Where the S * C elements of
// a window's row fit a vector, several windows are taken together: lane i of the V * j.. elements under them belongs to
// tap column[j][i], and to lane source[j][i] of their gradients.
struct WindowsTogether {
  int count;  // of windows, at most two vectors of elements
  veci source[2]{}, column[2]{};
  explicit WindowsTogether(const Pool2dShape& s) {
    const int width = s.S * s.C;
    count = least(s.Q, least(V / s.C, 2 * V / width));
    for (int i = 0; i < count * width; i++) {
      source[i / V][i % V] = i / width * s.C + i % s.C;
      column[i / V][i % V] = i % width / s.C;
    }
  }
};

inline vec shares_of(const NoIndex*, int, veci, veci, vec gradients, float share) {
  return gradients * share;
}
template <class Index>
inline vec shares_of(const Index* index, int lanes, veci source, veci taps, vec gradients, float) {
  const vec winner = reinterpret_cast<vec>(load_index(index, lanes));
  return reinterpret_cast<veci>(shuffle(winner, winner, source)) == taps ? gradients : vec{};
}

template <class Index>
void spread_windows_together(const Pool2dShape& s, i64 begin, i64 end, const float* dy, const Index* index, float share,
                             float* dx) {
  const WindowsTogether together(s);
  const i64 line = static_cast<i64>(s.W) * s.C;
  const int lanes = together.count * s.C, elements = lanes * s.S;
  for (i64 row = begin; row < end; row++)
    for (int q = 0; q < s.Q; q += together.count) {
      const int window = least(q, s.Q - together.count);  // the last ones overlap those before
      const i64 at = (row * s.Q + window) * s.C;
      const vec gradient = load_first(dy + at, lanes);
      float* out = dx + row * s.R * line + static_cast<i64>(window) * s.S * s.C;
      for (int j = 0; j * V < elements; j++) {
        const vec gradients = shuffle(gradient, gradient, together.source[j]);
        for (int r = 0; r < s.R; r++)
          store_first(
              out + r * line + j * V,
              shares_of(index_at(index, at), lanes, together.source[j], together.column[j] + r * s.S, gradients, share),
              elements - j * V);
      }
    }
}

template <class Index>
void spread_pixels(const Pool2dShape& s, i64 begin, i64 end, const float* dy, const Index* index, float share,
                   float* dx) {
  const i64 line = static_cast<i64>(s.W) * s.C;
  for (i64 row = begin; row < end; row++)
    for (int q = 0; q < s.Q; q++)
      for (int c = 0; c < s.C; c += V) {
        const int lanes = least(V, s.C - c);
        const i64 at = (row * s.Q + q) * s.C + c;
        const vec gradient = load_first(dy + at, lanes);
        float* out = dx + row * s.R * line + static_cast<i64>(q) * s.S * s.C + c;
        for (int r = 0; r < s.R; r++)
          for (int t = 0; t < s.S; t++)
            store_first(out + r * line + static_cast<i64>(t) * s.C,
                        share_of(index, at, lanes, r * s.S + t, gradient, share), lanes);
      }
}

template <class Index>
void spread_windows(const Pool2dShape& shape, const float* dy, const Index* index, float* dx) {
  const Pool2dShape s = shape;
  const float share = 1.0f / divisor_of(s, s.R, s.S);
  const i64 size = static_cast<i64>(s.R) * s.W * s.C;
  const auto spread = s.S * s.C <= V ? spread_windows_together<Index> : spread_pixels<Index>;
  parallel_pieces(static_cast<i64>(s.N) * s.P, most<i64>(1, 16384 / size), size * 8,
                  [=](i64 begin, i64 end) { spread(s, begin, end, dy, index, share, dx); });
}

template <class Index>
void pool2d_backward(const Pool2dShape& s, const float* dy, const Index* index, float* dx) {
  (tiles_input(s) && s.C < POOL_VECTORS * V ? spread_windows<Index> : gather_windows<Index>)(s, dy, index, dx);
}

void max_pool2d_backward(const Pool2dShape& s, const float* dy, const void* index, int index_bytes, float* dx) {
  if (index_bytes == 1) {
    pool2d_backward(s, dy, static_cast<const u8*>(index), dx);
  } else {
    pool2d_backward(s, dy, static_cast<const int*>(index), dx);
  }
}

void avg_pool2d_backward(const Pool2dShape& s, const float* dy, float* dx) {
  pool2d_backward(s, dy, static_cast<const NoIndex*>(nullptr), dx);
}
