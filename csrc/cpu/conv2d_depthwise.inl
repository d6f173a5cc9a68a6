// Depthwise and grouped convolution, forward and backward_input: the gathering sum of conv2d_taps.inl with lanes as in
// conv2d_lanes.inl. A register block is BLOCK_ROWS x PIXELS outputs of one vector of channels. Every input under it is
// loaded once a line, used under each tap column and by both output rows: 2 R S operations for 8 bytes of x and y, so
// 3x3 depthwise is bound by the memory. All vectors of a block follow each other, which reads x in the order in which
// it lies.

constexpr int PIXELS =
    7;  // maps of 7, 14, 28, 56 and 112 pixels are whole blocks; a last block overlaps the one before
constexpr int BLOCK_ROWS = V == 16 ? 2 : 1;  // 14 sums, two filter rows of up to 7 and an input: 29 of 32 registers

// One gathering sum: the filter packed as in conv2d_lanes.inl.
struct LaneSum {
  Gather g;
  Lanes lanes;
  const float* filter;
  Epilogue epilogue;
  bool finishes;  // the epilogue does something
  bool stream;    // store past the caches
  bool early;     // ask for the inputs of the block to the right: blocks hide less from the hardware's prefetching
};

// The epilogue of the sums (pixels, V); arguments as store_pixels'.
__attribute__((noinline)) void finish_pixels(const LaneSum& d, const float* sums, int pixels, i64 at, i64 step, int k) {
  const Epilogue& e = d.epilogue;
  const int lanes = d.lanes.count();
  for (int p = 0; p < pixels; p++, at += step, sums += V) {
    vec t = load(sums);
    if (e.bias) t += load_first(e.bias + k, lanes);
    if (e.scale) t *= load_first(e.scale + k, lanes);
    if (e.shift) t += load_first(e.shift + k, lanes);
    if (e.residual) t += load_first(e.residual + at, lanes);
    store_first(d.g.y + at, activate(e.activation, t), lanes);
  }
}

// Stores output p at address at + p * step of y, for p < pixels; k is their first channel.
inline __attribute__((always_inline)) void store_pixels(const LaneSum& d, const vec (&sums)[PIXELS], int pixels, i64 at,
                                                        i64 step, int k) {
  const int lanes = d.lanes.count();
  float* y = d.g.y + at;
  if (d.finishes) {
    alignas(64) float kept[PIXELS * V];
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; p++) store(kept + p * V, sums[p]);
    finish_pixels(d, kept, pixels, at, step, k);
  } else if (d.stream && pixels == PIXELS) {
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; p++) store_stream(y + p * step, sums[p]);
  } else if (lanes == V && pixels == PIXELS) {
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; p++) store(y + p * step, sums[p]);
  } else {
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; p++)
      if (p < pixels) store_first(y + p * step, sums[p], lanes);
  }
}

// Adds the products of one line of x, whose input under output 0 and tap column 0 is column `left`. Output row a takes
// part where bit a of USES is set, with filter row filter[a] (inputs, TAPS, V).
template <class Channels, int TAPS, int STEP, int USES, bool INSIDE>
inline __attribute__((always_inline)) void add_line(const Channels& channels, const float* x, i64 pitch, int left,
                                                    int W, const float* const (&filter)[2],
                                                    vec (&sums)[BLOCK_ROWS][PIXELS]) {
  for (int input = 0; input < channels.inputs(); input++) {
    vec f[BLOCK_ROWS][TAPS];
#pragma GCC unroll 2
    for (int a = 0; a < BLOCK_ROWS; a++)
      if (USES >> a & 1)
#pragma GCC unroll 8
        for (int u = 0; u < TAPS; u++) f[a][u] = load(filter[a] + (input * TAPS + u) * V);
#pragma GCC unroll 24
    for (int v = 0; v < (PIXELS - 1) * STEP + TAPS; v++) {
      if (!INSIDE && static_cast<unsigned>(left + v) >= static_cast<unsigned>(W)) continue;
      const vec value = channels.input(x + v * pitch, input);
#pragma GCC unroll 2
      for (int a = 0; a < BLOCK_ROWS; a++)
        if (USES >> a & 1)
#pragma GCC unroll 8
          for (int u = 0; u < TAPS; u++)
            if (v >= u && (v - u) % STEP == 0 && (v - u) / STEP < PIXELS) sums[a][(v - u) / STEP] += value * f[a][u];
    }
  }
}

// Address in y of grid row i, column j, channel k.
inline i64 output_at(const Gather& g, i64 n, int i, int j, int k) {
  return ((n * g.Y_H + g.y_row + static_cast<i64>(i) * g.y_step_h) * g.Y_W + g.y_column +
          static_cast<i64>(j) * g.y_step_w) *
             g.K +
         k;
}

