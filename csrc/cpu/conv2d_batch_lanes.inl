// Few channels and many images, as in LeNet-5: vectors of channels would be mostly empty, so a vector holds one value
// of V images. The input is transposed to (block of images, row, column, channel, image), the register tile multiplies
// filters by images, and each finished row is transposed back to y or dx. Every lane is used, and the forward pass's
// padding is zeros of the transposed copy. One group, no dilation along the width.

constexpr int MOST_TAP_ROWS = 16;

struct BatchPlan {
  Conv2dShape s;
  const float *in, *filter;  // x and w, or dy and w as (R, S, C, K)
  float* out;                // y or dx
  Epilogue epilogue;         // each part repeated for a row of y
  Columns cut;               // of the images; every value takes `width` lanes in the panel and the sums
  i64 in_row, in_rows;       // values of a row of the input, and rows of an image
  int before;                // rows of zeros above the input
  int band, bands;           // rows of the output in a work item
  i64 line, margin;          // floats of a row of the panel, and of what is left of the input
  i64 sums, tile_rows;       // values of a row of sums, rows of the tile
  const i64 *row, *at;       // (tile_rows,) their addresses in the filter and in the sums
};

// What belongs to K channels, repeated for J * K; null stays null.
inline const float* repeated(const float* values, int K, int together, float* out) {
  if (!values) return nullptr;
  for (int j = 0; j < together; j++) __builtin_memcpy(out + j * K, values, sizeof(float) * K);
  return out;
}

// A row of x or dy of some images, `length` values each, to lanes.
inline void row_to_lanes(const float* in, i64 pitch, int images, i64 length, float* out, int lanes) {
  for (int n = 0; n < lanes; n += V)
    transpose_into(in + n * pitch, pitch, most(0, least(V, images - n)), length, out + n, lanes);
}

// And back, with the epilogue, whose parts belong to value 0.
void lanes_to_row(const float* in, int lanes, i64 length, const Epilogue& e, float* out, i64 pitch, int images) {
  for (int n = 0; n < images; n += V)
    for (i64 j = 0; j < length; j += V) {
      const int rows = static_cast<int>(least<i64>(V, length - j));
      vec square[V];
      for (int i = 0; i < V; i++) square[i] = i < rows ? load(in + (j + i) * lanes + n) : vec{};
      transpose_squares<V / 2>(square);
      for (int i = 0; i < V && n + i < images; i++) {
        const i64 to = (n + i) * pitch + j;
        store_first(out + to, finish_vector(e, square[i], j, to, rows), rows);
      }
    }
}

// Row r of the padded input of one block of images.
void fill_batch_row(const BatchPlan& plan, i64 block, int r, float* to) {
  const i64 n = block * plan.cut.width, image = plan.in_rows * plan.in_row, h = r - plan.before;
  const int images = static_cast<int>(least<i64>(plan.cut.width, plan.s.N - n)), lanes = plan.cut.width;
  if (h < 0 || h >= plan.in_rows) {
    __builtin_memset(to, 0, sizeof(float) * plan.line);
    return;
  }
  const i64 values = least(plan.in_row, (plan.line - plan.margin) / lanes), filled = plan.margin + values * lanes;
  __builtin_memset(to, 0, sizeof(float) * plan.margin);
  row_to_lanes(plan.in + n * image + h * plan.in_row, image, images, values, to + plan.margin, lanes);
  __builtin_memset(to + filled, 0, sizeof(float) * (plan.line - filled));
}

