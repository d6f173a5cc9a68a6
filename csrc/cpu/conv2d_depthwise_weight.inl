// Depthwise and grouped backward_weight: lanes are filters as in conv2d_lanes.inl, and a block holds the sums of TAPS
// taps of WEIGHT_LINES filter rows with the gradients of PIXELS outputs: each gradient is loaded once for all of them,
// each input once for its row of taps. Bands of output rows follow each other; for each of them all vectors take their
// turn, which reads x and dy in the order in which they lie. A band's sums start from 0 and are then added in memory.

struct LaneWeight {
  Conv2dShape s;
  Lanes lanes;
  const float *x, *dy;
  i64 band;                                                            // output rows of a band, at most
  i64 sums_size() const { return lane_filter_size(lanes, s.R, s.S); }  // (vectors, R, inputs, S, V)
  i64 span() const { return blocks(lanes.span(), V) * V; }
  i64 lines() const { return (band - 1) * s.stride_h + (s.R - 1) * s.dilation_h + 1; }  // of x under a band
  i64 columns() const { return (s.Q - 1) * s.stride_w + (s.S - 1) * s.dilation_w + 1; }
  i64 panel_size() const { return lines() * columns() * span() + band * s.Q * V; }
};

// Output rows first .. last of an image and one vector: where x and dy lie, or copied to a panel, x (lines, columns,
// span) with its zero padding and dy (rows, Q, V). Where a group has many channels each is read as often, and pixels
// that lie a power of two apart would throw each other out of the first-level cache.
struct WeightBand {
  const LaneWeight& d;
  i64 n;
  int first, last;
  float* panel;                            // or null
  const float *x, *dy;                     // of line 0 and column 0 of the image, of output row 0
  i64 x_line, x_pitch, dy_line, dy_pitch;  // from a line or a pixel to the next

  WeightBand(const LaneWeight& d, i64 n, int first, int last, int vector, float* panel)
      : d(d), n(n), first(first), last(last), panel(panel) {
    const Conv2dShape& s = d.s;
    const i64 group = d.lanes.group(vector);
    x = d.x + n * s.H * s.W * s.C + group * d.lanes.inputs;
    dy = d.dy + n * s.P * s.Q * s.K + group * d.lanes.outputs;
    x_line = static_cast<i64>(s.W) * s.C, x_pitch = s.C, dy_line = static_cast<i64>(s.Q) * s.K, dy_pitch = s.K;
    if (panel) fill();
  }

  // Whether filter row r meets x in output row p
  bool meets(int p, int r) const { return panel || static_cast<unsigned>(line(p, r)) < static_cast<unsigned>(d.s.H); }
  int line(int p, int r) const { return p * d.s.stride_h - d.s.pad_h + r * d.s.dilation_h; }

 private:
  void fill() {
    const Conv2dShape& s = d.s;
    const int span = d.lanes.span(), lanes = d.lanes.count(), top = line(first, 0), end = line(last - 1, s.R - 1) + 1;
    const i64 columns = d.columns(), pitch = d.span(), width = columns * pitch;
    const int inside = most(0, least<int>(s.W, static_cast<int>(columns) - s.pad_w));
    const i64 before = least<i64>(columns, s.pad_w) * pitch, after = before + inside * pitch;
    float* to = panel;
    for (int h = top; h < end; h++, to += width) {
      if (h < 0 || h >= s.H) {
        __builtin_memset(to, 0, sizeof(float) * width);
        continue;
      }
      __builtin_memset(to, 0, sizeof(float) * before);
      const float* from = x + h * x_line;
      for (float* pixel = to + before; pixel < to + after; pixel += pitch, from += x_pitch)
        for (int i = 0; i < span; i += V) store(pixel + i, load_first(from + i, span - i));
      __builtin_memset(to + after, 0, sizeof(float) * (width - after));
    }
    float* gradients = to;
    for (int p = first; p < last; p++)
      for (int q = 0; q < s.Q; q++, to += V) store(to, load_first(dy + p * dy_line + q * dy_pitch, lanes));
    x = panel + s.pad_w * pitch - top * width, x_line = width, x_pitch = pitch;
    dy = gradients - static_cast<i64>(first) * s.Q * V, dy_line = static_cast<i64>(s.Q) * V, dy_pitch = V;
  }
};

