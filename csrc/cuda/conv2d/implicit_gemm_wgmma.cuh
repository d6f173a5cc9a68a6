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
// backward_input with a stride is one launch for each phase (h % stride_h, w % stride_w) of dx, whose pixels see the
// same taps. Channels past the last one are zeros too, so C and K need only be multiples of 8 (16 bytes, which TMA
// wants).
#pragma once
#include "../epilogue.cuh"
#include "../wgmma_tile.cuh"

// What forward and backward_input have in common: outputs gathered from an input, both (images, rows, columns,
// channels)
struct WgmmaGather {
  int images, rows, columns;                 // pixels of the launch: n, i, j
  int first_h, first_w, stride_h, stride_w;  // input position of pixel (0, 0) under the first tap; between pixels
  int taps_h, taps_w, offset_h, offset_w;    // taps along an axis, and input positions between them
  int first_r, step_r, first_s, step_s, S;   // tap (t, u) is w's r = first_r + t * step_r, s = first_s + u * step_s
  int channels, outputs;                     // reduced, made
  int out_h, out_w;                          // of the whole output
  int out_first_h, out_first_w, out_step_h, out_step_w;  // where pixel (i, j) lies in it
};

// B_MAJOR: whether w lies along the reduction (forward) or along the outputs (backward_input)
template <class T, class Tile, bool B_MAJOR, class Store>
struct WgmmaGatherJob {
  static constexpr bool A_ALONG_K = true, B_ALONG_K = B_MAJOR;
  struct Place {
    long long pixel;
    int output;
    int n, i, j;  // of the pixel
  };
  const CUtensorMap* a;
  const CUtensorMap* b;
  const WgmmaGather& g;
  const Store& store;

  __device__ long long pixels() const { return static_cast<long long>(g.images) * g.rows * g.columns; }
  __device__ int tiles_of_outputs() const { return (g.outputs + Tile::BN - 1) / Tile::BN; }
  __device__ int chunks() const { return (g.channels + Tile::BK - 1) / Tile::BK; }
  __device__ long long tiles() const { return (pixels() + Tile::BM - 1) / Tile::BM * tiles_of_outputs(); }
  __device__ int steps(const Place&) const { return g.taps_h * g.taps_w * chunks(); }

  __device__ Place place(long long tile) const {  // outputs fastest: blocks that read the same pixels run side by side
    const int across = tiles_of_outputs();
    Place place;
    place.pixel = tile / across * Tile::BM;
    place.output = static_cast<int>(tile % across) * Tile::BN;
    place.j = static_cast<int>(place.pixel % g.columns);
    place.i = static_cast<int>(place.pixel / g.columns % g.rows);
    place.n = static_cast<int>(place.pixel / g.columns / g.rows);
    return place;
  }

  __device__ void load_a(T* stage, uint64_t* full, const Place& place, int step) const {
    const int tap = step / chunks(), chunk = step % chunks();
    ptx::tma_load_im2col_4d(stage, a, full, chunk * Tile::BK, g.first_w + place.j * g.stride_w,
                            g.first_h + place.i * g.stride_h, place.n, tap % g.taps_w * g.offset_w,
                            tap / g.taps_w * g.offset_h);
  }
  __device__ void load_b(T* stage, uint64_t* full, const Place& place, int step) const {
    const int tap = step / chunks(), chunk = step % chunks();
    const int position = (g.first_r + tap / g.taps_w * g.step_r) * g.S + g.first_s + tap % g.taps_w * g.step_s;
    if constexpr (B_ALONG_K) {
      ptx::tma_load_3d(stage, b, full, chunk * Tile::BK, position, place.output);
    } else {
#pragma unroll
      for (int block = 0; block < Tile::BN / Tile::BLOCK; block++)
        ptx::tma_load_3d(stage + block * Tile::BLOCK * Tile::BK, b, full, place.output + block * Tile::BLOCK, position,
                         chunk * Tile::BK);
    }
  }