// Output rows i .. i + BLOCK_ROWS, columns j .. j + PIXELS, vectors first .. last, under adjacent taps.
template <class Channels, int TAPS, int STEP, bool INSIDE>
void lane_block(const LaneSum& d, i64 n, int i, int j, int first, int last) {
  const Gather& g = d.g;
  const Channels channels(d.lanes);
  const int top = i * g.step_h + g.row[0], left = j * STEP + g.column[0], W = g.W;
  // the block's lines t are those of its first row's taps, and of its last row's taps step_h lines on
  const int lines = g.taps_h + (BLOCK_ROWS - 1) * g.step_h, first_line = most(0, -top);
  const int end = least(lines, g.H - top), end_both = least(end, g.taps_h),
            end_one = BLOCK_ROWS == 1 ? end_both : least(end_both, g.step_h);
  const i64 pitch = g.C, line = static_cast<i64>(W) * pitch,
            filter_line = static_cast<i64>(channels.inputs()) * TAPS * V;
  const i64 back = g.step_h * filter_line;
  const float* x = g.x + ((n * g.H + top + first_line) * W + left) * pitch;
  const i64 step = static_cast<i64>(g.y_step_w) * g.K, row = static_cast<i64>(g.y_step_h) * g.Y_W * g.K;
  const i64 at = output_at(g, n, i, j, 0);
  const int right = (1 + 3 / (last - first)) * PIXELS * STEP;  // columns on, by three vectors' time at least
  for (int vector = first; vector < last; vector++) {
    const int group = d.lanes.group(vector), k = group * d.lanes.outputs;
    const float *in = x + group * channels.inputs(),
                *f = d.filter + (static_cast<i64>(vector) * g.taps_h + first_line) * filter_line;
    if (d.early) {
      const float* next = in + (lines - BLOCK_ROWS * g.step_h - first_line) * line + (TAPS - STEP + right) * pitch;
      for (int a = 0; a < BLOCK_ROWS * g.step_h; a++, next += line)
#pragma GCC unroll 16
        for (int v = 0; v < PIXELS * STEP; v++) prefetch_l2(next + v * pitch);
    }
    vec sums[BLOCK_ROWS][PIXELS] = {};
    int t = first_line;
    for (; t < end_one; t++, in += line, f += filter_line)
      add_line<Channels, TAPS, STEP, 1, INSIDE>(channels, in, pitch, left, W, {f, f}, sums);
    if (BLOCK_ROWS == 2) {
      for (; t < end_both; t++, in += line, f += filter_line)
        add_line<Channels, TAPS, STEP, 3, INSIDE>(channels, in, pitch, left, W, {f, f - back}, sums);
      for (; t < end; t++, in += line, f += filter_line)
        if (t >= g.step_h) add_line<Channels, TAPS, STEP, 2, INSIDE>(channels, in, pitch, left, W, {f, f - back}, sums);
    }
#pragma GCC unroll 2
    for (int a = 0; a < BLOCK_ROWS; a++) store_pixels(d, sums[a], PIXELS, at + a * row + k, step, k);
  }
}

// Columns j .. j + pixels of output row i, up to PIXELS, under any taps.
template <class Channels>
void lane_pixels(const LaneSum& d, i64 n, int i, int j, int pixels, int first, int last) {
  const Gather& g = d.g;
  const Channels channels(d.lanes);
  for (int vector = first; vector < last; vector++) {
    const int group = d.lanes.group(vector), k = group * d.lanes.outputs;
    const float* f = d.filter + static_cast<i64>(vector) * g.taps_h * channels.inputs() * g.taps_w * V;
    vec sums[PIXELS] = {};
    for (int t = 0; t < g.taps_h; t++) {
      const int h = i * g.step_h + g.row[t];
      if (h < 0 || h >= g.H) {
        f += static_cast<i64>(channels.inputs()) * g.taps_w * V;
        continue;
      }
      const float* x = g.x + (n * g.H + h) * g.W * g.C + group * channels.inputs();
      for (int input = 0; input < channels.inputs(); input++)
        for (int u = 0; u < g.taps_w; u++, f += V) {
          const vec tap = load(f);
          const int left = j * g.step_w + g.column[u];
#pragma GCC unroll 8
          for (int p = 0; p < PIXELS; p++) {
            const int v = left + p * g.step_w;
            if (p < pixels && v >= 0 && v < g.W) sums[p] += channels.input(x + static_cast<i64>(v) * g.C, input) * tap;
          }
        }
    }
    store_pixels(d, sums, pixels, output_at(g, n, i, j, k), static_cast<i64>(g.y_step_w) * g.K, k);
  }
}

