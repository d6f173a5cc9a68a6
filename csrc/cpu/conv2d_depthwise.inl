// Depthwise convolution: one filter a channel, vectors along the channels. Forward and backward_input are the gathering
// sum of conv2d_taps.inl with one channel a group: a block of PIXELS outputs of one row is held in registers, every
// input under it is loaded once and used under each tap column. backward_weight holds a band's sums of all taps.
// 2 R S operations for 8 bytes of x and y: bound by the memory for 3x3, by loads from the first-level cache for 5x5.

constexpr int PIXELS =
    7;  // maps of 7, 14, 28, 56 and 112 pixels are whole blocks; a last block overlaps the one before

// One filter of taps_h x taps_w taps, tap-major: (taps_h * taps_w, C).
struct Depthwise {
  Gather g;
  const float* filter;
  Epilogue epilogue;
};

inline void finish_pixel(const Epilogue& e, float* y, i64 at, int c, int lanes, vec t) {
  if (e.bias) t += load_first(e.bias + c, lanes);
  if (e.scale) t *= load_first(e.scale + c, lanes);
  if (e.shift) t += load_first(e.shift + c, lanes);
  if (e.residual) t += load_first(e.residual + at, lanes);
  t = activate(e.activation, t);
  store_first(y + at, t, lanes);
}

// Adds one row of TAPS taps side by side, the inputs of output pixel 0 starting at column `left` of line x.
template <int TAPS, int STEP, bool INSIDE>
inline __attribute__((always_inline)) void add_line(const float* x, i64 C, int left, int W, const float* filter,
                                                    int lanes, vec (&sums)[PIXELS]) {
  vec f[TAPS];
#pragma GCC unroll 8
  for (int u = 0; u < TAPS; u++) f[u] = load_first(filter + u * C, lanes);
#pragma GCC unroll 24
  for (int v = 0; v < (PIXELS - 1) * STEP + TAPS; v++) {
    if (!INSIDE && static_cast<unsigned>(left + v) >= static_cast<unsigned>(W)) continue;
    const vec value = load_first(x + (left + v) * C, lanes);
#pragma GCC unroll 8
    for (int u = 0; u < TAPS; u++)
      if (v >= u && (v - u) % STEP == 0 && (v - u) / STEP < PIXELS) sums[(v - u) / STEP] += value * f[u];
  }
}

// Output pixels j .. j + PIXELS of grid row i, channels c .. c + part; WHOLE: a whole vector of them.
template <int TAPS, int STEP, bool WHOLE>
void depthwise_block(const Depthwise& d, float* y, i64 n, int i, int j, int c, int part) {
  const Gather& g = d.g;
  const int lanes = WHOLE ? V : part;
  vec sums[PIXELS] = {};
  const int left = j * STEP + g.column[0];
  const bool inside = left >= 0 && left + (PIXELS - 1) * STEP + TAPS <= g.W;
  for (int t = 0; t < g.taps_h; t++) {
    const int h = i * g.step_h + g.row[t];
    if (h < 0 || h >= g.H) continue;
    const float *x = g.x + (n * g.H + h) * g.W * g.C + c, *filter = d.filter + static_cast<i64>(t) * TAPS * g.C + c;
    if (inside) {
      add_line<TAPS, STEP, true>(x, g.C, left, g.W, filter, lanes, sums);
    } else {
      add_line<TAPS, STEP, false>(x, g.C, left, g.W, filter, lanes, sums);
    }
  }
  const i64 at = ((n * g.Y_H + g.y_row + static_cast<i64>(i) * g.y_step_h) * g.Y_W + g.y_column +
                  static_cast<i64>(j) * g.y_step_w) *
                     g.C +
                 c;
#pragma GCC unroll 8
  for (int p = 0; p < PIXELS; p++)
    finish_pixel(d.epilogue, y, at + static_cast<i64>(p) * g.y_step_w * g.C, c, lanes, sums[p]);
}

