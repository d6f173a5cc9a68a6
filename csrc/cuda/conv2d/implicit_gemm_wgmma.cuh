// conv2d, rung `implicit_gemm_wgmma` (sm_90a; float16 and bfloat16, one group): implicit GEMM over wgmma_tile.cuh. TMA
// finds the patches: an im2col tensor map walks the output pixels, each at its input pixel, jumps over the ends of
// lines and images, and adds the offset of a tap; what lies in the padding arrives as zeros.
//
//                     rows of a                      columns of b                   reduction, 64 a step
//   forward           pixels, x by im2col, K-major   filters k, w K-major           (r, s, c)
//   backward_input    pixels, dy by im2col, K-major  channels c, w MN-major         (r, s, k)
//   backward_weight   filters k, dy MN-major         blocks of 64 channels of a     (n, p, q)
//                                                    tap, x by im2col, MN-major
//
// backward_input with a stride takes each phase (h % stride_h, w % stride_w) of dx for itself, whose pixels see the
// same taps. All phases are one launch, the ones with most taps first; where a phase has fewer pixels than the largest,
// those beyond the edge are computed and not written. Channels past the last one are zeros too, so C and K need only be
// multiples of 8 (16 bytes, which TMA wants).
//
// Two blocks of a cluster take neighbouring tiles of rows, and share the columns: the filters of two tiles of pixels,
// the patches of two tiles of filters.
#pragma once
#include "../epilogue.cuh"
#include "../wgmma_tile.cuh"

struct WgmmaAxis {  // of a phase, along h or w
  int first;        // of its pixels, in the whole output
  int tap, taps;    // the first that reaches them, and how many
  int shift;        // input positions from the launch's first one to where the first tap finds pixel 0
};

// What forward and backward_input have in common: outputs gathered from an input, both (images, rows, columns,
// channels). forward has one phase.
struct WgmmaGather {
  int images, rows, columns;                 // pixels of a phase: n, i, j; of the largest
  int first_h, first_w, stride_h, stride_w;  // the first input position; between pixels
  int step_r, step_s, offset_h, offset_w;    // from a tap of a phase to its next: in the filter, and in input positions
  int S, channels, outputs;                  // channels are reduced
  int out_h, out_w, out_step_h, out_step_w;  // the whole output, and between pixels of a phase in it
  int phases_h, phases_w;
  WgmmaAxis h[8], w[8];
};

// B_MAJOR: whether w lies along the reduction (forward) or along the outputs (backward_input)
template <class T, class Tile, bool B_MAJOR>
struct WgmmaGatherJob {
  static constexpr bool A_ALONG_K = true, B_ALONG_K = B_MAJOR;
  struct Place {
    int pixel, output;  // pixel: of the phase
    int n, i, j;        // of the pixel
    const WgmmaAxis *h, *w;
  };
  struct Step {
    int chunk, t, u;  // of 64 channels under tap (t, u) of the phase
  };
  const CUtensorMap *a, *b;
  const WgmmaGather& g;

  __device__ int pixels() const { return g.images * g.rows * g.columns; }
  __device__ int tiles_of_outputs() const { return (g.outputs + Tile::BN - 1) / Tile::BN; }
  __device__ int chunks() const { return (g.channels + Tile::BK - 1) / Tile::BK; }
  __device__ int sets_of_pixels(int blocks) const {  // of a phase
    return (pixels() + Tile::BM * blocks - 1) / (Tile::BM * blocks);
  }
  __device__ int sets(int blocks) const {
    return sets_of_pixels(blocks) * tiles_of_outputs() * g.phases_h * g.phases_w;
  }
  __device__ int steps(const Place& place) const { return place.h->taps * place.w->taps * chunks(); }

