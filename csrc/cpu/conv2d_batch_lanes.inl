// Few channels and many images, as in LeNet-5: vectors of channels would be mostly empty, so a vector holds one value
// of V images, and a block of 2 V images is computed at a time. The input is transposed to (block of images, row,
// column, channel, image), a register tile multiplies filters by images, and each finished row is transposed back to y
// or dx. Every lane is used, and the forward pass's padding is zeros of the transposed copy. A thread that goes from
// block to block reads what it wrote in the layer before. One group, no dilation along the width.

constexpr int MOST_TAPS = 16;  // of a filter's rows, and of its columns
constexpr int IMAGES = 2 * V;  // of a block: every value takes so many lanes

// ---- the tile: for each of some pixels
//   y[p][image] (+)= sum over runs and i of a[a_run + i * a_step + p] * b[b_run + i * IMAGES][image]

struct ImageProducts {
  i64 a_run[MOST_TAPS], b_run[MOST_TAPS];
  int runs;
  i64 length, a_step;
  int pixels;
  i64 b_pixel, y_pixel;  // from pixel to pixel
  bool accumulate;       // add to y
};

constexpr int PIXELS_AT_ONCE = 2;  // under all tiles: what they read stays in the first-level cache

template <int ROWS, int VECTORS>
void multiply_images(const ImageProducts& o, const float* a, const float* b, float* y) {
  const i64 a_step = o.a_step, length = o.length;
  const bool accumulate = o.accumulate;
  for (int pixel = 0; pixel < o.pixels; pixel++, b += o.b_pixel, y += o.y_pixel) {
    vec sums[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int p = 0; p < ROWS; p++)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) sums[p][v] = vec{};
    for (int run = 0; run < o.runs; run++) {
      const float *ap = a + o.a_run[run], *bp = b + o.b_run[run];
      for (i64 i = length; i > 0; i--, ap += a_step, bp += IMAGES) {
        vec bv[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) bv[v] = load(bp + v * V);
#pragma GCC unroll 16
        for (int p = 0; p < ROWS; p++) {
          const vec av = broadcast(ap[p]);
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; v++) sums[p][v] += av * bv[v];
        }
      }
    }
#pragma GCC unroll 16
    for (int p = 0; p < ROWS; p++)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) {
        float* out = y + p * IMAGES + v * V;
        store(out, accumulate ? load(out) + sums[p][v] : sums[p][v]);
      }
  }
}

using MultiplyImages = void (*)(const ImageProducts&, const float*, const float*, float*);

template <int VECTORS, int ROWS = TILE_ROWS[2]>
inline MultiplyImages image_tile_of(int rows) {
  if constexpr (ROWS > 1)
    if (rows < ROWS) return image_tile_of<VECTORS, ROWS - 1>(rows);
  return multiply_images<ROWS, VECTORS>;
}

// `count` values a pixel, in tiles of nearly equal height.
void multiply_all_images(const ImageProducts& all, int count, int images, const float* a, const float* b, float* y) {
  constexpr int MOST_TILES = MOST_TAPS * V / TILE_ROWS[2] + 1;
  MultiplyImages tile[MOST_TILES];
  const int tiles = static_cast<int>(blocks(count, TILE_ROWS[2])), height = static_cast<int>(blocks(count, tiles));
  for (int t = 0; t < tiles; t++) {
    const int rows = least(height, count - t * height);
    tile[t] = images > V ? image_tile_of<2>(rows) : image_tile_of<1>(rows);
  }
  ImageProducts o = all;
  for (int pixel = 0; pixel < all.pixels; pixel += PIXELS_AT_ONCE) {
    o.pixels = least(PIXELS_AT_ONCE, all.pixels - pixel);
    for (int t = 0; t < tiles; t++)
      tile[t](o, a + t * height, b + pixel * o.b_pixel, y + pixel * o.y_pixel + t * height * IMAGES);
  }
}

// ---- rows of values and lanes of images

