// backward_weight by Winograd's algorithm, without stride and dilation. Where forward takes a tile of inputs and a
// filter to a tile of outputs, here an M x M tile of dy takes the filter's place: with the (M + 2) x (M + 2) pixels of
// x under it, it gives its part of the 3 x 3 gradients, F(3 x 3, M x M). Parts are added up before they are transformed
// back:
//   S[xi][k][c] = sum over tiles t of W[xi][t][k] * V[xi][t][c]       V: of x, W: of dy       dw = A^T S A
// N^2 = (M + 2)^2 products a tile instead of 9 M^2: 25 for 81 with M = 3. A work item owns S of a block of filters and
// channels, in the second-level cache, and takes the tiles in bands, which are transformed, multiplied and added to S.
// Where there are few blocks, tiles are shared out to partitions, by shape alone, whose dw are added up in order.
// A larger filter is cut into parts of 3 x 3, 5 x 5 into four: 100 products instead of 225.
//
// Rounding: S has larger errors than dw, 2.6 times for N = 5 and 4.7 times for N = 6. Short sums make up for it: those
// in registers are CHAIN tiles long, and are added up over a band before they are added to S.
//
// Images lie side by side in mosaics, with as many zeros between them as a filter needs. So tiles cross from one image
// to the next, and lose little where they do not divide an image.

constexpr int CHAIN = 12;
constexpr int BAND_TILES = 48;        // at most
constexpr int PARTITION_TILES = 100;  // at least: transforming back costs about as much as 10 tiles
constexpr int FILTER_BLOCK = 64;      // at most
constexpr int MOSAIC_SIDE = 8;        // images, at most
constexpr int WEIGHT_THREADS = 8;     // so many have room for their bands

// One axis of a mosaic: image i has positions i * period.. of dy, those of x begin the padding before. Neither the
// padding before an image nor what is read after it reaches another.
struct MosaicAxis {
  int images, period, tiles;
};

inline MosaicAxis mosaic_axis(int images, int input, int output, int padding, int taps, int M) {
  const int period = most(most(output, input + padding), output + taps - 1 - padding);
  return {images, period, static_cast<int>(blocks(static_cast<i64>(images - 1) * period + output, M))};
}

struct WinogradWeight {
  Conv2dShape s;
  MosaicAxis down, across;
  const float *x, *dy;
  float* dw;             // (partitions, K, 3, 3, C)
  int parts_h, parts_w;  // of a filter
  Columns cut;           // of the channels
  int splits;            // of the filters
  int filters;           // of an item, at most
  int chain, band;       // tiles
  i64 partitions;
  i64 per_mosaic() const { return static_cast<i64>(down.tiles) * across.tiles; }
  i64 tiles() const { return blocks(s.N, static_cast<i64>(down.images) * across.images) * per_mosaic(); }
  i64 items() const { return static_cast<i64>(splits) * cut.count * parts_h * parts_w; }
  i64 w_pitch() const { return blocks(filters, V) * V; }
  i64 w_plane() const { return band * w_pitch() + V; }
  i64 v_plane() const { return static_cast<i64>(band) * cut.width + V; }
  i64 s_plane() const { return static_cast<i64>(filters) * cut.width + V; }
};

// Where positions first.. lie: in which image (-1: in none), and where in it, `size` being an image's length.
template <int COUNT>
void positions(const MosaicAxis& axis, int first, int size, int (&image)[COUNT], int (&at)[COUNT]) {
  int n = (first + axis.period) / axis.period - 1, p = first - n * axis.period;
  for (int i = 0; i < COUNT; i++, p++) {
    if (p == axis.period) {
      p = 0;
      n++;
    }
    image[i] = p < size && n < axis.images ? n : -1;
    at[i] = p;
  }
}

// Addresses of a tile's pixels in a tensor (N, rows, columns, channels); null outside of the images.
template <int SIDE>
void tile_pixels(const WinogradWeight& plan, i64 mosaic, int row, int column, const float* tensor, int rows,
                 int columns, i64 channels, const float* (&pixel)[SIDE * SIDE]) {
  int image_row[SIDE], p[SIDE], image_column[SIDE], q[SIDE];
  positions(plan.down, row, rows, image_row, p);
  positions(plan.across, column, columns, image_column, q);
  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) {
      const i64 n = (mosaic * plan.down.images + image_row[i]) * plan.across.images + image_column[j];
      const bool inside = image_row[i] >= 0 && image_column[j] >= 0 && n < plan.s.N;
      pixel[i * SIDE + j] = inside ? tensor + ((n * rows + p[i]) * columns + q[j]) * channels : nullptr;
    }
}

// What an item computes: dw of taps r.. and t.., of filters k.. and channels c..
struct WeightBlock {
  int r, t, k, filters, c, channels;
};

