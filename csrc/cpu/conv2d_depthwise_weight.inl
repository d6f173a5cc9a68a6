// Depthwise and grouped backward_weight: lanes are filters as in conv2d_lanes.inl, and a block holds the sums of TAPS
// taps of WEIGHT_LINES filter rows with the gradients of PIXELS outputs: each gradient is loaded once for all of them,
// each input once for its row of taps. Bands of output rows follow each other; for each of them all vectors take their
// turn, which reads x and dy in the order in which they lie. A band's sums start from 0 and are then added in memory.

struct LaneWeight {
  Conv2dShape s;
  Lanes lanes;
  const float *x, *dy;
  i64 sums_size() const { return lane_filter_size(lanes, s.R, s.S); }  // (vectors, R, inputs, S, V)
};

constexpr int weight_lines(int taps) {  // sums, gradients and an input in 32 registers of AVX-512, else in 16
  return V == 16 ? (taps > 5 ? 2 : 3) : taps > 3 ? 1 : 2;
}

// Products of the gradients of PIXELS outputs with LINES lines of x, null where outside; column `left` is under the
// first output and tap.
template <class Channels, int LINES, int TAPS, int STEP, bool INSIDE>
inline __attribute__((always_inline)) void add_weights(const Channels& channels, const float* const (&x)[LINES],
                                                       i64 pitch, int left, int W, const vec (&gradient)[PIXELS],
                                                       int input, vec (&total)[LINES][TAPS]) {
#pragma GCC unroll 4
  for (int l = 0; l < LINES; l++) {
    if (!x[l]) continue;
#pragma GCC unroll 24
    for (int v = 0; v < (PIXELS - 1) * STEP + TAPS; v++) {
      if (!INSIDE && static_cast<unsigned>(left + v) >= static_cast<unsigned>(W)) continue;
      const vec value = channels.input(x[l] + (left + v) * pitch, input);
#pragma GCC unroll 8
      for (int u = 0; u < TAPS; u++)
        if (v >= u && (v - u) % STEP == 0 && (v - u) / STEP < PIXELS) total[l][u] += value * gradient[(v - u) / STEP];
    }
  }
}

inline void add_to(float* sums, vec a) {
  store(sums, load(sums) + a);
}

// Filter rows r0 .. r0 + LINES of one vector over output rows first .. last, counted through the batch.
template <class Channels, int LINES, int TAPS, int STEP>
void weight_band(const LaneWeight& d, i64 first, i64 last, int vector, int input, int r0, float* sums) {
  const Conv2dShape& s = d.s;
  const Channels channels(d.lanes);
  const int group = d.lanes.group(vector);
  const i64 C = s.C, K = s.K;
  vec total[LINES][TAPS] = {};
  for (i64 row = first; row < last; row++) {
    const i64 n = row / s.P;
    const int p = static_cast<int>(row % s.P);
    const float* x[LINES];
#pragma GCC unroll 4
    for (int l = 0; l < LINES; l++) {
      const int h = p * s.stride_h - s.pad_h + (r0 + l) * s.dilation_h;
      x[l] = h < 0 || h >= s.H ? nullptr : d.x + (n * s.H + h) * s.W * C + group * channels.inputs();
    }
    const float* dy = d.dy + row * s.Q * K + group * d.lanes.outputs;
    int q = 0;
    for (; q + PIXELS <= s.Q; q += PIXELS) {
      vec gradient[PIXELS];
#pragma GCC unroll 8
      for (int i = 0; i < PIXELS; i++) gradient[i] = channels.output(dy + (q + i) * K);
      const int left = q * STEP - s.pad_w;
      if (left >= 0 && left + (PIXELS - 1) * STEP + TAPS <= s.W) {
        add_weights<Channels, LINES, TAPS, STEP, true>(channels, x, C, left, s.W, gradient, input, total);
      } else {
        add_weights<Channels, LINES, TAPS, STEP, false>(channels, x, C, left, s.W, gradient, input, total);
      }
    }
    for (; q < s.Q; q++) {
      const vec gradient = channels.output(dy + q * K);
#pragma GCC unroll 8
      for (int u = 0; u < TAPS; u++) {
        const int v = q * STEP - s.pad_w + u;
        if (v < 0 || v >= s.W) continue;
#pragma GCC unroll 4
        for (int l = 0; l < LINES; l++)
          if (x[l]) total[l][u] += gradient * channels.input(x[l] + v * C, input);
      }
    }
  }
#pragma GCC unroll 4
  for (int l = 0; l < LINES; l++)
#pragma GCC unroll 8
    for (int u = 0; u < TAPS; u++)
      add_to(sums + ((static_cast<i64>(r0 + l) * channels.inputs() + input) * s.S + u) * V, total[l][u]);
}

// Up to MOST_TAPS tap columns from u0 on of filter row r, at any distances.
template <class Channels>
void weight_band_of_taps(const LaneWeight& d, i64 first, i64 last, int vector, int input, int r, int u0, float* sums) {
  constexpr int MOST_TAPS = 8;
  const Conv2dShape& s = d.s;
  const Channels channels(d.lanes);
  const int group = d.lanes.group(vector), taps = least(MOST_TAPS, s.S - u0);
  vec total[MOST_TAPS] = {};
  for (i64 row = first; row < last; row++) {
    const i64 n = row / s.P, h = row % s.P * s.stride_h - s.pad_h + static_cast<i64>(r) * s.dilation_h;
    if (h < 0 || h >= s.H) continue;
    const float *x = d.x + (n * s.H + h) * s.W * s.C + group * channels.inputs(),
                *dy = d.dy + row * s.Q * s.K + group * d.lanes.outputs;
    for (int q = 0; q < s.Q; q++, dy += s.K) {
      const vec gradient = channels.output(dy);
      const int left = q * s.stride_w - s.pad_w + u0 * s.dilation_w;
#pragma GCC unroll 8
      for (int u = 0; u < MOST_TAPS; u++) {
        const int v = left + u * s.dilation_w;
        if (u < taps && v >= 0 && v < s.W) total[u] += gradient * channels.input(x + static_cast<i64>(v) * s.C, input);
      }
    }
  }
#pragma GCC unroll 8
  for (int u = 0; u < MOST_TAPS; u++)
    if (u < taps) add_to(sums + ((static_cast<i64>(r) * channels.inputs() + input) * s.S + u0 + u) * V, total[u]);
}

