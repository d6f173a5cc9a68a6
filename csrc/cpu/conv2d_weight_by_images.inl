// backward_weight for few channels, few filters and many images, as in LeNet-5: lanes are images, as in
// conv2d_batch_lanes.inl. The products of one filter and one tap are added up in a vector, all pixels of a band and all
// blocks of images, and its lanes at the end: every lane is used, however few filters there are. What it costs besides
// is the transposition of x and dy. One group, no dilation along the width.

constexpr int IMAGE_FILTERS = V == 16 ? 4 : 3,
              IMAGE_TAPS = V == 16 ? 6 : 3;  // of a tile: 24 sums in 32 registers, or 9 in 16
constexpr int MOST_CHAIN = 512;              // products that a lane adds up before it is added to the others

// A band of rows of x and dy as lanes of images: values along a row, IMAGES floats each.
struct ImageBand {
  const float *x, *dy;
  i64 x_row, x_pixel, dy_row, dy_pixel;  // from one output row, and pixel, to the next
  int rows, pixels, vectors;             // vectors: of images
};

// out[f][t] (+)= sum over rows, pixels and images of dy[f] * x[t], neighbouring values of either
template <int FILTERS, int TAPS>
void add_image_products(const ImageBand& b, const float* x, const float* dy, bool accumulate, float* out, i64 pitch) {
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
    for (int t = 0; t < TAPS; t++) out[f * pitch + t] = (accumulate ? out[f * pitch + t] : 0) + sum(sums[f][t]);
}

using AddImageProducts = void (*)(const ImageBand&, const float*, const float*, bool, float*, i64);

template <int FILTERS = IMAGE_FILTERS, int TAPS = IMAGE_TAPS>
inline AddImageProducts image_products_of(int filters, int taps) {
  if constexpr (FILTERS > 1)
    if (filters < FILTERS) return image_products_of<FILTERS - 1, TAPS>(filters, taps);
  if constexpr (TAPS > 1)
    if (taps < TAPS) return image_products_of<FILTERS, TAPS - 1>(filters, taps);
  return add_image_products<FILTERS, TAPS>;
}

// dw (+)= the share of output rows top..bottom-1 of one block of images
void weight_by_images_item(const BatchPlan& x, const BatchPlan& dy, i64 block, int top, int bottom, bool accumulate,
                           float* dw) {
  const Conv2dShape& s = x.s;
  const i64 line = x.line * IMAGES, dy_line = dy.line * IMAGES;
  const int first = top * s.stride_h, rows = (bottom - 1 - top) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  float* panel = scratch<float>(cnn::PANEL, rows * line + (bottom - top) * dy_line);
  float* gradients = panel + rows * line;
  for (int r = 0; r < rows; r++)
    if (is_read(r, s.R, s.dilation_h, s.stride_h)) fill_batch_row(x, block, first + r, panel + r * line);
  for (int p = top; p < bottom; p++) fill_batch_row(dy, block, p, gradients + (p - top) * dy_line);
  ImageBand b;
  b.x_row = s.stride_h * line;
  b.x_pixel = static_cast<i64>(s.stride_w) * s.C * IMAGES;
  b.dy_row = dy_line;
  b.dy_pixel = static_cast<i64>(s.K) * IMAGES;
  b.vectors = static_cast<int>(blocks(x.images(block), V));
  const int length = s.S * s.C, chain = MOST_CHAIN / b.vectors;
  const i64 pitch = static_cast<i64>(s.R) * length;
  const int filters = static_cast<int>(blocks(s.K, IMAGE_FILTERS)), taps = static_cast<int>(blocks(length, IMAGE_TAPS));
  const int columns = least(s.Q, chain), lines = most(1, chain / s.Q);
  for (int p = 0; p < bottom - top; p += lines)
    for (int q = 0; q < s.Q; q += columns) {
      b.rows = least(lines, bottom - top - p);
      b.pixels = least(columns, s.Q - q);
      const float *x_part = panel + p * b.x_row + q * b.x_pixel, *dy_part = gradients + p * dy_line + q * b.dy_pixel;
      for (int r = 0; r < s.R; r++)
        for (int i = 0; i < filters; i++)
          for (int j = 0; j < taps; j++) {
            const int k = part(s.K, filters, i), t = part(length, taps, j);
            image_products_of(part(s.K, filters, i + 1) - k, part(length, taps, j + 1) - t)(
                b, x_part + r * s.dilation_h * line + t * IMAGES, dy_part + k * IMAGES, accumulate || p > 0 || q > 0,
                dw + k * pitch + r * length + t, pitch);
          }
    }
}

// Work items are partitions of the blocks of images and bands, each with sums of its own, small beside x and dy.
void weight_by_images(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  BatchPlan in = input_rows(s, x), gradients{};
  gradients.s = s;
  gradients.in = dy;
  gradients.in_row = gradients.line = static_cast<i64>(s.Q) * s.K;
  gradients.in_rows = s.P;
  cut_bands(in, BACKWARD_WEIGHT, s.P);
  const i64 parts = blocks(s.N, IMAGES) * in.bands, size = static_cast<i64>(s.K) * s.R * s.S * s.C;
  const i64 activations = s.N * (static_cast<i64>(s.H) * s.W * s.C + static_cast<i64>(s.P) * s.Q * s.K);
  const i64 partitions = most<i64>(1, least(least(parts, WEIGHT_ITEMS), activations / size));
  float* sums = partitions == 1 ? dw : scratch<float>(cnn::PARTIAL_SUMS, partitions * size);
  parallel(partitions, static_cast<i64>(s.N) * s.P * s.Q * size / 4, [&](i64 partition) {
    const i64 begin = parts * partition / partitions, end = parts * (partition + 1) / partitions;
    for (i64 i = begin; i < end; i++) {
      const int top = static_cast<int>(i % in.bands) * in.band;
      weight_by_images_item(in, gradients, i / in.bands, top, least(s.P, top + in.band), i > begin,
                            sums + partition * size);
    }
  });
  add_partitions(sums, size, partitions, dw);
}
