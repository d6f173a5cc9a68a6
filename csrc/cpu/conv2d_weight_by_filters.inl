// backward_weight as a matrix product whose columns are filters, for few channels (the first layers of networks): the
// rows of a register tile are values of x under a row of taps, its columns vectors of k, read from dy where they lie.
// With few filters, J pixels side by side share the columns (see conv2d_widened.inl): column (j, k) of row (r, i) then
// is a part of dw[k, r, i - j * stride_w * C], and the parts are added up at the end. One group, no dilation along the
// width.

struct WeightByFilters {
  Bands bands;  // of the widened shape
  const float *dy, *dy_end;
  float* sums;  // (partitions, rows, wide K)
  Columns columns;
  int rows;  // R * (widened S) * C
  i64 partitions;
  const i64 *dy_run, *x_run;  // addresses of a band's lines
  const i64 *row, *at;        // (rows,) addresses in the panel and in the sums
};

void weight_by_filters_item(const WeightByFilters& plan, i64 item) {
  const Bands& b = plan.bands;
  const Conv2dShape& s = b.s;
  const i64 partition = item / plan.columns.count;
  const int k = static_cast<int>(item % plan.columns.count) * plan.columns.width;
  float* panel = scratch<float>(cnn::PANEL, b.panel());
  Operands o;
  o.a = panel;
  o.a_run = plan.x_run;
  o.a_step = s.stride_w * b.pitch;
  o.b_run = plan.dy_run;
  o.b_step = s.K;
  o.length = s.Q;
  TileOutput out;
  out.y = plan.sums + partition * plan.rows * s.K + k;
  out.lanes = least(plan.columns.width, s.K - k);
  out.finishes = false;
  out.accumulate = false;
  for (i64 i = b.count * partition / plan.partitions; i < b.count * (partition + 1) / plan.partitions; i++) {
    const Band band = band_at(b, i);
    fill_band(b, band, 0, s.C, panel);
    o.b = plan.dy + (band.n * s.P + band.p) * s.Q * s.K + k;
    o.runs = band.lines();
    const i64 size = o.runs * s.Q * s.K - k;
    if (o.b + size == plan.dy_end && s.K % V != 0) {  // the last vector would read past the end of dy
      float* copy = scratch<float>(cnn::LAST_BAND, size + V);
      __builtin_memcpy(copy, o.b, sizeof(float) * size);
      __builtin_memset(copy + size, 0, sizeof(float) * V);
      o.b = copy;
    }
    multiply_rows(o, plan.rows, plan.row, plan.at, out);
    out.accumulate = true;
  }
}

void weight_by_filters(const Conv2dShape& s, int together, const float* x, const float* dy, float* dw) {
  const Conv2dShape wide = widened(s, together);
  const int length = wide.S * wide.C;
  WeightByFilters plan;
  plan.bands = bands_of(wide, x, wide.C);
  plan.dy = dy;
  plan.dy_end = dy + static_cast<i64>(s.N) * s.P * s.Q * s.K;
  plan.columns = columns_for(wide.K);
  plan.rows = wide.R * length;
  plan.partitions = least(plan.bands.count, blocks(WEIGHT_ITEMS, plan.columns.count));
  const i64 lines = plan.bands.lines();
  i64* dy_run = scratch<i64>(cnn::OFFSETS, 2 * lines + 2 * plan.rows);
  i64 *x_run = dy_run + lines, *row = x_run + lines, *at = row + plan.rows;
  band_lines(plan.bands, dy_run, x_run);
  for (int i = 0; i < plan.rows; i++) {
    row[i] = i / length * s.dilation_h * plan.bands.line() + i % length;
    at[i] = static_cast<i64>(i) * wide.K;
  }
  plan.dy_run = dy_run;
  plan.x_run = x_run;
  plan.row = row;
  plan.at = at;
  const i64 partitions = plan.partitions, size = static_cast<i64>(plan.rows) * wide.K;
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, partitions * size);
  plan.sums = sums;
  parallel(partitions * plan.columns.count, static_cast<i64>(s.N) * s.P * wide.Q * size / 4,
           [&](i64 item) { weight_by_filters_item(plan, item); });
  parallel_pieces(size, 4096, partitions * 4, [=](i64 begin, i64 end) {  // the partitions, into the first
    for (i64 i = begin; i < end; i += V) {
      const int lanes = static_cast<int>(least<i64>(V, end - i));
      vec total = load_first(sums + i, lanes);
      for (i64 p = 1; p < partitions; p++) total += load_first(sums + p * size + i, lanes);
      store_first(sums + i, total, lanes);
    }
  });
  const int filter_line = s.S * s.C, step = s.stride_w * s.C;
  for (int k = 0; k < s.K; k++)
    for (int r = 0; r < s.R; r++)
      for (int i = 0; i < filter_line; i++) {
        float total = 0;
        for (int j = 0; j < together; j++) total += sums[(r * length + i + j * step) * wide.K + j * s.K + k];
        *dw++ = total;
      }
}

// Chooses the columns by counting vector multiply-adds a pixel.
void implicit_gemm_backward_weight(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  const int Cg = s.C / s.groups, Kg = s.K / s.groups, together = pixels_together(s);
  const double by_channels = merges_taps(s) ? tile_cost(s.S * Cg) * s.R * Kg : tile_cost(Cg) * s.R * s.S * Kg;
  const double by_filters = tile_cost(together * s.K) * s.R * (s.S + (together - 1) * s.stride_w) * s.C / together;
  if (s.groups == 1 && s.dilation_w == 1 && s.C < 2 * V && by_filters < by_channels)
    weight_by_filters(s, together, x, dy, dw);
  else
    weight_by_channels(s, x, dy, dw);
}