struct BatchPlan {
  Conv2dShape s;
  const float *in, *filter;  // x and w as (R, S, C, filter_step), or dy and w
  float* out;                // y or dx
  Epilogue epilogue;         // each part repeated for a row of y
  i64 in_row, in_rows;       // values of a row of the input, and rows of an image
  i64 out_row;               // values of a row of sums
  i64 filter_step;
  int before;       // rows of zeros above the input
  int band, bands;  // rows of the output in a work item
  i64 line;         // values of a row of the panel: `margin` zeros, then the input
  i64 margin;
  int images(i64 block) const { return static_cast<int>(least<i64>(IMAGES, s.N - block * IMAGES)); }
};

// What belongs to K channels, repeated for J * K; null stays null.
inline const float* repeated(const float* values, int K, int together, float* out) {
  if (!values) return nullptr;
  for (int j = 0; j < together; j++) __builtin_memcpy(out + j * K, values, sizeof(float) * K);
  return out;
}

// A row of y or dx of some images from their lanes, `pitch` from image to image. The parts of the epilogue belong to
// value 0.
void lanes_to_row(const float* in, i64 length, const Epilogue& e, float* out, i64 pitch, int images) {
  Epilogue rest = e;
  rest.bias = nullptr;
  const bool finishes = rest.scale || rest.shift || rest.residual || rest.activation.kind;
  for (int n = 0; n < images; n += V)
    for (i64 j = 0; j < length; j += V) {
      const int values = static_cast<int>(least<i64>(V, length - j)), rows = least(V, images - n);
      vec square[V];
#pragma GCC unroll 16
      for (int i = 0; i < V; i++) square[i] = i < values ? load(in + (j + i) * IMAGES + n) : vec{};
      transpose_squares<V / 2>(square);
      const i64 to = n * pitch + j;
      if (e.bias) {
        const vec bias = load_first(e.bias + j, values);
#pragma GCC unroll 16
        for (int i = 0; i < V; i++) square[i] += bias;
      }
      if (finishes) {
        alignas(64) float kept[V][V];
#pragma GCC unroll 16
        for (int i = 0; i < V; i++) store(kept[i], square[i]);
        for (int i = 0; i < rows; i++)
          store_first(out + to + i * pitch, finish_vector(rest, load(kept[i]), j, to + i * pitch, values), values);
        continue;
      }
#pragma GCC unroll 16
      for (int i = 0; i < V; i++)
        if (i < rows) store_first(out + to + i * pitch, square[i], values);
    }
}

// Row r of the padded input of one block of images, to lanes.
void fill_batch_row(const BatchPlan& plan, i64 block, int r, float* to) {
  const i64 n = block * IMAGES, image = plan.in_rows * plan.in_row, h = r - plan.before;
  const int images = plan.images(block);
  if (h < 0 || h >= plan.in_rows) {
    __builtin_memset(to, 0, sizeof(float) * plan.line * IMAGES);
    return;
  }
  const i64 values = least(plan.in_row, plan.line - plan.margin), filled = plan.margin + values;
  const float* in = plan.in + n * image + h * plan.in_row;
  __builtin_memset(to, 0, sizeof(float) * plan.margin * IMAGES);
  for (int i = 0; i < images; i += V)
    transpose_into(in + i * image, image, images - i, values, to + plan.margin * IMAGES + i, IMAGES);
  __builtin_memset(to + filled * IMAGES, 0, sizeof(float) * (plan.line - filled) * IMAGES);
}

// ---- the two passes

// Rows top..bottom-1 of y of one block of images.
void batch_forward_item(const BatchPlan& plan, i64 block, int top, int bottom) {
  const Conv2dShape& s = plan.s;
  const i64 n = block * IMAGES, line = plan.line * IMAGES;
  const int images = plan.images(block), first = top * s.stride_h;
  const int rows = (bottom - 1 - top) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  float* panel = scratch<float>(cnn::PANEL, rows * line);
  for (int r = 0; r < rows; r++) fill_batch_row(plan, block, first + r, panel + r * line);
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, plan.out_row * IMAGES);
  ImageProducts o;
  for (int r = 0; r < s.R; r++) {
    o.a_run[r] = static_cast<i64>(r) * s.S * s.C * plan.filter_step;
    o.b_run[r] = r * s.dilation_h * line;
  }
  o.runs = s.R;
  o.length = static_cast<i64>(s.S) * s.C;
  o.a_step = plan.filter_step;
  o.pixels = s.Q;
  o.b_pixel = static_cast<i64>(s.stride_w) * s.C * IMAGES;
  o.y_pixel = static_cast<i64>(s.K) * IMAGES;
  o.accumulate = false;
  for (int p = top; p < bottom; p++) {
    const float* x = panel + static_cast<i64>(p - top) * s.stride_h * line;
    multiply_all_images(o, s.K, images, plan.filter, x, sums);
    const i64 place = (n * s.P + p) * plan.out_row;
    Epilogue e = plan.epilogue;
    if (e.residual) e.residual += place;
    lanes_to_row(sums, plan.out_row, e, plan.out + place, s.P * plan.out_row, images);
  }
}