  __device__ void write(const Place& place, int row, int column, const float (&values)[Tile::VECTOR]) const {
    const long long pixel = place.pixel + row;
    const int output = place.output + column;
    if (pixel >= pixels() || output >= g.outputs) return;
    long long at = pixel;
    if (g.out_step_h != 1 || g.out_step_w != 1 || g.rows != g.out_h || g.columns != g.out_w) {
      const long long line = pixel / g.columns;
      const int j = static_cast<int>(pixel % g.columns), i = static_cast<int>(line % g.rows);
      at = (line / g.rows * g.out_h + g.out_first_h + i * g.out_step_h) * g.out_w + g.out_first_w + j * g.out_step_w;
    }
    store(values, output, at * g.outputs + output);
  }
};

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    conv2d_forward_wgmma(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w,
                         T* __restrict__ y, const T* bias, const T* scale, const T* shift, const T* residual, int relu,
                         WgmmaGather gather) {
  DYN_SMEM(typename Tile::template Shared<T>, shared);
  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  const auto store = [&](const float (&values)[Tile::VECTOR], int k, long long index) {
    epilogue.store_run(y, values, k, index);
  };
  multiply_wgmma_tiles<Tile, T>(*shared, WgmmaGatherJob<T, Tile, true, decltype(store)>{&x, &w, gather, store});
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    conv2d_backward_input_wgmma(const __grid_constant__ CUtensorMap dy, const __grid_constant__ CUtensorMap w,
                                T* __restrict__ dx, WgmmaGather gather) {
  DYN_SMEM(typename Tile::template Shared<T>, shared);
  const auto store = [&](const float (&values)[Tile::VECTOR], int, long long index) { store_run(dx + index, values); };
  multiply_wgmma_tiles<Tile, T>(*shared, WgmmaGatherJob<T, Tile, false, decltype(store)>{&dy, &w, gather, store});
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
  static constexpr bool A_ALONG_K = false, B_ALONG_K = false;
  struct Place {
    int filter, block, split;  // block: the first of the tile's blocks of 64 channels of a tap
    long long begin, end;      // pixels
  };
  const CUtensorMap* dy;
  const CUtensorMap* x;
  T* dw;
  float* partial;   // (splits, K, R, S, C), or null where there is one split
  long long range;  // pixels of a split, a multiple of BK
  const WgmmaWeight& g;

  __device__ long long pixels() const { return static_cast<long long>(g.images) * g.rows * g.columns; }
  __device__ int chunks() const { return (g.C + Tile::BLOCK - 1) / Tile::BLOCK; }
  __device__ int blocks() const { return g.R * g.S * chunks(); }
  __device__ int tiles_of_blocks() const {
    constexpr int EACH = Tile::BN / Tile::BLOCK;
    return (blocks() + EACH - 1) / EACH;
  }
  __device__ int tiles_of_filters() const { return (g.K + Tile::BM - 1) / Tile::BM; }
  __device__ long long tiles() const {
    return static_cast<long long>(tiles_of_blocks()) * tiles_of_filters() * g.splits;
  }
  __device__ int steps(const Place& place) const {
    return static_cast<int>((place.end - place.begin + Tile::BK - 1) / Tile::BK);
  }

  __device__ Place place(long long tile) const {  // blocks that read the same pixels run side by side
    const int across = tiles_of_blocks(), down = tiles_of_filters();
    Place place;
    place.block = static_cast<int>(tile % across) * (Tile::BN / Tile::BLOCK);
    place.filter = static_cast<int>(tile / across % down) * Tile::BM;
    place.split = static_cast<int>(tile / across / down);
    place.begin = place.split * range;
    place.end = place.begin + range < pixels() ? place.begin + range : pixels();
    return place;
  }

  // Pixels past the last one are zeros in both; a split ends with a step, or with the last pixel.
  __device__ void load_a(T* stage, uint64_t* full, const Place& place, int step) const {
    const int pixel = static_cast<int>(place.begin + static_cast<long long>(step) * Tile::BK);
#pragma unroll
    for (int block = 0; block < Tile::BM / Tile::BLOCK; block++)
      ptx::tma_load_2d(stage + block * Tile::BLOCK * Tile::BK, dy, full, place.filter + block * Tile::BLOCK, pixel);
  }
  __device__ void load_b(T* stage, uint64_t* full, const Place& place, int step) const {
    const long long pixel = place.begin + static_cast<long long>(step) * Tile::BK;
    const int q = static_cast<int>(pixel % g.columns), p = static_cast<int>(pixel / g.columns % g.rows);
    const int n = static_cast<int>(pixel / g.columns / g.rows);
#pragma unroll
    for (int i = 0; i < Tile::BN / Tile::BLOCK; i++) {
      const int wanted = place.block + i, block = wanted < blocks() ? wanted : blocks() - 1;  // bytes must come
      const int tap = block / chunks();
      ptx::tma_load_im2col_4d(stage + i * Tile::BLOCK * Tile::BK, x, full, block % chunks() * Tile::BLOCK,
                              g.first_w + q * g.stride_w, g.first_h + p * g.stride_h, n, tap % g.S * g.dilation_w,
                              tap / g.S * g.dilation_h);
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
  multiply_wgmma_tiles<Tile, T>(*shared, WgmmaWeightJob<T, Tile>{&dy, &x, dw, partial, range, weight});
}