// One output pixel, for any taps.
void depthwise_pixel(const Depthwise& d, float* y, i64 n, int i, int j, int c, int lanes) {
  const Gather& g = d.g;
  vec total{};
  for (int t = 0; t < g.taps_h; t++) {
    const int h = i * g.step_h + g.row[t];
    if (h < 0 || h >= g.H) continue;
    for (int u = 0; u < g.taps_w; u++) {
      const int v = j * g.step_w + g.column[u];
      if (v < 0 || v >= g.W) continue;
      total += load_first(g.x + ((n * g.H + h) * g.W + v) * g.C + c, lanes) *
               load_first(d.filter + (static_cast<i64>(t) * g.taps_w + u) * g.C + c, lanes);
    }
  }
  const i64 at = ((n * g.Y_H + g.y_row + static_cast<i64>(i) * g.y_step_h) * g.Y_W + g.y_column +
                  static_cast<i64>(j) * g.y_step_w) *
                     g.C +
                 c;
  finish_pixel(d.epilogue, y, at, c, lanes, total);
}

using DepthwiseBlock = void (*)(const Depthwise&, float*, i64, int, int, int, int);

// The block kernel for a row of adjacent taps, or null.
template <bool WHOLE>
inline DepthwiseBlock depthwise_block_for(const Gather& g) {
  if (g.columns < PIXELS || g.column[g.taps_w - 1] - g.column[0] != g.taps_w - 1) return nullptr;
  switch (g.taps_w * 10 + g.step_w) {
    case 11:
      return depthwise_block<1, 1, WHOLE>;
    case 21:
      return depthwise_block<2, 1, WHOLE>;
    case 31:
      return depthwise_block<3, 1, WHOLE>;
    case 41:
      return depthwise_block<4, 1, WHOLE>;
    case 51:
      return depthwise_block<5, 1, WHOLE>;
    case 71:
      return depthwise_block<7, 1, WHOLE>;
    case 32:
      return depthwise_block<3, 2, WHOLE>;
    case 52:
      return depthwise_block<5, 2, WHOLE>;
    case 72:
      return depthwise_block<7, 2, WHOLE>;
    default:
      return nullptr;
  }
}

void run_depthwise(const Depthwise& d) {
  const Gather& g = d.g;
  const DepthwiseBlock whole_block = depthwise_block_for<true>(g), part_block = depthwise_block_for<false>(g);
  const i64 cost = static_cast<i64>(g.columns) * g.C * (g.taps_h * g.taps_w + 8);
  parallel_pieces(static_cast<i64>(g.N) * g.rows, most<i64>(1, 262144 / cost), cost, [&](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      const i64 n = row / g.rows;
      const int i = static_cast<int>(row % g.rows);
      for (int c = 0; c < g.C; c += V) {
        const int lanes = least(V, g.C - c);
        if (const DepthwiseBlock block = lanes == V ? whole_block : part_block) {
          for (int j = 0; j < g.columns; j += PIXELS) block(d, g.y, n, i, least(j, g.columns - PIXELS), c, lanes);
        } else {
          for (int j = 0; j < g.columns; j++) depthwise_pixel(d, g.y, n, i, j, c, lanes);
        }
      }
    }
  });
}

// w (C, R, S, 1) to tap-major (taps_h * taps_w, C), the taps in the order given.
void pack_depthwise_filter(const Conv2dShape& s, const Gather& g, const int* tap_row, const int* tap_column,
                           const float* w, float* filter) {
  for (int t = 0; t < g.taps_h; t++)
    for (int u = 0; u < g.taps_w; u++) {
      const float* in = w + tap_row[t] * s.S + tap_column[u];
      for (int c = 0; c < s.C; c++) *filter++ = in[static_cast<i64>(c) * s.R * s.S];
    }
}

i64 depthwise_filter_size(const Conv2dShape& s) {
  return static_cast<i64>(s.R) * s.S * s.C;
}