// V and W of tiles first..
template <int M>
void transform_band(const WinogradWeight& plan, const WeightBlock& block, i64 first, int tiles, float* v, float* w) {
  constexpr int N = M + 2;
  const Conv2dShape& s = plan.s;
  for (int t = 0; t < tiles; t++) {
    const i64 mosaic = (first + t) / plan.per_mosaic(), tile = (first + t) % plan.per_mosaic();
    const int p = static_cast<int>(tile / plan.across.tiles) * M;
    const int q = static_cast<int>(tile % plan.across.tiles) * M;
    const float *x[N * N], *dy[M * M];
    tile_pixels<N>(plan, mosaic, p - s.pad_h + block.r, q - s.pad_w + block.t, plan.x, s.H, s.W, s.C, x);
    for (const float*& pixel : x) pixel = pixel ? pixel + block.c : ZEROS;
    float* v_at = v + static_cast<i64>(t) * plan.cut.width;
    for (int lane = 0; lane < block.channels; lane += V)
      interpolate_tile<N>(x, lane, block.channels - lane, v_at + lane, plan.v_plane());
    tile_pixels<M>(plan, mosaic, p, q, plan.dy, s.P, s.Q, s.K, dy);
    for (int lane = 0; lane < block.filters; lane += V) {
      vec in[M][M];
#pragma GCC unroll 16
      for (int i = 0; i < M * M; i++)
        in[i / M][i % M] = dy[i] ? load_first(dy[i] + block.k + lane, block.filters - lane) : vec{};
      evaluate_tile<N, M, false>(in, w + t * plan.w_pitch() + lane, plan.w_plane());
    }
  }
}

// S (+)= W V of a band's tiles
void multiply_band(const WinogradWeight& plan, const WeightBlock& block, int planes, int tiles, const float* v,
                   const float* w, float* sums, bool accumulate) {
  alignas(64) float kept[MOST_ROWS * MOST_LANES];
  BandAhead none{};
  OuterProducts o;
  o.a_step = plan.w_pitch();
  o.b_step = plan.cut.width;
  o.a_line = o.b_line = nullptr;
  o.pixels = tiles;
  o.length = plan.chain;
  o.y_pitch = plan.cut.width;
  o.lanes = static_cast<int>(blocks(block.channels, V)) * V;
  o.accumulate = accumulate;
  o.kept = kept;
  o.ahead_a = o.ahead_b = &none;
  const WeightTiles rows = weight_tiles(block.filters, o.lanes / V);
  for (int xi = 0; xi < planes; xi++)
    for (int i = 0; i < rows.tiles; i++)
      weight_tile_of(rows.rows(i), o.lanes / V)(
          o, w + xi * plan.w_plane() + rows.first(i), v + xi * plan.v_plane(),
          sums + xi * plan.s_plane() + static_cast<i64>(rows.first(i)) * plan.cut.width);
}

// dw of a block, from S
template <int M>
void transform_gradients(const WinogradWeight& plan, const WeightBlock& block, const float* sums, float* dw) {
  const Conv2dShape& s = plan.s;
  for (int f = 0; f < block.filters; f++)
    for (int lane = 0; lane < block.channels; lane += V) {
      vec taps[3][3];
      collect_tile<M + 2, 3, true>(sums + static_cast<i64>(f) * plan.cut.width + lane, plan.s_plane(), taps);
      for (int r = 0; r < least(3, s.R - block.r); r++)
        for (int t = 0; t < least(3, s.S - block.t); t++) {
          const i64 tap = (static_cast<i64>(block.k + f) * s.R + block.r + r) * s.S + block.t + t;
          store_first(dw + tap * s.C + block.c + lane, taps[r][t], block.channels - lane);
        }
    }
}

template <int M>
void winograd_weight_item(const WinogradWeight& plan, i64 item) {
  constexpr int N = M + 2;
  const Conv2dShape& s = plan.s;
  const i64 partition = item % plan.partitions;
  item /= plan.partitions;
  WeightBlock block;
  block.t = static_cast<int>(item % plan.parts_w) * 3;
  item /= plan.parts_w;
  block.r = static_cast<int>(item % plan.parts_h) * 3;
  item /= plan.parts_h;
  block.c = static_cast<int>(item % plan.cut.count) * plan.cut.width;
  block.channels = least(plan.cut.width, s.C - block.c);
  item /= plan.cut.count;
  block.k = static_cast<int>(s.K * item / plan.splits);
  block.filters = static_cast<int>(s.K * (item + 1) / plan.splits) - block.k;
  float* v = scratch<float>(cnn::PANEL, N * N * (plan.v_plane() + plan.w_plane()));
  float* w = v + N * N * plan.v_plane();
  float* sums = scratch<float>(cnn::WIDENED, N * N * plan.s_plane());
  const i64 begin = plan.tiles() * partition / plan.partitions, end = plan.tiles() * (partition + 1) / plan.partitions;
  for (i64 first = begin; first < end; first += plan.band) {
    const int tiles = static_cast<int>(least<i64>(plan.band, end - first));
    transform_band<M>(plan, block, first, tiles, v, w);
    multiply_band(plan, block, N * N, tiles, v, w, sums, first > begin);
  }
  transform_gradients<M>(plan, block, sums, plan.dw + partition * s.K * s.R * s.S * s.C);
}

