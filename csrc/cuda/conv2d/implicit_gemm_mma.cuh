// conv2d, rung `implicit_gemm_mma`: implicit GEMM on tensor cores over mma_tile.cuh, with the operands of operands.cuh.
// float16 and bfloat16 by themselves; float32 where it is asked for, as TF32 (`implicit_gemm_tf32`) or as three
// products of TF32 numbers (`implicit_gemm_3xtf32`).
//
// VECTOR elements are copied at a time: 16 bytes where the channels of a group are a multiple of that, 4 bytes or
// single elements else, which costs more instructions than the products. Blocks are numbered as in implicit_gemm.cuh,
// backward_weight is split as in tiled.cuh.
#pragma once
#include "../epilogue.cuh"
#include "../mma_tile.cuh"
#include "operands.cuh"
#include "phases.cuh"

// Blocks that shall fit a multiprocessor's 65536 registers: 128 or 168 a thread. Before sm_80, and of the large tile's
// 64 KB on sm_120 with its 100 KB, shared memory leaves room for one.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <class Tile, Rounded ROUNDED>
constexpr int mma_blocks = 1;
#else
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int MMA_LARGE_BLOCKS = 1;
#else
constexpr int MMA_LARGE_BLOCKS = 2;
#endif
template <class Tile, Rounded ROUNDED>
constexpr int mma_blocks = ROUNDED != Rounded::no ? 1
                           : Tile::THREADS == 256 ? MMA_LARGE_BLOCKS
                                                  : 3;
#endif

// moments (tiles of pixels, 2, K) may be null: of each tile's pixels of y, as stored, mean and sum of squares about it
template <class T, class Shape, class Tile, Rounded ROUNDED, int VECTOR>
__global__ void __launch_bounds__(Tile::THREADS, (mma_blocks<Tile, ROUNDED>))
    conv2d_forward_mma(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, const T* bias,
                       const T* scale, const T* shift, const T* residual, int relu, float* __restrict__ moments,
                       Shape shape) {
  DYN_SMEM(typename Tile::template Shared<T>, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int reduction = shape.R * shape.S * Cg;
  const long long pixels = static_cast<long long>(shape.N) * shape.P * shape.Q;
  const int tiles_k = (Kg + Tile::BN - 1) / Tile::BN;
  const long long tiles_pixels = (pixels + Tile::BM - 1) / Tile::BM;
  const long long first_pixel = blockIdx.x / tiles_k % tiles_pixels * Tile::BM;
  const int first_k = blockIdx.x % tiles_k * Tile::BN;
  const int group = blockIdx.x / tiles_k / tiles_pixels;

  const Patches<T, Shape> patches{x, shape, Cg, group};
  const Filters<T> filters{w + static_cast<long long>(group) * Kg * reduction, Kg, reduction};
  MmaSums<Tile> sum;
  multiply_mma_tile<Tile, T, ROUNDED, VECTOR>(*shared, patches, filters, first_pixel, first_k, reduction, sum);

  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  ColumnMoments<T, VECTOR> columns;
  store_mma_tile<Tile, VECTOR, T>(*shared, sum, [&](int row, int column, const float (&values)[VECTOR]) {
    const long long pixel = first_pixel + row;
    const int k = first_k + column;  // within the group; Kg is a multiple of VECTOR
    if (pixel >= pixels || k >= Kg) return;
    const Run<T, VECTOR> stored = epilogue.store_run(y, values, group * Kg + k, pixel * shape.K + group * Kg + k);
    if (moments) columns.add(stored);
  });
  if (moments)
    store_mma_moments<Tile, T>(*shared, columns, moments + first_pixel / Tile::BM * 2 * shape.K + group * Kg + first_k,
                               shape.K, Kg - first_k);
}

template <class T, class Shape, class Tile, Rounded ROUNDED, int VECTOR>
__global__ void __launch_bounds__(Tile::THREADS, (mma_blocks<Tile, ROUNDED>))
    conv2d_backward_input_mma(const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx, Shape shape) {
  DYN_SMEM(typename Tile::template Shared<T>, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const PhaseBlock block = PhaseBlock::of<Tile::BM, Tile::BN>(shape, blockIdx.x);
  if (block.pixel >= block.phase.pixels(shape)) return;

  const PhasePatches<T, Shape> patches{dy, shape, block.phase, Kg, block.group};
  const PhaseFilters<T, Shape> filters{w + static_cast<long long>(block.group) * Kg * shape.R * shape.S * Cg, shape,
                                       block.phase, Cg, Kg};
  MmaSums<Tile> sum;
  multiply_mma_tile<Tile, T, ROUNDED, VECTOR>(*shared, patches, filters, block.pixel, block.c, block.phase.taps() * Kg,
                                              sum);

  const PhaseBlock to = PhaseBlock::of<Tile::BM, Tile::BN>(shape, ptx::block_x());
  store_mma_tile<Tile, VECTOR, T>(*shared, sum, [&](int row, int column, const float (&values)[VECTOR]) {
    const long long pixel = to.pixel + row;
    const int c = to.c + column;
    if (pixel < to.phase.pixels(shape) && c < Cg)
      store_run(dx + to.phase.pixel(shape, pixel) * shape.C + to.group * Cg + c, values);
  });
}

// range and partial as in tiled.cuh
template <class T, class Shape, class Tile, Rounded ROUNDED, int VECTOR>
__global__ void __launch_bounds__(Tile::THREADS, (mma_blocks<Tile, ROUNDED>))
    conv2d_backward_weight_mma(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dw,
                               float* __restrict__ partial, long long range, Shape shape) {
  DYN_SMEM(typename Tile::template Shared<T>, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int elements = shape.R * shape.S * Cg;  // of a filter
  const SplitBlock block = SplitBlock::of<Tile>(shape.groups, Kg, elements);
  const long long first = block.split * range;
  const int count = SplitBlock::pixels(shape, first, range);

  const Gradients<T> gradients{dy + first * shape.K + block.group * Kg, Kg, shape.K, count};
  const TransposedPatches<T, Shape> patches{x, shape, Cg, block.group, first};
  MmaSums<Tile> sum;
  multiply_mma_tile<Tile, T, ROUNDED, VECTOR>(*shared, gradients, patches, block.k, block.tap, count, sum);

  store_mma_tile<Tile, VECTOR, T>(*shared, sum, [&](int row, int column, const float (&values)[VECTOR]) {
    const int k = block.k + row, tap = block.tap + column;
    if (k >= Kg || tap >= elements) return;
    const long long index = static_cast<long long>(block.group * Kg + k) * elements + tap;
    if (partial) {
      store_run(partial + static_cast<long long>(block.split) * shape.K * elements + index, values);
    } else {
      store_run(dw + index, values);
    }
  });
}