  __device__ Place place(int set, const BlocksTogether& together) const {
    // outputs fastest: blocks that read the same pixels run side by side
    const int across = tiles_of_outputs(), down = sets_of_pixels(together.blocks);
    const int line = set / across, phase = line / down;
    Place place;
    place.pixel = (line % down * together.blocks + together.rank) * Tile::BM;
    place.output = set % across * Tile::BN;
    place.j = place.pixel % g.columns;
    place.i = place.pixel / g.columns % g.rows;
    place.n = place.pixel / g.columns / g.rows;
    place.h = &g.h[phase / g.phases_w];
    place.w = &g.w[phase % g.phases_w];
    return place;
  }
  __device__ Step first(const Place&) const { return {0, 0, 0}; }
  __device__ void advance(Step& at, const Place& place) const {
    if (++at.chunk < chunks()) return;
    at.chunk = 0;
    if (++at.u < place.w->taps) return;
    at.u = 0, at.t++;
  }

  __device__ void load_a(T* stage, uint64_t* full, const Place& place, const Step& at) const {
    ptx::tma_load_im2col_4d(stage, a, full, at.chunk * Tile::BK, g.first_w + place.j * g.stride_w,
                            g.first_h + place.i * g.stride_h, place.n, place.w->shift + at.u * g.offset_w,
                            place.h->shift + at.t * g.offset_h);
  }
  // Of two blocks each brings half of the rows of a box: half of the filters in forward, half of k in backward_input
  __device__ void load_b(T* stage, uint64_t* full, const Place& place, const Step& at,
                         const BlocksTogether& together) const {
    const int position = (place.h->tap + at.t * g.step_r) * g.S + place.w->tap + at.u * g.step_s;
    const int k = at.chunk * Tile::BK;
    if constexpr (B_ALONG_K) {
      if (together.blocks == 1) {
        ptx::tma_load_3d(stage, b, full, k, position, place.output);
      } else {
        const int first = together.rank * (Tile::BN / 2);
        ptx::tma_load_3d_multicast(stage + first * Tile::BK, b, full, k, position, place.output + first,
                                   BlocksTogether::everyone());
      }
    } else {
#pragma unroll
      for (int block = 0; block < Tile::BN; block += Tile::BLOCK) {
        T* const to = stage + block * Tile::BK;
        if (together.blocks == 1) {
          ptx::tma_load_3d(to, b, full, place.output + block, position, k);
        } else {
          const int first = together.rank * (Tile::BK / 2);
          ptx::tma_load_3d_multicast(to + first * Tile::BLOCK, b, full, place.output + block, position, k + first,
                                     BlocksTogether::everyone());
        }
      }
    }
  }

  // results as a matrix (pixels, outputs), where there is one phase
  __device__ int rows() const { return pixels(); }
  __device__ int outputs() const { return g.outputs; }
  __device__ int first_row(const Place& place) const { return place.pixel; }
  __device__ int first_column(const Place& place) const { return place.output; }
};

template <class T, class Tile>
struct WgmmaForwardJob : WgmmaGatherJob<T, Tile, true> {
  static constexpr bool STORE_BY_TMA = true, LEAVES_MOMENTS = true;
  const CUtensorMap *out, *added;
  bool adds;
  const Epilogue<T>& epilogue;
  float* moments;

  __device__ void apply_channels(float (&value)[2][2], int column) const { epilogue.apply_channel_run(value, column); }
  __device__ float finish(float value) const { return epilogue.activate(value); }
};

template <class T, class Tile>
struct WgmmaBackwardInputJob : WgmmaGatherJob<T, Tile, false> {  // of one phase: stride 1
  static constexpr bool STORE_BY_TMA = true, LEAVES_MOMENTS = false;
  const CUtensorMap *out, *added;
  bool adds;

  __device__ void apply_channels(float (&)[2][2], int) const {}
  __device__ float finish(float value) const { return value; }
};

template <class T, class Tile>
struct WgmmaPhasesJob : WgmmaGatherJob<T, Tile, false> {
  static constexpr bool STORE_BY_TMA = false;
  using Place = typename WgmmaGatherJob<T, Tile, false>::Place;
  T* dx;

