// backward_weight for few channels, few filters and many images, as in LeNet-5: lanes are images, as in
// conv2d_batch_lanes.inl. The products of one filter and one tap are added up in a vector, all pixels of a band and all
// blocks of images, and its lanes at the end: every lane is used, however few filters there are. What it costs besides
// is the transposition of x and dy. One group, no dilation along the width.

constexpr int IMAGE_FILTERS = V == 16 ? 4 : 3, IMAGE_TAPS = V == 16 ? 6 : 3;  // of a tile: 24 sums of 32 registers

// A band of rows of x and dy as lanes of images: values along a row, IMAGES floats each.
struct ImageBand {
  const float *x, *dy;
  i64 x_row, x_pixel, dy_row, dy_pixel;  // from one output row, and pixel, to the next
  int rows, pixels, vectors;             // vectors: of images
};

// out[f][t] = sum over rows, pixels and images of dy[f] * x[t], neighbouring values of either
template <int FILTERS, int TAPS>
void add_image_products(const ImageBand& b, const float* x, const float* dy, float* out, i64 pitch) {
  vec sums[FILTERS][TAPS];
#pragma GCC unroll 4
  for (int f = 0; f < FILTERS; f++)
#pragma GCC unroll 6
    for (int t = 0; t < TAPS; t++) sums[f][t] = vec{};
  for (int v = 0; v < b.vectors; v++)
    for (int p = 0; p < b.rows; p++) {
      const float *xp = x + p * b.x_row + v * V, *dp = dy + p * b.dy_row + v * V;
      for (int q = 0; q < b.pixels; q++, xp += b.x_pixel, dp += b.dy_pixel) {
        vec gradient[FILTERS];
#pragma GCC unroll 4
        for (int f = 0; f < FILTERS; f++) gradient[f] = load(dp + f * IMAGES);
#pragma GCC unroll 6
        for (int t = 0; t < TAPS; t++) {
          const vec value = load(xp + t * IMAGES);
#pragma GCC unroll 4
          for (int f = 0; f < FILTERS; f++) sums[f][t] += gradient[f] * value;
        }
      }
    }
#pragma GCC unroll 4
  for (int f = 0; f < FILTERS; f++)
#pragma GCC unroll 6
    for (int t = 0; t < TAPS; t++) out[f * pitch + t] = sum(sums[f][t]);
}

using AddImageProducts = void (*)(const ImageBand&, const float*, const float*, float*, i64);

template <int FILTERS = IMAGE_FILTERS, int TAPS = IMAGE_TAPS>
inline AddImageProducts image_products_of(int filters, int taps) {
  if constexpr (FILTERS > 1)
    if (filters < FILTERS) return image_products_of<FILTERS - 1, TAPS>(filters, taps);
  if constexpr (TAPS > 1)
    if (taps < TAPS) return image_products_of<FILTERS, TAPS - 1>(filters, taps);
  return add_image_products<FILTERS, TAPS>;
}

// 0..n-1 in pieces of nearly equal size
struct Pieces {
  int n, count;
  Pieces(int n, int most) : n(n), count(static_cast<int>(blocks(n, most))) {}
  int first(int i) const { return static_cast<int>(static_cast<i64>(n) * i / count); }
  int size(int i) const { return first(i + 1) - first(i); }
};

// dw of output rows top..bottom-1 of one block of images
void weight_by_images_item(const BatchPlan& x, const BatchPlan& dy, i64 block, int top, int bottom, float* dw) {
  const Conv2dShape& s = x.s;
  const i64 line = x.line * IMAGES, dy_line = dy.line * IMAGES;
  const int first = top * s.stride_h, rows = (bottom - 1 - top) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  float* x_panel = scratch<float>(cnn::PANEL, rows * line);
  for (int r = 0; r < rows; r++)
    if (is_read(r, s.R, s.dilation_h, s.stride_h)) fill_batch_row(x, block, first + r, x_panel + r * line);
  float* dy_panel = scratch<float>(cnn::LAST_BAND, (bottom - top) * dy_line);
  for (int p = top; p < bottom; p++) fill_batch_row(dy, block, p, dy_panel + (p - top) * dy_line);
  ImageBand b;
  b.x_row = s.stride_h * line;
  b.x_pixel = static_cast<i64>(s.stride_w) * s.C * IMAGES;
  b.dy_row = dy_line;
  b.dy_pixel = static_cast<i64>(s.K) * IMAGES;
  b.rows = bottom - top;
  b.pixels = s.Q;
  b.vectors = static_cast<int>(blocks(x.images(block), V));
  const i64 length = static_cast<i64>(s.S) * s.C, pitch = s.R * length;
  const Pieces filters(s.K, IMAGE_FILTERS), taps(static_cast<int>(length), IMAGE_TAPS);
  for (int r = 0; r < s.R; r++)
    for (int i = 0; i < filters.count; i++)
      for (int j = 0; j < taps.count; j++) {
        const int k = filters.first(i), t = taps.first(j);
        image_products_of(filters.size(i), taps.size(j))(b, x_panel + r * s.dilation_h * line + t * IMAGES,
                                                         dy_panel + k * IMAGES, dw + k * pitch + r * length + t, pitch);
      }
}

inline bool weight_by_images_pays(const Conv2dShape& s) {
  return s.groups == 1 && s.dilation_w == 1 && s.N >= 2 * V && s.C < V && s.K <= V && s.R <= MOST_TAPS &&
         s.S <= MOST_TAPS;
}

void weight_by_images(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  BatchPlan in = input_rows(s, x), gradients{};
  gradients.s = s;
  gradients.in = dy;
  gradients.in_row = gradients.line = static_cast<i64>(s.Q) * s.K;
  gradients.in_rows = s.P;
  cut_bands(in, s.P);
  const i64 items = blocks(s.N, IMAGES) * in.bands, size = static_cast<i64>(s.K) * s.R * s.S * s.C;
  float* sums = items == 1 ? dw : scratch<float>(cnn::PARTIAL_SUMS, items * size);
  run_batch(in, s.P, [&](const BatchPlan& plan, i64 block, int top, int bottom) {
    weight_by_images_item(plan, gradients, block, top, bottom, sums + (block * plan.bands + top / plan.band) * size);
  });
  add_partitions(sums, size, items, dw);
}
