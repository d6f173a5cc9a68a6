// backward_weight as a matrix product whose columns are filters, for few channels (the first layers of networks): the
// rows of a register tile are values of x under a row of taps, its columns vectors of k, read from dy where they lie.
// With few filters, J pixels side by side share the columns (see conv2d_widened.inl): column (j, k) of row (r, i) then
// is a part of dw[k, r, i - j * stride_w * C], and the parts are added up at the end. One group, no dilation along the
// width.

struct WeightByFilters {
  Bands bands;  // of the widened shape
  const float* dy;
  float* sums;  // (partitions, R, widened S * C, widened K)
  Columns columns;
  i64 partitions;
  const i64* x_line;  // where a band's lines begin
};

void weight_by_filters_item(const WeightByFilters& plan, i64 partition) {
  const Bands& b = plan.bands;
  const Conv2dShape& s = b.s;
  const int length = s.S * s.C;
  BandAhead ahead_x{}, ahead_dy{};
  OuterProducts o;
  o.a_step = b.step();
  o.a_line = plan.x_line;
  o.b_step = s.K;
  o.b_line = nullptr;
  o.length = b.length;
  o.y_pitch = s.K;
  o.accumulate = false;
  o.kept = nullptr;
  o.ahead_a = &ahead_x;
  o.ahead_b = &ahead_dy;
  float* sums = plan.sums + partition * s.R * length * s.K;
  const i64 calls = plan.columns.count * s.R * blocks(length, WEIGHT_ROWS[plan.columns.width / V]);
  for (i64 i = b.count * partition / plan.partitions; i < b.count * (partition + 1) / plan.partitions; i++) {
    const Band band = band_at(b, i);
    o.pixels = pixels_of(b, band);
    const float* x = b.x + ((band.n * s.H + static_cast<i64>(band.p) * s.stride_h) * s.W) * s.C;
    if (!b.in_place) {
      float* panel = scratch<float>(cnn::PANEL, b.panel());
      fill_band(b, band, 0, s.C, panel);
      x = panel;
    }
    const float* dy = plan.dy + (band.n * s.P + band.p) * s.Q * s.K;
    if (i == b.count - 1 && s.K % V != 0) {  // the last vector would read past the end of dy
      const i64 size = o.pixels * s.K;
      float* copy = scratch<float>(cnn::LAST_BAND, size + V);
      __builtin_memcpy(copy, dy, sizeof(float) * size);
      __builtin_memset(copy + size, 0, sizeof(float) * V);
      dy = copy;
    }
    if (i + 1 < b.count) {
      const i64 advances = calls * blocks(o.pixels, o.length);
      ahead_x = ahead_of_x(b, band_at(b, i + 1), 0, s.C, advances);
      ahead_dy = ahead_of_dy(b, band_at(b, i + 1), plan.dy, 0, s.K, advances);
    }
    for (int k = 0; k < s.K; k += plan.columns.width) {
      o.lanes = least(plan.columns.width, s.K - k);
      const int vectors = static_cast<int>(blocks(o.lanes, V));
      const WeightTiles tiles = weight_tiles(length, vectors);
      for (int r = 0; r < s.R; r++)
        for (int t = 0; t < tiles.tiles; t++) {
          const int row = tiles.first(t);
          weight_tile_of(tiles.rows(t), vectors)(o, x + b.at_tap(r, 0) + row, dy + k,
                                                 sums + (static_cast<i64>(r) * length + row) * s.K + k);
        }
    }
    o.accumulate = true;
  }
}

// Adds up partitions and, of J pixels side by side, what belongs to the same tap; V rows (r, i) of V filters at a time.
void finish_weight_by_filters(const WeightByFilters& plan, const Conv2dShape& s, int together, float* dw) {
  const Conv2dShape& wide = plan.bands.s;
  const int line = s.S * s.C, wide_line = wide.S * wide.C;
  const i64 rows = static_cast<i64>(s.R) * line, size = static_cast<i64>(wide.R) * wide_line * wide.K;
  parallel_pieces(rows, V, s.K * together * plan.partitions * 4, [&](i64 begin, i64 end) {
    for (int k = 0; k < s.K; k += V) {
      const int lanes = least(V, s.K - k);
      vec square[V];
      for (i64 i = begin; i < begin + V; i++) {
        vec total{};
        if (i < end)
          for (int j = 0; j < together; j++) {
            const i64 row = i / line * wide_line + i % line + static_cast<i64>(j) * s.stride_w * s.C;
            for (i64 p = 0; p < plan.partitions; p++)
              total += load_first(plan.sums + p * size + row * wide.K + j * s.K + k, lanes);
          }
        square[i - begin] = total;
      }
      transpose_squares<V / 2>(square);
      for (int i = 0; i < lanes; i++)
        store_first(dw + (k + i) * rows + begin, square[i], static_cast<int>(end - begin));
    }
  });
}

void weight_by_filters(const Conv2dShape& s, int together, const float* x, const float* dy, float* dw) {
  const Conv2dShape wide = widened(s, together);
  WeightByFilters plan;
  plan.bands = bands_of(wide, x, !reads_padding(wide), wide.C, 1, band_pixels(wide.K));
  plan.dy = dy;
  plan.columns = columns_for(wide.K);
  const i64 size = static_cast<i64>(wide.R) * wide.S * wide.C * wide.K;
  const i64 activations =
      static_cast<i64>(s.N) * (static_cast<i64>(s.H) * s.W * s.C + static_cast<i64>(s.P) * s.Q * s.K);
  plan.partitions = most<i64>(1, least(least(plan.bands.count, WEIGHT_ITEMS), activations / size));
  plan.x_line = band_lines(plan.bands);
  plan.sums = scratch<float>(cnn::PARTIAL_SUMS, plan.partitions * size);
  parallel(plan.partitions, static_cast<i64>(s.N) * s.P * wide.Q * size / 4,
           [&](i64 item) { weight_by_filters_item(plan, item); });
  finish_weight_by_filters(plan, s, together, dw);
}

// Chooses the columns by counting vector multiply-adds a pixel.
void implicit_gemm_backward_weight(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  if (batch_lanes_pay(s, BACKWARD_WEIGHT)) return weight_by_images(s, x, dy, dw);
  const int Cg = s.C / s.groups, Kg = s.K / s.groups, together = pixels_together(s);
  const double by_channels = merges_taps(s) ? tile_cost(s.S * Cg) * s.R * Kg : tile_cost(Cg) * s.R * s.S * Kg;
  const double by_filters = tile_cost(together * s.K) * s.R * (s.S + (together - 1) * s.stride_w) * s.C / together;
  if (s.groups == 1 && s.dilation_w == 1 && s.C < 2 * V && by_filters < by_channels)
    weight_by_filters(s, together, x, dy, dw);
  else
    weight_by_channels(s, x, dy, dw);
}