// Rows top..bottom-1 of dx of one block of images: every pixel of dy adds its share, the S * C values under a row of
// taps, where it lies; a tile sums over the filters and over the tap rows that reach the row of dx.
void batch_backward_item(const BatchPlan& plan, i64 block, int top, int bottom) {
  const Conv2dShape& s = plan.s;
  const i64 n = block * IMAGES, length = static_cast<i64>(s.W) * s.C, line = plan.line * IMAGES;
  const int images = plan.images(block);
  const int above = top + s.pad_h - (s.R - 1) * s.dilation_h;  // rows of dy that reach the band
  const int first = above > 0 ? static_cast<int>(blocks(above, s.stride_h)) : 0;
  const int last = least(s.P, (bottom - 1 + s.pad_h) / s.stride_h + 1);
  float* panel = scratch<float>(cnn::PANEL, most(1, last - first) * line);
  for (int p = first; p < last; p++) fill_batch_row(plan, block, p, panel + (p - first) * line);
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, plan.out_row * IMAGES);
  ImageProducts o;
  o.length = s.K;
  o.a_step = plan.filter_step;
  o.pixels = s.Q;
  o.b_pixel = static_cast<i64>(s.K) * IMAGES;
  o.y_pixel = static_cast<i64>(s.stride_w) * s.C * IMAGES;
  o.accumulate = true;
  for (int h = top; h < bottom; h++) {
    o.runs = 0;
    for (int r = 0; r < s.R; r++) {
      const int shifted = h + s.pad_h - r * s.dilation_h, p = shifted / s.stride_h;
      if (shifted < 0 || shifted % s.stride_h != 0 || p >= s.P) continue;
      o.a_run[o.runs] = static_cast<i64>(r) * s.S * s.C;
      o.b_run[o.runs++] = (p - first) * line;
    }
    __builtin_memset(sums, 0, sizeof(float) * plan.out_row * IMAGES);
    multiply_all_images(o, s.S * s.C, images, plan.filter, panel, sums);
    lanes_to_row(sums + static_cast<i64>(s.pad_w) * s.C * IMAGES, length, Epilogue{}, plan.out + (n * s.H + h) * length,
                 s.H * length, images);
  }
}

constexpr i64 LANES_BYTES = 448 << 10;  // of the panels of a work item, at most

// Values of an image that the panels of `band` rows of the output hold: rows of the input, for backward_weight of dy
// too.
inline i64 lane_values(const Conv2dShape& s, int verb, int band) {
  const i64 dy_row = static_cast<i64>(s.Q) * s.K, reach = static_cast<i64>(s.R - 1) * s.dilation_h;
  if (verb == BACKWARD_INPUT) return least<i64>(s.P, (band - 1 + reach) / s.stride_h + 2) * dy_row;
  const i64 rows = static_cast<i64>(band - 1) * s.stride_h + reach + 1;
  const i64 line = (static_cast<i64>(s.Q - 1) * s.stride_w + s.S) * s.C;
  return rows * line + (verb == BACKWARD_WEIGHT ? band * dy_row : 0);
}

inline bool lanes_fit(const Conv2dShape& s, int verb, int band) {
  return lane_values(s, verb, band) * IMAGES * static_cast<i64>(sizeof(float)) <= LANES_BYTES;
}