// The mosaics with the fewest tiles, and how the work is shared out
template <int M>
WinogradWeight winograd_weight_plan(const Conv2dShape& s) {
  WinogradWeight plan;
  plan.s = s;
  plan.parts_h = static_cast<int>(blocks(s.R, 3));
  plan.parts_w = static_cast<int>(blocks(s.S, 3));
  i64 fewest = -1;
  for (int down = 1; down <= least(s.N, MOSAIC_SIDE); down++)
    for (int across = 1; across <= least(s.N, MOSAIC_SIDE); across++) {
      WinogradWeight other = plan;
      other.down = mosaic_axis(down, s.H, s.P, s.pad_h, 3 * plan.parts_h, M);
      other.across = mosaic_axis(across, s.W, s.Q, s.pad_w, 3 * plan.parts_w, M);
      if (fewest >= 0 && other.tiles() >= fewest) continue;
      fewest = other.tiles();
      plan = other;
    }
  plan.cut = columns_for(s.C);
  plan.splits = static_cast<int>(blocks(s.K, FILTER_BLOCK));
  plan.filters = static_cast<int>(blocks(s.K, plan.splits));
  plan.partitions = most<i64>(1, least<i64>(plan.tiles() / PARTITION_TILES, blocks(WEIGHT_ITEMS, plan.items())));
  // what the threads hold of V and W stays below x and dy together, down to one tile each
  const i64 room = static_cast<i64>(s.N) * (static_cast<i64>(s.H) * s.W * s.C + static_cast<i64>(s.P) * s.Q * s.K);
  const i64 threads = least<i64>(WEIGHT_THREADS, plan.items() * plan.partitions);
  const i64 tile = (M + 2) * (M + 2) * (plan.w_pitch() + plan.cut.width + 2 * V);
  plan.band = static_cast<int>(most<i64>(1, least<i64>(BAND_TILES, room / threads / tile)));
  const i64 share = blocks(plan.tiles(), plan.partitions);  // of a partition, in bands of nearly equal length
  plan.band = static_cast<int>(blocks(share, blocks(share, plan.band)));
  plan.chain = static_cast<int>(blocks(plan.band, blocks(plan.band, CHAIN)));
  return plan;
}

template <int M>
void winograd_backward_weight(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  WinogradWeight plan = winograd_weight_plan<M>(s);
  plan.x = x;
  plan.dy = dy;
  const i64 size = static_cast<i64>(s.K) * s.R * s.S * s.C, partitions = plan.partitions;
  plan.dw = partitions == 1 ? dw : scratch<float>(cnn::PARTIAL_SUMS, partitions * size);
  parallel(plan.items() * partitions, plan.tiles() * (M + 2) * (M + 2) * plan.parts_h * plan.parts_w * s.C * s.K / 4,
           [&](i64 item) { winograd_weight_item<M>(plan, item); });
  add_partitions(plan.dw, size, partitions, dw);
}

inline bool winograd_weight_can(const Conv2dShape& s) {
  return s.R >= 3 && s.S >= 3 && s.groups == 1 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 &&
         s.dilation_w == 1;
}

// Whether it is expected to win: its products, a channel and filter, against those of the plain sum. Transforming a
// tile costs 500 multiply-adds a channel, and a filter, and is repeated for each block of the other; transforming back
// costs 250; measured with AVX-512 and 2 threads. The plain sum of few pixels rounds less than half as much.
inline bool winograd_weight_wins(const Conv2dShape& s) {
  constexpr i64 LEAST_PIXELS = 128;
  const i64 pixels = static_cast<i64>(s.N) * s.P * s.Q;
  if (!winograd_weight_can(s) || pixels < LEAST_PIXELS) return false;
  const WinogradWeight plan = winograd_weight_plan<3>(s);
  const double tiles = static_cast<double>(plan.tiles());
  const double transforms = static_cast<double>(plan.splits) / s.K + static_cast<double>(plan.cut.count) / s.C;
  const double products = 1.25 * 25 * tiles + 500 * tiles * transforms + 250.0 * static_cast<double>(plan.partitions);
  return 1.1 * products * plan.parts_h * plan.parts_w < static_cast<double>(pixels * s.R * s.S);
}
