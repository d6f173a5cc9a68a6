// backward_weight as a matrix product whose columns are channels: dw[k, tap, c] = sum over output pixels of
// dy[pixel, k] * x[pixel under tap, c]. A register tile holds a few k (its rows, scalars of dy) by up to four vectors
// of c. Where there are few channels, the columns are a whole row of taps: they lie side by side in x.

constexpr i64 MOST_BLOCK = 262144;  // elements of dw in an item: a megabyte in the second-level cache
// Filters of a pixel: scalars half a page or more apart are copied together
constexpr int LONG_STRIDE = 512;

struct WeightByChannels {
  Bands bands;
  const float* dy;
  float* dw;          // (partitions, K, R, S, C/groups)
  bool merged;        // columns are whole rows of taps
  int taps, length;   // runs of columns, and their length
  Columns columns;    // blocks of a run
  int strips;         // work items along the blocks of a run
  int splits;         // and along the k of a group
  i64 partitions;     // of the bands
  bool packs;         // copies dy into panels
  const i64* x_line;  // where a band's lines begin
};

inline bool merges_taps(const Conv2dShape& s) {
  const int Cg = s.C / s.groups;
  return s.S > 1 && s.dilation_w == 1 && Cg % V != 0 && Cg < 2 * V;
}

// What a band reads of x, in panels for the blocks of channels. In place, a run's last vector may read past the end of
// x.
const float* band_of_x(const WeightByChannels& plan, const Band& band, int channel, int channels, int panels) {
  const Bands& b = plan.bands;
  const Conv2dShape& s = b.s;
  const i64 size = panels * b.panel();
  if (!b.in_place) {
    float* panel = scratch<float>(cnn::PANEL, size + MOST_LANES);
    __builtin_memset(panel + size, 0, sizeof(float) * MOST_LANES);
    fill_band(b, band, channel, channels, panel);
    return panel;
  }
  const float* x = b.x + (band.n * s.H + static_cast<i64>(band.p) * s.stride_h) * b.line() + channel;
  const i64 left = b.x + s.N * b.sheet() - x;
  const i64 last = (band.images - 1) * b.sheet() + (s.Q - 1) * b.step() +
                   ((band.rows - 1) * static_cast<i64>(s.stride_h) + (s.R - 1) * s.dilation_h) * b.line();
  if (last + blocks(plan.length, V) * V <= left) return x;
  float* copy = scratch<float>(cnn::PANEL, left + MOST_LANES);
  __builtin_memcpy(copy, x, sizeof(float) * left);
  __builtin_memset(copy + left, 0, sizeof(float) * MOST_LANES);
  return copy;
}

// Copies a band's dy of the filters of `tiles` into one panel (pixels, rows of the group) for each group.
void pack_dy(const float* dy, i64 pixels, i64 pitch, const WeightTiles& tiles, float* panel) {
  for (i64 pixel = 0; pixel < pixels; pixel++, dy += pitch)
    for (int group = 0; group < tiles.groups(); group++) {
      const int first = tiles.group_first(group), rows = tiles.group_rows(group);
      copy_floats(dy + first, rows, panel + first * pixels + pixel * rows);
    }
}

void weight_by_channels_item(const WeightByChannels& plan, i64 item) {
  const Bands& b = plan.bands;
  const Conv2dShape& s = b.s;
  const int Cg = s.C / s.groups, Kg = s.K / s.groups;
  const i64 partition = item % plan.partitions;
  item /= plan.partitions;
  const int split = static_cast<int>(item % plan.splits);
  item /= plan.splits;
  const int strip = static_cast<int>(item % plan.strips), group = static_cast<int>(item / plan.strips);
  const int first = strip * plan.columns.count / plan.strips, last = (strip + 1) * plan.columns.count / plan.strips;
  const int channel = group * Cg + (plan.merged ? 0 : first * plan.columns.width);
  const int channels = plan.merged ? Cg : least(plan.length, last * plan.columns.width) - first * plan.columns.width;
  const int first_k = static_cast<int>(static_cast<i64>(Kg) * split / plan.splits);
  const int filters = static_cast<int>(static_cast<i64>(Kg) * (split + 1) / plan.splits) - first_k;
  const int k = group * Kg + first_k;
  const i64 filter = static_cast<i64>(plan.taps) * plan.length;
  float* dw = plan.dw + (partition * s.K + k) * filter;

  const WeightTiles tiles = weight_tiles(filters, plan.columns.width / V);
  float* packed = plan.packs ? scratch<float>(cnn::LAST_BAND, b.pixels() * filters) : nullptr;
  BandAhead ahead_x{}, ahead_dy{};
  OuterProducts o;
  o.a_line = nullptr;
  o.b_step = b.step();
  o.b_line = plan.x_line;
  o.length = b.length;
  o.y_pitch = filter;
  o.accumulate = false;
  o.kept = nullptr;
  o.ahead_a = &ahead_dy;
  o.ahead_b = &ahead_x;
  const i64 calls = static_cast<i64>(tiles.tiles) * (last - first) * plan.taps;
  for (i64 i = b.count * partition / plan.partitions; i < b.count * (partition + 1) / plan.partitions; i++) {
    const Band band = band_at(b, i);
    const float* x = band_of_x(plan, band, channel, channels, plan.merged ? 1 : last - first);
    const float* dy = plan.dy + (band.n * s.P + band.p) * s.Q * s.K + k;
    o.pixels = pixels_of(b, band);
    if (packed) pack_dy(dy, o.pixels, s.K, tiles, packed);
    if (i + 1 < b.count) {
      const i64 advances = calls * blocks(o.pixels, o.length);
      ahead_x = ahead_of_x(b, band_at(b, i + 1), channel, channels, advances);
      ahead_dy = ahead_of_dy(b, band_at(b, i + 1), plan.dy, k, filters, advances);
    }
    for (int group = 0; group < tiles.groups(); group++) {
      const int group_first = tiles.group_first(group);
      const float* a = packed ? packed + group_first * o.pixels : dy + group_first;
      o.a_step = packed ? tiles.group_rows(group) : s.K;
      for (int block = first; block < last; block++) {
        const int column = block * plan.columns.width;
        o.lanes = least(plan.columns.width, plan.length - column);
        const int vectors = static_cast<int>(blocks(o.lanes, V));
        const float* from = plan.merged ? x + column : x + (block - first) * b.panel();
        for (int tap = 0; tap < plan.taps; tap++) {
          const float* under = from + (plan.merged ? b.at_tap(tap, 0) : b.at_tap(tap / s.S, tap % s.S));
          for (int t = group * tiles.together; t < least(tiles.tiles, (group + 1) * tiles.together); t++) {
            const int row = tiles.first(t);
            weight_tile_of(tiles.rows(t), vectors)(o, a + row - group_first, under,
                                                   dw + row * filter + static_cast<i64>(tap) * plan.length + column);
          }
        }
      }
    }
    o.accumulate = true;
  }
}