// Rows top..bottom-1 of y of one block of images: a tile is one pixel.
void batch_forward_item(const BatchPlan& plan, i64 block, int top, int bottom) {
  const Conv2dShape& s = plan.s;
  const int lanes = plan.cut.width, first = top * s.stride_h;
  const int rows = (bottom - 1 - top) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  const i64 n = block * lanes;
  float* panel = scratch<float>(cnn::PANEL, rows * plan.line);
  for (int r = 0; r < rows; r++) fill_batch_row(plan, block, first + r, panel + r * plan.line);
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, plan.sums * lanes);
  i64 a_run[MOST_TAP_ROWS], b_run[MOST_TAP_ROWS];
  for (int r = 0; r < s.R; r++) {
    a_run[r] = static_cast<i64>(r) * s.S * s.C;
    b_run[r] = r * s.dilation_h * plan.line;
  }
  Operands o;
  o.a = plan.filter;
  o.a_run = a_run;
  o.a_step = 1;
  o.b_run = b_run;
  o.b_step = lanes;
  o.runs = s.R;
  o.length = static_cast<i64>(s.S) * s.C;
  TileOutput out;
  out.lanes = static_cast<int>(least<i64>(lanes, blocks(s.N - n, V) * V));
  out.accumulate = out.finishes = false;
  for (int p = top; p < bottom; p++) {
    for (int q = 0; q < s.Q; q++) {
      o.b = panel + static_cast<i64>(p - top) * s.stride_h * plan.line + static_cast<i64>(q) * s.stride_w * s.C * lanes;
      out.y = sums + static_cast<i64>(q) * s.K * lanes;
      multiply_rows(o, plan.tile_rows, plan.row, plan.at, out);
    }
    const i64 place = (n * s.P + p) * plan.sums;
    Epilogue e = plan.epilogue;
    if (e.residual) e.residual += place;
    lanes_to_row(sums, lanes, plan.sums, e, plan.out + place, s.P * plan.sums,
                 static_cast<int>(least<i64>(lanes, s.N - n)));
  }
}

// Rows top..bottom-1 of dx of one block of images: every pixel of dy adds its share, the S * C values under a row of
// taps, where it lies; a tile sums over the filters and over the tap rows that reach the row of dx.
void batch_backward_item(const BatchPlan& plan, i64 block, int top, int bottom) {
  const Conv2dShape& s = plan.s;
  const int lanes = plan.cut.width;
  const i64 n = block * lanes, length = static_cast<i64>(s.W) * s.C;
  const int above = top + s.pad_h - (s.R - 1) * s.dilation_h;  // rows of dy that reach the band
  const int first = above > 0 ? static_cast<int>(blocks(above, s.stride_h)) : 0;
  const int last = least(s.P, (bottom - 1 + s.pad_h) / s.stride_h + 1);
  float* panel = scratch<float>(cnn::PANEL, most(1, last - first) * plan.line);
  for (int p = first; p < last; p++) fill_batch_row(plan, block, p, panel + (p - first) * plan.line);
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, plan.sums * lanes);
  i64 a_run[MOST_TAP_ROWS], b_run[MOST_TAP_ROWS];
  Operands o;
  o.a = plan.filter;
  o.a_run = a_run;
  o.a_step = 1;
  o.b_run = b_run;
  o.b_step = lanes;
  o.length = s.K;
  TileOutput out;
  out.lanes = static_cast<int>(least<i64>(lanes, blocks(s.N - n, V) * V));
  out.accumulate = true;
  out.finishes = false;
  for (int h = top; h < bottom; h++) {
    o.runs = 0;
    for (int r = 0; r < s.R; r++) {
      const int shifted = h + s.pad_h - r * s.dilation_h, p = shifted / s.stride_h;
      if (shifted < 0 || shifted % s.stride_h != 0 || p >= s.P) continue;
      a_run[o.runs] = r * plan.tile_rows * s.K;
      b_run[o.runs++] = (p - first) * plan.line;
    }
    __builtin_memset(sums, 0, sizeof(float) * plan.sums * lanes);
    for (int q = 0; q < s.Q; q++) {
      o.b = panel + static_cast<i64>(q) * s.K * lanes;
      out.y = sums + static_cast<i64>(q) * s.stride_w * s.C * lanes;
      multiply_rows(o, plan.tile_rows, plan.row, plan.at, out);
    }
    lanes_to_row(sums + static_cast<i64>(s.pad_w) * s.C * lanes, lanes, length, Epilogue{},
                 plan.out + (n * s.H + h) * length, s.H * length, static_cast<int>(least<i64>(lanes, s.N - n)));
  }
}

