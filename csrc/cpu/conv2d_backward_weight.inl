// backward_weight as a matrix product: dw[k, tap, c] = sum over output pixels of dy[pixel, k] * x[pixel under tap, c].
// A register tile holds a few k (its rows, scalars of dy) by up to four vectors of c (its columns). Pixels are taken
// in bands whose part of x, copied with its zero padding, stays in the first-level cache while all taps and all k pass
// over it; a band's sum starts from 0 and is then added to dw in memory, which keeps rounding errors small.
// Where there are few channels, the columns of a tile are a whole row of taps: they lie side by side in x.

constexpr i64 BAND_PIXELS = 128;   // 32 KB of x for 64 columns
constexpr i64 WEIGHT_ITEMS = 16;   // work items wanted; if dw has fewer blocks, bands are shared out and summed at the end
constexpr i64 MOST_BLOCK = 131072; // elements of dw in an item: half a megabyte in the second-level cache

struct WeightPlan {
  Conv2dShape s;
  const float *x, *dy;
  float* dw;           // (partitions, K, R, S, C/groups)
  bool merged;         // columns are whole rows of taps
  int taps, length;    // runs of columns, and their length
  Columns columns;     // blocks of a run
  int splits;          // of the k of a group
  int partitions;      // of the bands
  int images, rows;    // of a band, at most
  int bands_per_image; // where a band is part of an image
  i64 bands;
  int panel_rows, panel_columns;
  i64 pitch;           // of a pixel in the panel
  const i64 *dy_run, *x_run;  // (images * rows,) addresses of a band's lines in dy and in the panel
  const i64* row;             // (K / groups,) 0, 1, 2, ...: k as an address in dy
  const i64* at;              // (K / groups,) k as an address in dw
  i64 filter() const { return static_cast<i64>(s.R) * s.S * (s.C / s.groups); }
};

// Copies what a band reads of channels channel .. channel + lanes into (images, panel_rows, panel_columns, pitch), zero
// outside the image and in the lanes that fill up a vector.
void fill_band(const WeightPlan& plan, float* panel, i64 pitch, i64 n, int images, int p, int rows, int channel, int lanes) {
  const Conv2dShape& s = plan.s;
  const int top = p * s.stride_h - s.pad_h, needed = (rows - 1) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  const i64 line = plan.panel_columns * pitch;
  const int before = least(s.pad_w, plan.panel_columns);
  const int inside = most(0, least(plan.panel_columns - before, s.W + s.pad_w - before));
  for (int image = 0; image < images; image++)
    for (int r = 0; r < needed; r++) {
      float* out = panel + (static_cast<i64>(image) * plan.panel_rows + r) * line;
      const int h = top + r;
      if (h < 0 || h >= s.H) {
        __builtin_memset(out, 0, sizeof(float) * line);
        continue;
      }
      const float* in = plan.x + ((n + image) * s.H + h) * s.W * s.C + channel;
      __builtin_memset(out, 0, sizeof(float) * before * pitch);
      out += before * pitch;
      if (pitch == s.C) {
        __builtin_memcpy(out, in, sizeof(float) * inside * pitch);
      } else if (plan.merged) {
        for (int v = 0; v < inside; v++) __builtin_memcpy(out + v * pitch, in + static_cast<i64>(v) * s.C, sizeof(float) * pitch);
      } else {
        for (int v = 0; v < inside; v++)
          for (int c = 0; c < lanes; c += V) store(out + v * pitch + c, load_first(in + static_cast<i64>(v) * s.C + c, lanes - c));
      }
      __builtin_memset(out + inside * pitch, 0, sizeof(float) * (plan.panel_columns - before - inside) * pitch);
    }
}