void pack_depthwise_forward(const Conv2dShape& s, const float* w, float* filter) {
  int* taps = scratch<int>(cnn::TAPS, 2 * (s.R + s.S));
  const Gather g = forward_gather(s, nullptr, nullptr, taps);
  int *tap_row = taps + s.R + s.S, *tap_column = tap_row + s.R;
  for (int r = 0; r < s.R; r++) tap_row[r] = r;
  for (int t = 0; t < s.S; t++) tap_column[t] = t;
  pack_depthwise_filter(s, g, tap_row, tap_column, w, filter);
}

void depthwise_forward(const Conv2dShape& s, const float* x, const float* w, const float* packed, float* y,
                       const Epilogue& e) {
  if (!packed) {
    float* own = scratch<float>(cnn::PACKED_WEIGHT, depthwise_filter_size(s));
    pack_depthwise_forward(s, w, own);
    packed = own;
  }
  int* taps = scratch<int>(cnn::TAPS, s.R + s.S);
  run_depthwise({forward_gather(s, x, y, taps), packed, e});
}

void depthwise_backward_input(const Conv2dShape& s, const float* dy, const float* w, float* dx) {
  for_each_phase(s, dy, dx, [&](const Gather& g, const int* tap_row, const int* tap_column) {
    float* filter = scratch<float>(cnn::PACKED_WEIGHT, depthwise_filter_size(s));
    pack_depthwise_filter(s, g, tap_row, tap_column, w, filter);
    run_depthwise({g, filter, Epilogue{}});
  });
}

// ---- backward_weight

struct DepthwiseWeight {
  Conv2dShape s;
  const float *x, *dy, *zeros;  // zeros: a line of x outside the image
};

// sums[r][s] of LINES filter rows from r0 on and TAPS taps from s0 on, over output rows p .. p_end of image n.
template <int LINES, int TAPS, bool WHOLE>
void depthwise_weight_band(const DepthwiseWeight& d, i64 n, int p, int p_end, int r0, int s0, int c, int part,
                           float* sums) {
  const Conv2dShape& s = d.s;
  const int lanes = WHOLE ? V : part;
  const i64 C = s.C;
  vec total[LINES][TAPS] = {};
  // outputs whose taps all lie inside the image
  const int reach = s0 * s.dilation_w - s.pad_w, last = (s0 + TAPS - 1) * s.dilation_w - s.pad_w;
  const int from = least<int>(s.Q, reach < 0 ? static_cast<int>(blocks(-reach, s.stride_w)) : 0);
  const int to = most<int>(from, last < s.W ? least<int>(s.Q, (s.W - 1 - last) / s.stride_w + 1) : 0);
  for (; p < p_end; p++) {
    const float* x[LINES];
#pragma GCC unroll 8
    for (int l = 0; l < LINES; l++) {
      const int h = p * s.stride_h - s.pad_h + (r0 + l) * s.dilation_h;
      x[l] = (h < 0 || h >= s.H ? d.zeros : d.x + (n * s.H + h) * s.W * C) + c;
    }
    const float* dy = d.dy + (n * s.P + p) * s.Q * C + c;
    const auto edge = [&](int q) {
      const vec gradient = load_first(dy + q * C, lanes);
#pragma GCC unroll 8
      for (int t = 0; t < TAPS; t++) {
        const int v = q * s.stride_w + reach + t * s.dilation_w;
        if (v < 0 || v >= s.W) continue;
#pragma GCC unroll 8
        for (int l = 0; l < LINES; l++) total[l][t] += gradient * load_first(x[l] + v * C, lanes);
      }
    };
    for (int q = 0; q < from; q++) edge(q);
    const i64 tap = s.dilation_w * C;
    for (int q = from; q < to; q++) {
      const vec gradient = load_first(dy + q * C, lanes);
      const i64 at = (q * s.stride_w + reach) * C;
#pragma GCC unroll 8
      for (int l = 0; l < LINES; l++)
#pragma GCC unroll 8
        for (int t = 0; t < TAPS; t++) total[l][t] += gradient * load_first(x[l] + at + t * tap, lanes);
    }
    for (int q = to; q < s.Q; q++) edge(q);
  }
#pragma GCC unroll 8
  for (int l = 0; l < LINES; l++)
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; t++) {
      float* out = sums + (static_cast<i64>(r0 + l) * s.S + s0 + t) * C + c;
      store_first(out, load_first(out, lanes) + total[l][t], lanes);
    }
}