using LaneBlock = void (*)(const LaneSum&, i64, int, int, int, int);

// The block kernel for adjacent taps, or null.
template <class Channels, bool INSIDE>
inline LaneBlock lane_block_for(const Gather& g) {
  if (g.columns < PIXELS || g.rows < BLOCK_ROWS || g.taps_h == 0 || g.taps_w == 0 ||
      g.column[g.taps_w - 1] - g.column[0] != g.taps_w - 1 || g.row[g.taps_h - 1] - g.row[0] != g.taps_h - 1)
    return nullptr;
  if constexpr (Channels::OWN) switch (g.taps_w * 10 + g.step_w) {
      case 41:
        return lane_block<Channels, 4, 1, INSIDE>;
      case 51:
        return lane_block<Channels, 5, 1, INSIDE>;
      case 71:
        return lane_block<Channels, 7, 1, INSIDE>;
      case 52:
        return lane_block<Channels, 5, 2, INSIDE>;
      case 72:
        return lane_block<Channels, 7, 2, INSIDE>;
    }
  switch (g.taps_w * 10 + g.step_w) {
    case 11:
      return lane_block<Channels, 1, 1, INSIDE>;
    case 21:
      return lane_block<Channels, 2, 1, INSIDE>;
    case 31:
      return lane_block<Channels, 3, 1, INSIDE>;
    case 32:
      return lane_block<Channels, 3, 2, INSIDE>;
    default:
      return nullptr;
  }
}

// Rows first .. last of the grid, all columns, a run of vectors.
template <class Channels>
void lane_rows(const LaneSum& d, i64 n, int first, int last, int vector, int end) {
  const Gather& g = d.g;
  const LaneBlock inside = lane_block_for<Channels, true>(g), border = lane_block_for<Channels, false>(g);
  if (!inside || last - first < BLOCK_ROWS) {
    for (int i = first; i < last; i++)
      for (int j = 0; j < g.columns; j += PIXELS)
        lane_pixels<Channels>(d, n, i, j, least(PIXELS, g.columns - j), vector, end);
    return;
  }
  for (int i = first; i < last; i += BLOCK_ROWS)
    for (int j = 0; j < g.columns; j += PIXELS) {
      const int column = least(j, g.columns - PIXELS), left = column * g.step_w + g.column[0];
      const bool within = left >= 0 && left + (PIXELS - 1) * g.step_w + g.taps_w <= g.W;
      (within ? inside : border)(d, n, least(i, last - BLOCK_ROWS), column, vector, end);
    }
}

using LaneRows = void (*)(const LaneSum&, i64, int, int, int, int);

inline LaneRows lane_rows_for(const Lanes& l) {
  return l.own()         ? lane_rows<OwnChannel>
         : l.span() <= V ? lane_rows<GroupChannel<false>>
                         : lane_rows<GroupChannel<true>>;
}

// Work items are bands of rows and runs of vectors. The sums write different elements of the same y; an item does its
// part of all of them, so that it reads x once.
void run_lane_sums(const LaneSum* sums, int count) {
  constexpr i64 ITEMS = 16;  // wanted
  const Lanes& l = sums[0].lanes;
  int rows = 0;
  i64 terms = 0;
  for (int i = 0; i < count; i++) {
    rows = most(rows, sums[i].g.rows);
    terms += static_cast<i64>(sums[i].g.columns) * (sums[i].g.taps_h * sums[i].g.taps_w * l.inputs + 4);
  }
  const i64 N = sums[0].g.N, wanted = least<i64>(blocks(rows, 4), blocks(ITEMS, N));
  const int band = static_cast<int>(blocks(blocks(rows, wanted), BLOCK_ROWS)) * BLOCK_ROWS;
  const i64 bands = blocks(rows, band);
  // a run is two vectors or more, so that the last and the one it overlaps belong to one item
  const i64 strips = least<i64>(blocks(l.vectors, 4), blocks(ITEMS, N * bands));
  const LaneRows run = lane_rows_for(l);
  parallel(N * bands * strips, N * rows * terms * l.vectors * V, [&](i64 item) {
    const i64 strip = item % strips, n = item / strips / bands;
    const int first = static_cast<int>(item / strips % bands) * band;
    const int vector = static_cast<int>(l.vectors * strip / strips),
              end = static_cast<int>(l.vectors * (strip + 1) / strips);
    for (int i = 0; i < count; i++) {
      const int last = least(first + band, sums[i].g.rows);
      if (first < last) run(sums[i], n, first, last, vector, end);
    }
    if (sums[0].stream) stream_fence();
  });
}

