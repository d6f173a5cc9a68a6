// backward_weight as a matrix product whose columns are channels: dw[k, tap, c] = sum over output pixels of
// dy[pixel, k] * x[pixel under tap, c]. A register tile holds a few k (its rows, scalars of dy) by up to four vectors
// of c. Where there are few channels, the columns are a whole row of taps: they lie side by side in x.

constexpr i64 MOST_BLOCK = 131072;     // elements of dw in an item: half a megabyte in the second-level cache
constexpr i64 MOST_PARTIAL = 1 << 20;  // elements of dw in all partitions together

struct WeightByChannels {
  Bands bands;
  const float* dy;
  float* dw;                  // (partitions, K, R, S, C/groups)
  bool merged;                // columns are whole rows of taps
  int taps, length;           // runs of columns, and their length
  Columns columns;            // blocks of a run
  int strip;                  // blocks of a work item: they share a pass over dy
  int splits;                 // of the k of a group
  i64 partitions;             // of the bands
  const i64 *dy_run, *x_run;  // addresses of a band's lines
  const i64 *row, *at;        // (K / groups,) addresses of filters in dy and in dw
};

inline bool merges_taps(const Conv2dShape& s) {
  const int Cg = s.C / s.groups;
  return s.S > 1 && s.dilation_w == 1 && Cg % V != 0 && Cg < 2 * V;
}

void weight_by_channels_item(const WeightByChannels& plan, i64 item) {
  const Bands& b = plan.bands;
  const Conv2dShape& s = b.s;
  const int Cg = s.C / s.groups, Kg = s.K / s.groups;
  const i64 partition = item % plan.partitions;
  item /= plan.partitions;
  const int split = static_cast<int>(item % plan.splits);
  item /= plan.splits;
  const int strips = static_cast<int>(blocks(plan.columns.count, plan.strip));
  const int first = static_cast<int>(item % strips) * plan.strip, last = least(plan.columns.count, first + plan.strip);
  const int group = static_cast<int>(item / strips);
  const int channel = plan.merged ? 0 : first * plan.columns.width;
  const int channels = plan.merged ? Cg : least(Cg, last * plan.columns.width) - channel;
  const int first_k = static_cast<int>(static_cast<i64>(Kg) * split / plan.splits);
  const int last_k = static_cast<int>(static_cast<i64>(Kg) * (split + 1) / plan.splits);
  const i64 filter = static_cast<i64>(plan.taps) * plan.length;

  TileOutput out;
  out.finishes = false;
  out.accumulate = false;
  float* dw = plan.dw + (partition * s.K + static_cast<i64>(group) * Kg + first_k) * filter;
  const i64 panels = plan.merged ? 1 : last - first;
  float* panel = scratch<float>(cnn::PANEL, panels * b.panel() + MOST_LANES);
  __builtin_memset(panel + panels * b.panel(), 0, sizeof(float) * MOST_LANES);  // a merged run's last vector reads past
  Operands o;
  o.a_step = s.K;
  o.a_run = plan.dy_run;
  o.b_step = s.stride_w * b.pitch;
  o.b_run = plan.x_run;
  o.length = s.Q;
  for (i64 i = b.count * partition / plan.partitions; i < b.count * (partition + 1) / plan.partitions; i++) {
    const Band band = band_at(b, i);
    fill_band(b, band, group * Cg + channel, channels, panel);
    o.a = plan.dy + (band.n * s.P + band.p) * s.Q * s.K + static_cast<i64>(group) * Kg + first_k;
    o.runs = band.lines();
    for (int block = first; block < last; block++) {
      const int column = block * plan.columns.width;
      const float* x = plan.merged ? panel + column : panel + (block - first) * b.panel();
      out.lanes = least(plan.columns.width, plan.length - column);
      for (int tap = 0; tap < plan.taps; tap++) {
        const int r = plan.merged ? tap : tap / s.S, t = plan.merged ? 0 : tap % s.S;
        o.b = x + r * s.dilation_h * b.line() + t * s.dilation_w * b.pitch;
        out.y = dw + static_cast<i64>(tap) * plan.length + column;
        multiply_rows(o, last_k - first_k, plan.row, plan.at, out);
      }
    }
    out.accumulate = true;
  }
}

void weight_by_channels(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  const int Cg = s.C / s.groups, Kg = s.K / s.groups;
  WeightByChannels plan;
  plan.dy = dy;
  plan.merged = merges_taps(s);
  plan.taps = plan.merged ? s.R : s.R * s.S;
  plan.length = plan.merged ? s.S * Cg : Cg;
  plan.columns = columns_for(plan.length);
  plan.bands = bands_of(s, x, plan.merged ? Cg : blocks(least(plan.columns.width, Cg), V) * V);
  const i64 block = static_cast<i64>(Kg) * plan.taps * plan.columns.width;
  plan.splits = static_cast<int>(least<i64>(blocks(Kg, 24), blocks(block, MOST_BLOCK)));
  const i64 weights = static_cast<i64>(s.K) * plan.taps * plan.length;
  const auto items = [&] { return static_cast<i64>(s.groups) * blocks(plan.columns.count, plan.strip) * plan.splits; };
  plan.strip = static_cast<int>(most<i64>(1, least<i64>(plan.columns.count, MOST_BLOCK / block)));
  while (plan.strip > 1 && blocks(WEIGHT_ITEMS, items()) * weights > MOST_PARTIAL) plan.strip--;
  plan.partitions = least(plan.bands.count, blocks(WEIGHT_ITEMS, items()));
  const i64 lines = plan.bands.lines(), filter = static_cast<i64>(plan.taps) * plan.length;
  i64* dy_run = scratch<i64>(cnn::OFFSETS, 2 * lines + 2 * Kg);
  i64 *x_run = dy_run + lines, *row = x_run + lines, *at = row + Kg;
  band_lines(plan.bands, dy_run, x_run);
  for (int k = 0; k < Kg; k++) {
    row[k] = k;
    at[k] = k * filter;
  }
  plan.dy_run = dy_run;
  plan.x_run = x_run;
  plan.row = row;
  plan.at = at;
  const i64 size = s.K * filter, partitions = plan.partitions;
  float* partial = partitions == 1 ? dw : scratch<float>(cnn::PARTIAL_SUMS, partitions * size);
  plan.dw = partial;
  parallel(items() * partitions, static_cast<i64>(s.N) * s.P * s.Q * size / 4,
           [&](i64 item) { weight_by_channels_item(plan, item); });
  if (partitions == 1) return;
  parallel_pieces(size, 4096, partitions * 4, [=](i64 begin, i64 end) {
    for (i64 i = begin; i < end; i += V) {
      const int lanes = static_cast<int>(least<i64>(V, end - i));
      vec total = load_first(partial + i, lanes);
      for (i64 p = 1; p < partitions; p++) total += load_first(partial + p * size + i, lanes);
      store_first(dw + i, total, lanes);
    }
  });
}