// Shares the blocks of dw and the bands out to WEIGHT_ITEMS items, if there are so many, with the least traffic. A
// split of k copies x once more. A strip of columns reads dy once more, scalar by scalar, which costs several times as
// much; a partition is written, read and added up.
void share_out(const Conv2dShape& s, WeightByChannels& plan) {
  const int Kg = s.K / s.groups;
  const double x = static_cast<double>(s.N) * s.H * s.W * s.C, dy = static_cast<double>(s.N) * s.P * s.Q * s.K;
  const double weights = static_cast<double>(s.K) * plan.taps * plan.length;
  double least_cost = -1;
  for (int splits = 1; splits <= blocks(Kg, 24); splits++)
    for (int strips = 1; strips <= plan.columns.count; strips++) {
      const double block =
          static_cast<double>(blocks(Kg, splits)) * plan.taps * blocks(plan.columns.count, strips) * plan.columns.width;
      const double panels =
          static_cast<double>(plan.merged ? 1 : blocks(plan.columns.count, strips)) * plan.bands.panel();
      const i64 items = static_cast<i64>(s.groups) * splits * strips;
      const i64 room = static_cast<i64>((x + dy) / weights);  // partial sums take less memory than x and dy
      const i64 partitions = most<i64>(1, least(least(plan.bands.count, room), blocks(WEIGHT_ITEMS, items)));
      double cost = x * splits + 8 * dy * strips + (partitions > 1 ? 2 * weights * partitions : 0);
      if (items * partitions < WEIGHT_ITEMS) cost *= 1 + 0.1 * (WEIGHT_ITEMS - items * partitions);
      if (block > MOST_BLOCK) cost *= block / MOST_BLOCK;
      if (!plan.bands.in_place && 3 * panels > x + dy) cost *= 3 * panels / (x + dy);  // two threads' panels, with room
      if (least_cost >= 0 && cost >= least_cost) continue;
      least_cost = cost;
      plan.splits = splits;
      plan.strips = strips;
      plan.partitions = partitions;
    }
}

void weight_by_channels(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  const int Cg = s.C / s.groups;
  WeightByChannels plan;
  plan.dy = dy;
  plan.merged = merges_taps(s);
  plan.taps = plan.merged ? s.R : s.R * s.S;
  plan.length = plan.merged ? s.S * Cg : Cg;
  plan.columns = columns_for(plan.length);
  const bool in_place = !reads_padding(s) && (plan.merged ? s.groups == 1 : s.C <= plan.columns.width && s.C % V == 0);
  const i64 pitch = in_place ? s.C : plan.merged ? Cg : blocks(least(plan.columns.width, Cg), V) * V;
  plan.bands = bands_of(s, x, in_place, pitch, plan.merged || in_place ? 1 : s.stride_w, band_pixels(pitch));
  share_out(s, plan);
  plan.x_line = band_lines(plan.bands);
  plan.packs = s.K >= LONG_STRIDE && plan.taps * blocks(plan.columns.count, plan.strips) >= 4;
  const i64 size = static_cast<i64>(s.K) * plan.taps * plan.length, partitions = plan.partitions;
  float* partial = partitions == 1 ? dw : scratch<float>(cnn::PARTIAL_SUMS, partitions * size);
  plan.dw = partial;
  parallel(static_cast<i64>(s.groups) * plan.strips * plan.splits * partitions,
           static_cast<i64>(s.N) * s.P * s.Q * size / 4, [&](i64 item) { weight_by_channels_item(plan, item); });
  add_partitions(partial, size, partitions, dw);
}