inline bool streams(const Gather& g, const Lanes& l) {
  return l.own() && g.K % V == 0 && is_aligned(g.y) && static_cast<i64>(g.N) * g.Y_H * g.Y_W * g.K > STREAM_BYTES;
}

// Whether x comes from memory. Of several sums over the same x, the first brings it into the caches.
inline bool reads_early(const Gather& g) {
  return static_cast<i64>(g.N) * g.H * g.W * g.C * static_cast<i64>(sizeof(float)) > STREAM_BYTES;
}

// backward_input sums over the filters of a group, the others over its channels.
inline bool grouped_can(int verb, const Conv2dShape& s) {
  const int Cg = s.C / s.groups, Kg = s.K / s.groups;
  return verb == BACKWARD_INPUT ? lanes_can(s.groups, Kg, Cg) : lanes_can(s.groups, Cg, Kg);
}

inline Lanes forward_lanes(const Conv2dShape& s) {
  return lanes_of(s.groups, s.C / s.groups, s.K / s.groups);
}

i64 grouped_filter_size(const Conv2dShape& s) {
  return lane_filter_size(forward_lanes(s), s.R, s.S);
}

void pack_grouped_forward(const Conv2dShape& s, const float* w, float* packed) {
  int *tap_row = scratch<int>(cnn::TAPS, s.R + s.S), *tap_column = tap_row + s.R;
  for (int r = 0; r < s.R; r++) tap_row[r] = r;
  for (int t = 0; t < s.S; t++) tap_column[t] = t;
  pack_filter_lanes(s, forward_lanes(s), s.R, tap_row, s.S, tap_column, w, packed);
}

void grouped_forward(const Conv2dShape& s, const float* x, const float* w, const float* packed, float* y,
                     const Epilogue& e) {
  if (!packed) {
    float* own = scratch<float>(cnn::PACKED_WEIGHT, grouped_filter_size(s));
    pack_grouped_forward(s, w, own);
    packed = own;
  }
  LaneSum d;
  d.g = forward_gather(s, x, y, scratch<int>(cnn::TAPS, s.R + s.S));
  d.lanes = forward_lanes(s);
  d.filter = packed;
  d.epilogue = e;
  d.finishes = e.bias || e.scale || e.shift || e.residual || e.activation.kind != IDENTITY;
  d.stream = streams(d.g, d.lanes);
  d.early = reads_early(d.g);
  run_lane_sums(&d, 1);
}

// One sum for each phase of the strides, see for_each_phase; pixels without taps get a sum of none.
void grouped_backward_input(const Conv2dShape& s, const float* dy, const float* w, float* dx) {
  const Lanes lanes = lanes_of(s.groups, s.K / s.groups, s.C / s.groups);
  const int phases_h = least(s.stride_h, s.H), phases_w = least(s.stride_w, s.W), phases = phases_h * phases_w;
  float* filter = scratch<float>(cnn::PACKED_WEIGHT, lane_filter_size(lanes, s.R, s.S));
  int* taps = scratch<int>(cnn::TAPS, static_cast<i64>(phases) * 2 * (s.R + s.S));
  LaneSum* sums = scratch<LaneSum>(cnn::OFFSETS, phases);
  for (int a = 0; a < phases_h; a++)
    for (int b = 0; b < phases_w; b++, taps += 2 * (s.R + s.S)) {
      int *row = taps, *tap_row = row + s.R, *column = tap_row + s.R, *tap_column = column + s.S;
      const int taps_h = phase_taps(a, s.pad_h, s.dilation_h, s.stride_h, s.R, row, tap_row);
      const int taps_w = phase_taps(b, s.pad_w, s.dilation_w, s.stride_w, s.S, column, tap_column);
      const int rows = static_cast<int>(blocks(s.H - a, s.stride_h)),
                columns = static_cast<int>(blocks(s.W - b, s.stride_w));
      LaneSum& d = sums[a * phases_w + b];
      d.g = {dy, dx,         s.N, s.P,        s.Q, s.K, s.H,      s.W,    s.C,    rows, columns,
             a,  s.stride_h, b,   s.stride_w, 1,   1,   s.groups, taps_h, taps_w, row,  column};
      d.lanes = lanes;
      d.filter = filter;
      d.epilogue = Epilogue{};
      d.finishes = false;
      d.stream = streams(d.g, lanes);
      d.early = phases == 1 && reads_early(d.g);
      (lanes.own() ? pack_filter_lanes : pack_channel_lanes)(s, lanes, taps_h, tap_row, taps_w, tap_column, w, filter);
      filter += lane_filter_size(lanes, taps_h, taps_w);
    }
  run_lane_sums(sums, phases);
}