// Few channels of the output, and images for two vectors.
inline bool batch_lanes_pay(const Conv2dShape& s, int verb) {
  return s.groups == 1 && s.dilation_w == 1 && s.N >= 2 * V && s.R <= MOST_TAP_ROWS &&
         (verb == FORWARD ? 2 * s.K <= V && s.C < V : s.C < V && s.K < 2 * V);
}

// Runs item(plan, block, top, bottom) for every block of images and band of the output's rows. Neighbouring bands
// transpose up to R rows of the input twice, so they have at least as many; an even number keeps two threads busy.
// a_pitch is from one row of the tile to the next in the filter.
template <class F>
void run_batch(BatchPlan& plan, int rows, i64 a_pitch, const F& item) {
  const Conv2dShape& s = plan.s;
  plan.bands = 1;
  while (2 * plan.bands * s.R <= rows && plan.bands * plan.cut.count < ENOUGH_ITEMS) plan.bands *= 2;
  plan.band = static_cast<int>(blocks(rows, plan.bands));
  plan.bands = static_cast<int>(blocks(rows, plan.band));
  i64* row = scratch<i64>(cnn::OFFSETS, 2 * plan.tile_rows);
  for (i64 i = 0; i < plan.tile_rows; i++) {
    row[i] = i * a_pitch;
    row[plan.tile_rows + i] = i * plan.cut.width;
  }
  plan.row = row;
  plan.at = row + plan.tile_rows;
  const i64 work = static_cast<i64>(s.N) * s.P * s.Q * s.K * s.R * s.S * s.C / 4;
  parallel(static_cast<i64>(plan.cut.count) * plan.bands, work, [&](i64 number) {
    const int top = static_cast<int>(number % plan.bands) * plan.band;
    item(plan, number / plan.bands, top, least(rows, top + plan.band));
  });
}

void batch_forward(const Conv2dShape& s, const float* x, const float* w, float* y, const Epilogue& e) {
  BatchPlan plan{};
  plan.s = s;
  plan.in = x;
  plan.filter = w;
  plan.out = y;
  plan.cut = columns_for(s.N);
  plan.in_row = static_cast<i64>(s.W) * s.C;
  plan.in_rows = s.H;
  plan.before = s.pad_h;
  plan.line = (static_cast<i64>(s.Q - 1) * s.stride_w + s.S) * s.C * plan.cut.width;
  plan.margin = least(plan.line, static_cast<i64>(s.pad_w) * s.C * plan.cut.width);
  plan.sums = static_cast<i64>(s.Q) * s.K;
  plan.tile_rows = s.K;
  float* parts = scratch<float>(cnn::WIDENED, 3 * plan.sums);
  plan.epilogue = {repeated(e.bias, s.K, s.Q, parts), repeated(e.scale, s.K, s.Q, parts + plan.sums),
                   repeated(e.shift, s.K, s.Q, parts + 2 * plan.sums), e.residual, e.activation};
  run_batch(plan, s.P, static_cast<i64>(s.R) * s.S * s.C, batch_forward_item);
}

void batch_backward_input(const Conv2dShape& s, const float* dy, const float* w, float* dx) {
  const i64 taps = static_cast<i64>(s.R) * s.S * s.C;
  float* filter = scratch<float>(cnn::PACKED_WEIGHT, taps * s.K);
  for (int k = 0; k < s.K; k++)
    for (i64 i = 0; i < taps; i++) filter[i * s.K + k] = w[k * taps + i];
  BatchPlan plan{};
  plan.s = s;
  plan.in = dy;
  plan.filter = filter;
  plan.out = dx;
  plan.cut = columns_for(s.N);
  plan.in_row = static_cast<i64>(s.Q) * s.K;
  plan.in_rows = s.P;
  plan.line = plan.in_row * plan.cut.width;
  plan.sums = static_cast<i64>(most(s.W + s.pad_w, (s.Q - 1) * s.stride_w + s.S)) * s.C;
  plan.tile_rows = static_cast<i64>(s.S) * s.C;
  run_batch(plan, s.H, s.K, batch_backward_item);
}