  __device__ void write(const Place& place, int row, int column, const float (&values)[Tile::VECTOR]) const {
    const WgmmaGather& g = this->g;
    const int pixel = place.pixel + row, c = place.output + column;
    if (pixel >= this->pixels() || c >= g.outputs) return;
    const int line = pixel / g.columns;
    const int h = place.h->first + line % g.rows * g.out_step_h, w = place.w->first + pixel % g.columns * g.out_step_w;
    if (h >= g.out_h || w >= g.out_w) return;
    const long long at = (static_cast<long long>(line / g.rows) * g.out_h + h) * g.out_w + w;
    store_run(dx + at * g.outputs + c, values);
  }
};

// moments (tiles of 64 pixels, 2, K) may be null: of each tile's pixels of y, as stored, mean and sum of squares about
// it
template <class T, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    conv2d_forward_wgmma(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w,
                         const __grid_constant__ CUtensorMap y, const __grid_constant__ CUtensorMap residual, int adds,
                         const T* bias, const T* scale, const T* shift, int relu, float* __restrict__ moments,
                         const __grid_constant__ WgmmaGather gather) {
  DYN_SMEM(typename Tile::template Shared<T>, shared);
  const Epilogue<T> epilogue{bias, scale, shift, nullptr, relu};
  multiply_wgmma_tiles<Tile, T>(
      *shared, WgmmaForwardJob<T, Tile>{{&x, &w, gather}, &y, &residual, adds != 0, epilogue, moments});
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    conv2d_backward_input_wgmma(const __grid_constant__ CUtensorMap dy, const __grid_constant__ CUtensorMap w,
                                const __grid_constant__ CUtensorMap dx, const __grid_constant__ WgmmaGather gather) {
  DYN_SMEM(typename Tile::template Shared<T>, shared);
  multiply_wgmma_tiles<Tile, T>(*shared, WgmmaBackwardInputJob<T, Tile>{{&dy, &w, gather}, &dx, nullptr, false});
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    conv2d_backward_input_phases_wgmma(const __grid_constant__ CUtensorMap dy, const __grid_constant__ CUtensorMap w,
                                       T* __restrict__ dx, const __grid_constant__ WgmmaGather gather) {
  DYN_SMEM(typename Tile::template Shared<T>, shared);
  multiply_wgmma_tiles<Tile, T>(*shared, WgmmaPhasesJob<T, Tile>{{&dy, &w, gather}, dx});
}

// The reduction of backward_weight runs over pixels (n, p, q), x at each of them as in forward
struct WgmmaWeight {
  int images, rows, columns;                 // N, P, Q
  int first_h, first_w, stride_h, stride_w;  // input position of pixel (0, 0) under tap (0, 0); between pixels
  int R, S, dilation_h, dilation_w;
  int C, K;
  int splits;
};

template <class T, class Tile>
struct WgmmaWeightJob {
  static constexpr bool A_ALONG_K = false, B_ALONG_K = false, STORE_BY_TMA = false;
  static constexpr int BLOCKS = Tile::BN / Tile::BLOCK;  // of a tile
  struct Place {
    int filter, block, split;  // block: the first of the tile's blocks of 64 channels of a tap
    int chunk, r, s;           // which one that is
    int begin, end;            // pixels
  };
  struct Step {
    int pixel;  // the first
  };
  const CUtensorMap *dy, *x;
  T* dw;
  float* partial;  // (splits, K, R, S, C), or null where there is one split
  int range;       // pixels of a split, a multiple of BK
  const WgmmaWeight& g;

  __device__ int pixels() const { return g.images * g.rows * g.columns; }
  __device__ int chunks() const { return (g.C + Tile::BLOCK - 1) / Tile::BLOCK; }
  __device__ int blocks() const { return g.R * g.S * chunks(); }
  __device__ int tiles_of_blocks() const { return (blocks() + BLOCKS - 1) / BLOCKS; }
  __device__ int sets_of_filters(int together) const { return (g.K + Tile::BM * together - 1) / (Tile::BM * together); }
  __device__ int sets(int together) const { return tiles_of_blocks() * sets_of_filters(together) * g.splits; }
  __device__ int steps(const Place& place) const { return (place.end - place.begin + Tile::BK - 1) / Tile::BK; }

  __device__ Place place(int set, const BlocksTogether& together) const {
    // blocks that read the same pixels run side by side
    const int across = tiles_of_blocks(), down = sets_of_filters(together.blocks);
    Place place;
    place.block = set % across * BLOCKS;
    place.filter = (set / across % down * together.blocks + together.rank) * Tile::BM;
    place.split = set / across / down;
    place.begin = place.split * range;
    place.end = pixels() - place.begin > range ? place.begin + range : pixels();
    place.chunk = place.block % chunks();
    place.s = place.block / chunks() % g.S;
    place.r = place.block / chunks() / g.S;
    return place;
  }

  __device__ Step first(const Place& place) const { return {place.begin}; }
  __device__ void advance(Step& at, const Place&) const { at.pixel += Tile::BK; }

  // Pixels past the last one are zeros in both; a split ends with a step, or with the last pixel.
  __device__ void load_a(T* stage, uint64_t* full, const Place& place, const Step& at) const {
#pragma unroll
    for (int block = 0; block < Tile::BM; block += Tile::BLOCK)
      ptx::tma_load_2d(stage + block * Tile::BK, dy, full, place.filter + block, at.pixel);
  }
  __device__ void load_b(T* stage, uint64_t* full, const Place& place, const Step& at,
                         const BlocksTogether& together) const {
    const int pixel = at.pixel + together.rank * (Tile::BK / 2);  // of two blocks each brings half of the pixels
    const int line = pixel / g.columns, n = line / g.rows;
    const int w = g.first_w + pixel % g.columns * g.stride_w, h = g.first_h + line % g.rows * g.stride_h;
    int chunk = place.chunk, s = place.s, r = place.r;
#pragma unroll 1  // the producer has 40 registers
    for (int i = 0; i < BLOCKS; i++) {
      const int c = chunk * Tile::BLOCK, offset_w = s * g.dilation_w, offset_h = r * g.dilation_h;
      T* const to = stage + i * Tile::BLOCK * Tile::BK;
      if (together.blocks == 1) {
        ptx::tma_load_im2col_4d(to, x, full, c, w, h, n, offset_w, offset_h);
      } else {
        ptx::tma_load_im2col_4d_multicast(to + together.rank * (Tile::BK / 2) * Tile::BLOCK, x, full, c, w, h, n,
                                          offset_w, offset_h, BlocksTogether::everyone());
      }
      if (++chunk == chunks()) chunk = 0, s++;
      if (s == g.S) s = 0, r++;
      if (r == g.R) r = 0;  // past the last block any will do, the stage's bytes must come
    }
  }

  __device__ void write(const Place& place, int row, int column, const float (&values)[Tile::VECTOR]) const {
    const int k = place.filter + row, block = place.block + column / Tile::BLOCK;
    const int tap = block / chunks(), c = block % chunks() * Tile::BLOCK + column % Tile::BLOCK;
    if (k >= g.K || block >= blocks() || c >= g.C) return;
    const int elements = g.R * g.S * g.C;
    const long long index = static_cast<long long>(k) * elements + tap * g.C + c;
    if (partial) {
      store_run(partial + static_cast<long long>(place.split) * g.K * elements + index, values);
    } else {
      store_run(dw + index, values);
    }
  }
};

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    conv2d_backward_weight_wgmma(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap dy,
                                 T* __restrict__ dw, float* __restrict__ partial, long long range, WgmmaWeight weight) {
  DYN_SMEM(typename Tile::template Shared<T>, shared);
  multiply_wgmma_tiles<Tile, T>(*shared,
                                WgmmaWeightJob<T, Tile>{&dy, &x, dw, partial, static_cast<int>(range), weight});
}