// As GroupChannel, of a panel: vectors are whole.
template <bool TWO>
struct PanelChannel {
  static constexpr bool OWN = false;
  veci source;
  int count;
  explicit PanelChannel(const Lanes& l) : source(l.source), count(l.inputs) {}
  int inputs() const { return count; }
  vec input(const float* x, int number) const {
    const vec a = load(x);
    return shuffle(a, TWO ? load(x + V) : a, source + number);
  }
  vec output(const float* y) const { return load(y); }
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

// Filter rows r0 .. r0 + LINES.
template <class Channels, int LINES, int TAPS, int STEP>
void weight_band(const WeightBand& band, int input, int r0, float* sums) {
  const Conv2dShape& s = band.d.s;
  const Channels channels(band.d.lanes);
  const i64 C = band.x_pitch, K = band.dy_pitch;
  vec total[LINES][TAPS] = {};
  for (int p = band.first; p < band.last; p++) {
    const float* x[LINES];
#pragma GCC unroll 4
    for (int l = 0; l < LINES; l++)
      x[l] = band.meets(p, r0 + l) ? band.x + band.line(p, r0 + l) * band.x_line : nullptr;
    const float* dy = band.dy + p * band.dy_line;
    int q = 0;
    for (; q + PIXELS <= s.Q; q += PIXELS) {
      vec gradient[PIXELS];
#pragma GCC unroll 8
      for (int i = 0; i < PIXELS; i++) gradient[i] = channels.output(dy + (q + i) * K);
      const int left = q * STEP - s.pad_w;
      if (!Channels::OWN || (left >= 0 && left + (PIXELS - 1) * STEP + TAPS <= s.W)) {
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
        if (Channels::OWN && (v < 0 || v >= s.W)) continue;
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
void weight_band_of_taps(const WeightBand& band, int input, int r, int u0, float* sums) {
  constexpr int MOST_TAPS = 8;
  const Conv2dShape& s = band.d.s;
  const Channels channels(band.d.lanes);
  const int taps = least(MOST_TAPS, s.S - u0);
  vec total[MOST_TAPS] = {};
  for (int p = band.first; p < band.last; p++) {
    if (!band.meets(p, r)) continue;
    const float *x = band.x + band.line(p, r) * band.x_line, *dy = band.dy + p * band.dy_line;
    for (int q = 0; q < s.Q; q++, dy += band.dy_pitch) {
      const vec gradient = channels.output(dy);
      const int left = q * s.stride_w - s.pad_w + u0 * s.dilation_w;
#pragma GCC unroll 8
      for (int u = 0; u < MOST_TAPS; u++) {
        const int v = left + u * s.dilation_w;
        if (u < taps && (!Channels::OWN || (v >= 0 && v < s.W)))
          total[u] += gradient * channels.input(x + v * band.x_pitch, input);
      }
    }
  }
#pragma GCC unroll 8
  for (int u = 0; u < MOST_TAPS; u++)
    if (u < taps) add_to(sums + ((static_cast<i64>(r) * channels.inputs() + input) * s.S + u0 + u) * V, total[u]);
}

template <class Channels, int TAPS, int STEP>
void weight_rows(const WeightBand& band, int input, float* sums) {
  constexpr int LINES = weight_lines(TAPS);
  int r = 0;
  const int R = band.d.s.R;
  for (; r + LINES <= R; r += LINES) weight_band<Channels, LINES, TAPS, STEP>(band, input, r, sums);
  if (LINES > 2 && r + 2 <= R) {
    weight_band<Channels, 2, TAPS, STEP>(band, input, r, sums);
    r += 2;
  }
  for (; r < R; r++) weight_band<Channels, 1, TAPS, STEP>(band, input, r, sums);
}

template <class Channels>
void weight_rows_of_taps(const WeightBand& band, int input, float* sums) {
  for (int r = 0; r < band.d.s.R; r++)
    for (int u = 0; u < band.d.s.S; u += 8) weight_band_of_taps<Channels>(band, input, r, u, sums);
}

using WeightRows = void (*)(const WeightBand&, int, float*);

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
         : l.span() <= V ? weight_rows_for<PanelChannel<false>>(s)
                         : weight_rows_for<PanelChannel<true>>(s);
}

// Work items are runs of vectors and partitions of the bands, each with sums of its own: partitions first, because they
// read x and dy in order, as long as their sums are small beside x and dy.
void grouped_backward_weight(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  constexpr i64 ITEMS = 16;       // wanted
  constexpr int LANE_BAND = 112;  // pixels of a band
  const int band = most(1, least(s.P, LANE_BAND / s.Q)), image = static_cast<int>(blocks(s.P, band));
  const LaneWeight d{s, lanes_of(s.groups, s.C / s.groups, s.K / s.groups), x, dy, band};
  const Lanes& l = d.lanes;
  const i64 size = d.sums_size(), vector_size = size / l.vectors, bands = static_cast<i64>(s.N) * image;
  const i64 pixels = static_cast<i64>(s.N) * s.P * s.Q;
  const i64 read = static_cast<i64>(s.N) * s.H * s.W * s.C + pixels * s.K;
  const i64 partitions = least(least(bands, ITEMS), most<i64>(1, read / (16 * size)));
  const i64 strips = least<i64>(l.vectors, blocks(ITEMS, partitions));
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, partitions * size);
  const WeightRows add = weight_rows_for(s, l);
  parallel(strips * partitions, pixels * s.K * s.R * s.S * l.inputs, [&](i64 item) {
    const i64 strip = item % strips, partition = item / strips;
    const int begin = static_cast<int>(l.vectors * strip / strips),
              end = static_cast<int>(l.vectors * (strip + 1) / strips);
    float* own = sums + partition * size;
    __builtin_memset(own + begin * vector_size, 0, sizeof(float) * (end - begin) * vector_size);
    float* panel = l.own() ? nullptr : scratch<float>(cnn::PANEL, d.panel_size());
    for (i64 b = bands * partition / partitions; b < bands * (partition + 1) / partitions; b++)
      for (int vector = begin; vector < end; vector++) {
        const int first = static_cast<int>(b % image) * band;
        const WeightBand part(d, b / image, first, least(s.P, first + band), vector, panel);
        for (int input = 0; input < l.inputs; input++) add(part, input, own + vector * vector_size);
      }
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
