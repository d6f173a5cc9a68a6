// backward_input for few input channels, where vectors of channels would be mostly empty: the product dy times filter
// gives each output pixel's share of the input under it, a row of S * C values side by side, which is added to dx where
// it lies (the reverse of what is known as im2col, a tile at a time). A work item owns a band of rows of dx and adds
// in a fixed order. One group, no dilation along the width.

bool columns_can(const Conv2dShape& s) {
  return s.groups == 1 && s.dilation_w == 1;
}

struct ColumnsPlan {
  Conv2dShape s;
  const float *dy, *packed;
  float* dx;
  Columns cut;          // of a row of S * C values
  int band, bands;      // rows of dx in a work item
  int panel_columns;    // of a row of dx with everything that is added to it
  const i64 *row, *at;  // addresses of an item's pixels in dy, and of their share in the panel
};

// w (K, R, S, C) as [r][block of columns][k][width]
void pack_columns_filter(const Conv2dShape& s, const Columns& cut, const float* w, float* packed) {
  const int length = s.S * s.C;
  for (int r = 0; r < s.R; r++)
    for (int column = 0; column < length; column += cut.width) {
      const int lanes = least(cut.width, length - column);
      for (int k = 0; k < s.K; k++)
        for (int v = 0; v < lanes; v += V, packed += V)
          store(packed, load_first(w + (static_cast<i64>(k) * s.R + r) * length + column + v, lanes - v));
    }
}

void columns_item(const ColumnsPlan& plan, i64 item) {
  const Conv2dShape& s = plan.s;
  const i64 n = item / plan.bands, line = static_cast<i64>(plan.panel_columns) * s.C;
  const int top = static_cast<int>(item % plan.bands) * plan.band, rows = least(plan.band, s.H - top);
  float* panel = scratch<float>(cnn::PANEL, plan.band * line);
  __builtin_memset(panel, 0, sizeof(float) * rows * line);
  const i64 zero = 0;
  Operands o;
  o.a_run = &zero;
  o.a_step = 1;
  o.b = plan.packed;
  o.b_run = nullptr;
  o.runs = 1;
  TileOutput out;
  out.accumulate = true;
  out.finishes = false;
  const int length = s.S * s.C;
  for (int r = 0; r < s.R; r++) {
    // output rows p whose tap r lies in the band: top <= p * stride_h + offset < top + rows
    const int offset = r * s.dilation_h - s.pad_h;
    const int first = top > offset ? static_cast<int>(blocks(top - offset, s.stride_h)) : 0;
    const int last =
        top + rows > offset ? least<int>(s.P, static_cast<int>(blocks(top + rows - offset, s.stride_h))) : 0;
    o.a = plan.dy + (n * s.P + first) * s.Q * s.K;
    for (int column = 0; column < length; column += plan.cut.width) {
      out.lanes = least(plan.cut.width, length - column);
      out.y = panel + (static_cast<i64>(first) * s.stride_h + offset - top) * line + column;
      o.b_step = blocks(out.lanes, V) * V;
      for (int k = 0; k < s.K; k += MOST_TERMS) {
        Operands part = o;
        part.a += k;
        part.length = least<i64>(MOST_TERMS, s.K - k);
        if (last > first) multiply_rows(part, static_cast<i64>(last - first) * s.Q, plan.row, plan.at, out);
        o.b += part.length * o.b_step;
      }
    }
  }
  const int inside = most(0, least(s.W, plan.panel_columns - s.pad_w));  // columns of dx that a tap reaches
  for (int h = 0; h < rows; h++) {
    float* to = plan.dx + (n * s.H + top + h) * s.W * s.C;
    __builtin_memcpy(to, panel + h * line + static_cast<i64>(s.pad_w) * s.C, sizeof(float) * inside * s.C);
    __builtin_memset(to + static_cast<i64>(inside) * s.C, 0, sizeof(float) * (s.W - inside) * s.C);
  }
}

void columns_backward_input(const Conv2dShape& s, const float* dy, const float* w, float* dx) {
  if (batch_lanes_pay(s, BACKWARD_INPUT)) return batch_backward_input(s, dy, w, dx);
  ColumnsPlan plan;
  plan.s = s;
  plan.dy = dy;
  plan.dx = dx;
  plan.cut = columns_for(s.S * s.C);
  plan.panel_columns = (s.Q - 1) * s.stride_w + s.S;
  const i64 line = static_cast<i64>(plan.panel_columns) * s.C;
  const i64 band = most<i64>(least(s.H, 2 * s.R), least<i64>(blocks(s.N * static_cast<i64>(s.H), 32), 65536 / line));
  plan.bands = static_cast<int>(most<i64>(1, s.H / most<i64>(1, band)));
  plan.band = static_cast<int>(blocks(s.H, plan.bands));
  plan.bands = static_cast<int>(blocks(s.H, plan.band));
  const int padded =
      static_cast<int>((s.S * s.C / plan.cut.width) * plan.cut.width + blocks(s.S * s.C % plan.cut.width, V) * V);
  float* packed = scratch<float>(cnn::PACKED_WEIGHT, static_cast<i64>(s.R) * s.K * padded);
  pack_columns_filter(s, plan.cut, w, packed);
  plan.packed = packed;
  const i64 lines = blocks(plan.band, s.stride_h) + 1, pixels = lines * s.Q;  // of dy under a band, at most
  i64* row = scratch<i64>(cnn::OFFSETS, 2 * pixels);
  i64* at = row + pixels;
  for (i64 i = 0; i < pixels; i++) {
    row[i] = i * s.K;
    at[i] = i / s.Q * s.stride_h * line + i % s.Q * s.stride_w * s.C;
  }
  plan.row = row;
  plan.at = at;
  const i64 work = static_cast<i64>(s.N) * s.P * s.Q * s.K * s.R * s.S * s.C / 4;
  parallel(static_cast<i64>(s.N) * plan.bands, work, [&](i64 item) { columns_item(plan, item); });
}
