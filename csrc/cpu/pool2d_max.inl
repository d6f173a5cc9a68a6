// Max-pooling forward. Of equal values the first in row-major window order wins, a NaN before all, padding never.

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

// Channels [c, end) of any window; y and index: at its channel 0.
template <class Index>
inline void max_channels(const PoolWindow& p, int c, int end, float* y, Index* index) {
  for (; c + POOL_VECTORS * V <= end; c += POOL_VECTORS * V) max_window<Index, POOL_VECTORS>(p, c, V, y, index);
  for (; c < end; c += V) max_window<Index, 1>(p, c, least(V, end - c), y, index);
}

inline bool is_whole(const Window& w, int taps) {
  return w.first == 0 && w.last == taps;
}

// R x S: the windows, whose whole ones then are unrolled; or 0 x 0.
template <class Index, int R, int S>
void max_forward_of_windows(const Pool2dShape& s, const float* x, float* y, Index* index) {
  for_each_window(s, x, y, [=](const PoolWindow& p, i64 pixel) {
    const i64 out = pixel * s.C;
    int c = 0;
    if constexpr (R > 0)
      if (is_whole(p.h, R) && is_whole(p.w, S))
        for (; c + POOL_VECTORS * V <= s.C; c += POOL_VECTORS * V)
          if (!max_of_numbers<Index, POOL_VECTORS, R, S>(p, c, y + out, index_at(index, out)))
            max_channels(p, c, c + POOL_VECTORS * V, y + out, index_at(index, out));
    max_channels(p, c, s.C, y + out, index_at(index, out));
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