template <class Channels, int TAPS, int STEP>
void weight_rows(const LaneWeight& d, i64 first, i64 last, int vector, int input, float* sums) {
  constexpr int LINES = weight_lines(TAPS);
  int r = 0;
  for (; r + LINES <= d.s.R; r += LINES)
    weight_band<Channels, LINES, TAPS, STEP>(d, first, last, vector, input, r, sums);
  if (LINES > 2 && r + 2 <= d.s.R) {
    weight_band<Channels, 2, TAPS, STEP>(d, first, last, vector, input, r, sums);
    r += 2;
  }
  for (; r < d.s.R; r++) weight_band<Channels, 1, TAPS, STEP>(d, first, last, vector, input, r, sums);
}

template <class Channels>
void weight_rows_of_taps(const LaneWeight& d, i64 first, i64 last, int vector, int input, float* sums) {
  for (int r = 0; r < d.s.R; r++)
    for (int u = 0; u < d.s.S; u += 8) weight_band_of_taps<Channels>(d, first, last, vector, input, r, u, sums);
}

using WeightRows = void (*)(const LaneWeight&, i64, i64, int, int, float*);

template <class Channels>
inline WeightRows weight_rows_for(const Conv2dShape& s) {
  if (s.dilation_w > 1 && s.S > 1) return weight_rows_of_taps<Channels>;
  if constexpr (Channels::OWN) switch (s.S * 10 + s.stride_w) {
      case 51:
        return weight_rows<Channels, 5, 1>;
      case 71:
        return weight_rows<Channels, 7, 1>;
      case 52:
        return weight_rows<Channels, 5, 2>;
      case 72:
        return weight_rows<Channels, 7, 2>;
    }
  switch (s.S * 10 + s.stride_w) {
    case 31:
      return weight_rows<Channels, 3, 1>;
    case 32:
      return weight_rows<Channels, 3, 2>;
    default:
      return weight_rows_of_taps<Channels>;
  }
}

inline WeightRows weight_rows_for(const Conv2dShape& s, const Lanes& l) {
  return l.own()         ? weight_rows_for<OwnChannel>(s)
         : l.span() <= V ? weight_rows_for<GroupChannel<false>>(s)
                         : weight_rows_for<GroupChannel<true>>(s);
}

// Work items are runs of vectors and partitions of the bands, each with sums of its own: partitions first, because they
// read x and dy in order, as long as their sums are small beside x and dy.
void grouped_backward_weight(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  constexpr i64 ITEMS = 16;       // wanted
  constexpr int LANE_BAND = 112;  // pixels of a band
  const LaneWeight d{s, lanes_of(s.groups, s.C / s.groups, s.K / s.groups), x, dy};
  const Lanes& l = d.lanes;
  const i64 size = d.sums_size(), vector_size = size / l.vectors, rows = static_cast<i64>(s.N) * s.P;
  const i64 band = most<i64>(1, LANE_BAND / s.Q), bands = blocks(rows, band);
  const i64 read = static_cast<i64>(s.N) * s.H * s.W * s.C + rows * s.Q * s.K;
  const i64 partitions = least(least(bands, ITEMS), most<i64>(1, read / (16 * size)));
  const i64 strips = least<i64>(l.vectors, blocks(ITEMS, partitions));
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, partitions * size);
  const WeightRows add = weight_rows_for(s, l);
  parallel(strips * partitions, rows * s.Q * s.K * s.R * s.S * l.inputs, [&](i64 item) {
    const i64 strip = item % strips, partition = item / strips;
    const int begin = static_cast<int>(l.vectors * strip / strips),
              end = static_cast<int>(l.vectors * (strip + 1) / strips);
    float* own = sums + partition * size;
    __builtin_memset(own + begin * vector_size, 0, sizeof(float) * (end - begin) * vector_size);
    for (i64 b = bands * partition / partitions; b < bands * (partition + 1) / partitions; b++)
      for (int vector = begin; vector < end; vector++)
        for (int input = 0; input < l.inputs; input++)
          add(d, b * band, least(rows, (b + 1) * band), vector, input, own + vector * vector_size);
  });
  parallel_pieces(l.vectors, 4, vector_size * (partitions + 4), [&](i64 begin, i64 end) {
    for (i64 vector = begin; vector < end; vector++) {
      const int group = l.group(static_cast<int>(vector));
      const int covered = static_cast<int>((vector * l.together - group) * l.outputs);  // by the vector before
      float* out = dw + static_cast<i64>(group) * l.outputs * s.R * s.S * l.inputs;
      for (int r = 0; r < s.R; r++)
        for (int input = 0; input < l.inputs; input++)
          for (int u = 0; u < s.S; u++) {
            const float* in = sums + vector * vector_size + ((static_cast<i64>(r) * l.inputs + input) * s.S + u) * V;
            vec total = load(in);
            for (i64 p = 1; p < partitions; p++) total += load(in + p * size);
            for (int i = covered; i < l.count(); i++)
              out[((static_cast<i64>(i) * s.R + r) * s.S + u) * l.inputs + input] = total[i];
          }
    }
  });
}