// Few channels of what is computed, and images for two vectors.
inline bool batch_lanes_pay(const Conv2dShape& s, int verb) {
  return s.groups == 1 && s.dilation_w == 1 && s.N >= 2 * V && s.R <= MOST_TAPS && s.S <= MOST_TAPS && s.C < V &&
         (verb == BACKWARD_INPUT ? s.K < 2 * V : s.K <= V) && lanes_fit(s, verb, 1);
}

// Bands of the output's rows. Neighbouring ones transpose up to R rows of the input twice, so they have at least as
// many, where their panels fit; an even number keeps two threads busy.
inline void cut_bands(BatchPlan& plan, int verb, int rows) {
  const Conv2dShape& s = plan.s;
  const i64 count = blocks(s.N, IMAGES);
  plan.bands = 1;
  while (2 * plan.bands * s.R <= rows && plan.bands * count < ENOUGH_ITEMS) plan.bands *= 2;
  plan.band = static_cast<int>(blocks(rows, plan.bands));
  while (plan.band > 1 && !lanes_fit(s, verb, plan.band)) plan.band = static_cast<int>(blocks(plan.band, 2));
  plan.bands = static_cast<int>(blocks(rows, plan.band));
}

// Runs item(plan, block, top, bottom) for every block of images and band of the output's rows.
template <class F>
void run_batch(BatchPlan& plan, int verb, int rows, const F& item) {
  const Conv2dShape& s = plan.s;
  cut_bands(plan, verb, rows);
  const i64 work = static_cast<i64>(s.N) * s.P * s.Q * s.K * s.R * s.S * s.C / 4;
  parallel(blocks(s.N, IMAGES) * plan.bands, work, [&](i64 number) {
    const int top = static_cast<int>(number % plan.bands) * plan.band;
    item(plan, number / plan.bands, top, least(rows, top + plan.band));
  });
}

// What the forward pass and backward_weight read of x: rows with their padding
inline BatchPlan input_rows(const Conv2dShape& s, const float* x) {
  BatchPlan plan{};
  plan.s = s;
  plan.in = x;
  plan.in_row = static_cast<i64>(s.W) * s.C;
  plan.in_rows = s.H;
  plan.before = s.pad_h;
  plan.line = (static_cast<i64>(s.Q - 1) * s.stride_w + s.S) * s.C;
  plan.margin = least(plan.line, static_cast<i64>(s.pad_w) * s.C);
  return plan;
}

void batch_forward(const Conv2dShape& s, const float* x, const float* w, float* y, const Epilogue& e) {
  const i64 taps = static_cast<i64>(s.R) * s.S * s.C;
  BatchPlan plan = input_rows(s, x);
  plan.filter_step = blocks(s.K, V) * V;
  float* filter = scratch<float>(cnn::PACKED_WEIGHT, taps * plan.filter_step);
  for (int k = 0; k < s.K; k += V) transpose_into(w + k * taps, taps, s.K - k, taps, filter + k, plan.filter_step);
  plan.filter = filter;
  plan.out = y;
  plan.out_row = static_cast<i64>(s.Q) * s.K;
  float* parts = scratch<float>(cnn::WIDENED, 3 * plan.out_row);
  plan.epilogue = {repeated(e.bias, s.K, s.Q, parts), repeated(e.scale, s.K, s.Q, parts + plan.out_row),
                   repeated(e.shift, s.K, s.Q, parts + 2 * plan.out_row), e.residual, e.activation};
  run_batch(plan, FORWARD, s.P, batch_forward_item);
}

void batch_backward_input(const Conv2dShape& s, const float* dy, const float* w, float* dx) {
  BatchPlan plan{};
  plan.s = s;
  plan.in = dy;
  plan.filter = w;
  plan.filter_step = static_cast<i64>(s.R) * s.S * s.C;
  plan.out = dx;
  plan.in_row = static_cast<i64>(s.Q) * s.K;
  plan.in_rows = s.P;
  plan.line = plan.in_row;
  plan.out_row = static_cast<i64>(most(s.W + s.pad_w, (s.Q - 1) * s.stride_w + s.S)) * s.C;
  run_batch(plan, BACKWARD_INPUT, s.H, batch_backward_item);
}