void weight_item(const WeightPlan& plan, i64 item) {
  const Conv2dShape& s = plan.s;
  const int Cg = s.C / s.groups, Kg = s.K / s.groups;
  const int partition = static_cast<int>(item % plan.partitions);
  item /= plan.partitions;
  const int split = static_cast<int>(item % plan.splits);
  item /= plan.splits;
  const int column = static_cast<int>(item % plan.columns.count) * plan.columns.width;
  const int group = static_cast<int>(item / plan.columns.count);
  const int first_k = static_cast<int>(static_cast<i64>(Kg) * split / plan.splits);
  const int last_k = static_cast<int>(static_cast<i64>(Kg) * (split + 1) / plan.splits);
  const int lanes = least(plan.columns.width, plan.length - column);
  const i64 pitch = plan.pitch;

  TileOutput out;
  out.lanes = lanes;
  out.finishes = false;
  out.accumulate = false;
  float* dw = plan.dw + partition * s.K * plan.filter() + (static_cast<i64>(group) * Kg + first_k) * plan.filter() + column;
  const i64 panel_size = static_cast<i64>(plan.images) * plan.panel_rows * plan.panel_columns * pitch;
  float* panel = scratch<float>(cnn::PANEL, panel_size + MOST_LANES);
  __builtin_memset(panel + panel_size, 0, sizeof(float) * MOST_LANES);  // a merged run's last vector reads past it
  const i64 line = plan.panel_columns * pitch;
  Operands o;
  o.a_step = s.K;
  o.a_run = plan.dy_run;
  o.b_step = s.stride_w * pitch;
  o.b_run = plan.x_run;
  o.length = s.Q;
  const i64 last_band = plan.bands * (partition + 1) / plan.partitions;
  for (i64 band = plan.bands * partition / plan.partitions; band < last_band; band++) {
    const i64 n = plan.images > 1 ? band * plan.images : band / plan.bands_per_image;
    const int images = static_cast<int>(least<i64>(plan.images, s.N - n));
    const int p = plan.images > 1 ? 0 : static_cast<int>(band % plan.bands_per_image) * plan.rows;
    const int rows = least(plan.rows, s.P - p);
    fill_band(plan, panel, pitch, n, images, p, rows, group * Cg + (plan.merged ? 0 : column), lanes);
    o.a = plan.dy + (n * s.P + p) * s.Q * s.K + static_cast<i64>(group) * Kg + first_k;
    o.runs = static_cast<i64>(images) * rows;
    for (int tap = 0; tap < plan.taps; tap++) {
      const int r = plan.merged ? tap : tap / s.S, t = plan.merged ? 0 : tap % s.S;
      o.b = panel + r * s.dilation_h * line + t * s.dilation_w * pitch + (plan.merged ? column : 0);
      out.y = dw + static_cast<i64>(tap) * plan.length;
      multiply_rows(o, last_k - first_k, plan.row, plan.at, out);
    }
    out.accumulate = true;
  }
}

void implicit_gemm_backward_weight(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  const int Cg = s.C / s.groups, Kg = s.K / s.groups;
  WeightPlan plan;
  plan.s = s;
  plan.x = x;
  plan.dy = dy;
  plan.merged = s.S == 1 ? false : s.dilation_w == 1 && Cg % V != 0 && Cg < 2 * V;
  plan.taps = plan.merged ? s.R : s.R * s.S;
  plan.length = plan.merged ? s.S * Cg : Cg;
  plan.columns = columns_for(plan.length);
  plan.images = static_cast<int>(most<i64>(1, least<i64>(s.N, BAND_PIXELS / (static_cast<i64>(s.P) * s.Q))));
  plan.rows = static_cast<int>(most<i64>(1, least<i64>(s.P, BAND_PIXELS / s.Q)));
  plan.rows = static_cast<int>(blocks(s.P, blocks(s.P, plan.rows)));
  plan.bands_per_image = static_cast<int>(blocks(s.P, plan.rows));
  plan.bands = plan.images > 1 ? blocks(s.N, plan.images) : static_cast<i64>(s.N) * plan.bands_per_image;
  const i64 block = static_cast<i64>(Kg) * plan.taps * plan.columns.width;
  plan.splits = static_cast<int>(least<i64>(blocks(Kg, 24), blocks(block, MOST_BLOCK)));
  const i64 items = static_cast<i64>(s.groups) * plan.columns.count * plan.splits;
  plan.partitions = static_cast<int>(least(plan.bands, blocks(WEIGHT_ITEMS, items)));
  plan.panel_rows = (plan.rows - 1) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  plan.panel_columns = (s.Q - 1) * s.stride_w + (s.S - 1) * s.dilation_w + 1;

  plan.pitch = plan.merged ? Cg : blocks(least(plan.columns.width, plan.length), V) * V;
  const i64 lines = static_cast<i64>(plan.images) * plan.rows;
  i64* dy_run = scratch<i64>(cnn::OFFSETS, 2 * lines + 2 * Kg);
  i64 *x_run = dy_run + lines, *row = x_run + lines, *at = row + Kg;
  for (i64 i = 0; i < lines; i++) {
    dy_run[i] = i * s.Q * s.K;  // a band's images follow each other in dy
    x_run[i] = (i / plan.rows * plan.panel_rows + i % plan.rows * s.stride_h) * plan.panel_columns * plan.pitch;
  }
  for (int k = 0; k < Kg; k++) {
    row[k] = k;
    at[k] = k * plan.filter();
  }
  plan.dy_run = dy_run;
  plan.x_run = x_run;
  plan.row = row;
  plan.at = at;
  const i64 size = s.K * plan.filter(), work = static_cast<i64>(s.N) * s.P * s.Q * size / 4;
  plan.dw = plan.partitions == 1 ? dw : scratch<float>(cnn::PARTIAL_SUMS, plan.partitions * size);
  parallel(items * plan.partitions, work, [&](i64 item) { weight_item(plan, item); });
  if (plan.partitions == 1) return;
  const float* partial = plan.dw;
  const int partitions = plan.partitions;
  parallel_pieces(size, 4096, partitions * 4, [=](i64 begin, i64 end) {
    for (i64 i = begin; i < end; i += V) {
      const int lanes = static_cast<int>(least<i64>(V, end - i));
      vec total = load_first(partial + i, lanes);
      for (int p = 1; p < partitions; p++) total += load_first(partial + p * size + i, lanes);
      store_first(dw + i, total, lanes);
    }
  });
}