// All taps of one band of output rows, as many at a time as there are registers for.
template <bool WHOLE>
void depthwise_weight_taps(const DepthwiseWeight& d, i64 n, int p, int p_end, int c, int lanes, float* sums) {
  const Conv2dShape& s = d.s;
  for (int r = 0; r < s.R;) {
    int lines = 1;
    if (s.S == 3 && s.R - r >= 3) {
      lines = 3;
      depthwise_weight_band<3, 3, WHOLE>(d, n, p, p_end, r, 0, c, lanes, sums);
    } else if (s.S == 5 && V == 16 && s.R - r >= 5) {
      lines = 5;
      depthwise_weight_band<5, 5, WHOLE>(d, n, p, p_end, r, 0, c, lanes, sums);
    } else if (s.S == 5 && s.R - r >= 2) {
      lines = 2;
      depthwise_weight_band<2, 5, WHOLE>(d, n, p, p_end, r, 0, c, lanes, sums);
    } else {
      int t = 0;
      for (; t + 5 <= s.S; t += 5) depthwise_weight_band<1, 5, WHOLE>(d, n, p, p_end, r, t, c, lanes, sums);
      for (; t < s.S; t++) depthwise_weight_band<1, 1, WHOLE>(d, n, p, p_end, r, t, c, lanes, sums);
    }
    r += lines;
  }
}

void depthwise_backward_weight(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  const int taps = s.R * s.S, strip = 4 * V;  // channels of an item
  const int band = static_cast<int>(most<i64>(1, least<i64>(s.P, 512 / s.Q)));
  const i64 bands_per_image = blocks(s.P, band), bands = s.N * bands_per_image, strips = blocks(s.C, strip);
  const i64 partitions = least(bands, blocks(32, strips)), line = static_cast<i64>(s.W) * s.C;
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, partitions * taps * s.C + line);
  float* zeros = sums + partitions * taps * s.C;
  __builtin_memset(zeros, 0, static_cast<size_t>(line) * sizeof(float));
  const DepthwiseWeight d{s, x, dy, zeros};
  parallel(strips * partitions, static_cast<i64>(s.N) * s.P * s.Q * s.C * taps, [&](i64 item) {
    const i64 partition = item / strips;
    const int first = static_cast<int>(item % strips) * strip, end = least(s.C, first + strip);
    float* own = sums + partition * taps * s.C;
    for (int t = 0; t < taps; t++)
      __builtin_memset(own + static_cast<i64>(t) * s.C + first, 0, sizeof(float) * (end - first));
    for (i64 b = bands * partition / partitions; b < bands * (partition + 1) / partitions; b++) {
      const int p = static_cast<int>(b % bands_per_image) * band;
      for (int c = first; c < end; c += V)
        (end - c >= V ? depthwise_weight_taps<true> : depthwise_weight_taps<false>)(d, b / bands_per_image, p,
                                                                                    least(s.P, p + band), c,
                                                                                    least(V, end - c), own);
    }
  });
  parallel_pieces(s.C, 64, partitions * taps * 4, [=](i64 begin, i64 end) {
    for (int t = 0; t < taps; t++)
      for (i64 c = begin; c < end; c++) {
        float total = 0;
        for (i64 p = 0; p < partitions; p++) total += sums[(p * taps + t) * s.C + c];
        dw[c * taps + t] = total;
      }
  });
}
