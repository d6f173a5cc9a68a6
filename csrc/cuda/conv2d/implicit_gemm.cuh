// conv2d, rung `implicit_gemm`: implicit GEMM on CUDA cores over simt_tile.cuh, with the operands of operands.cuh and,
// for backward_input, of phases.cuh. Products and sums are float32, whatever the type in memory.
//
// VECTOR elements are loaded and stored at a time: 4 where the channels of a group are a multiple of that, else single
// ones. Blocks are numbered and backward_weight is split as in tiled.cuh, backward_input's phases as in phases.cuh.
//
// Offsets are a row's plus a tap's, taps follow each other without divisions: 1x1 without stride and padding, a plain
// matrix product, adds its channel or its pixel to an address.
#pragma once
#include "../epilogue.cuh"
#include "../simt_tile.cuh"
#include "operands.cuh"
#include "phases.cuh"

// Where a block's tile begins. It lies in shared memory: registers are for sums.
struct ForwardBlock {
  long long pixel;
  int k, group;
};

// moments (tiles of pixels, 2, K) may be null: of each tile's pixels of y, as stored, mean and sum of squares about it;
// without residual and relu
template <class T, class Shape, class Tile, int VECTOR>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)
    conv2d_forward_implicit_gemm(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, const T* bias,
                                 const T* scale, const T* shift, const T* residual, int relu,
                                 float* __restrict__ moments, Shape shape) {
  DYN_SMEM(typename Tile::template Shared<ForwardBlock>, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int reduction = shape.R * shape.S * Cg;
  const long long pixels = static_cast<long long>(shape.N) * shape.P * shape.Q;
  const ForwardBlock& block = shared->block;
  if (threadIdx.x == 0) {
    const int tiles_k = (Kg + Tile::BN - 1) / Tile::BN;
    const long long tiles_pixels = (pixels + Tile::BM - 1) / Tile::BM;
    shared->block = {blockIdx.x / tiles_k % tiles_pixels * Tile::BM, static_cast<int>(blockIdx.x % tiles_k) * Tile::BN,
                     static_cast<int>(blockIdx.x / tiles_k / tiles_pixels)};
  }
  __syncthreads();

  const Patches<T, Shape> patches{x, shape, Cg, block.group};
  const Filters<T> filters{w + static_cast<long long>(block.group) * Kg * reduction, Kg, reduction};
  SimtSums<Tile> sum;
  multiply_simt_tile<Tile, T, VECTOR>(shared->tile, patches, filters, block.pixel, block.k, reduction, sum);

  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  const int first_k = block.group * Kg;  // of the group
#pragma unroll
  for (int j = 0; j < Tile::GN; j++) epilogue.apply_channels(sum[j], first_k + block.k + Tile::column(j), first_k + Kg);
  if (moments)
    store_simt_moments<Tile, T>(shared->moments, sum, pixels - block.pixel,
                                moments + block.pixel / Tile::BM * 2 * shape.K + first_k + block.k, shape.K,
                                Kg - block.k);
  store_simt_tile<Tile, VECTOR>(sum, [&](int row, int column, const float (&values)[VECTOR]) {
    const long long pixel = block.pixel + row;
    const int k = block.k + column;  // Kg is a multiple of VECTOR
    if (pixel < pixels && k < Kg) epilogue.finish_run(y, values, pixel * shape.K + first_k + k);
  });
}

template <class T, class Shape, class Tile, int VECTOR>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)
    conv2d_backward_input_implicit_gemm(const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx,
                                        Shape shape) {
  DYN_SMEM(typename Tile::template Shared<PhaseBlock>, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const PhaseBlock& block = shared->block;
  if (threadIdx.x == 0) shared->block = PhaseBlock::of<Tile::BM, Tile::BN>(shape, blockIdx.x);
  __syncthreads();
  if (block.pixel >= block.phase.pixels(shape)) return;  // of a phase with fewer pixels than the first

  const PhasePatches<T, Shape> patches{dy, shape, block.phase, Kg, block.group};
  const PhaseFilters<T, Shape> filters{w + static_cast<long long>(block.group) * Kg * shape.R * shape.S * Cg, shape,
                                       block.phase, Cg, Kg};
  SimtSums<Tile> sum;
  multiply_simt_tile<Tile, T, VECTOR>(shared->tile, patches, filters, block.pixel, block.c, block.phase.taps() * Kg,
                                      sum);

  store_simt_tile<Tile, VECTOR>(sum, [&](int row, int column, const float (&values)[VECTOR]) {
    const long long pixel = block.pixel + row;
    const int c = block.c + column;
    if (pixel < block.phase.pixels(shape) && c < Cg)
      store_run(dx + block.phase.pixel(shape, pixel) * shape.C + block.group * Cg + c, values);
  });
}

// range and partial as in tiled.cuh
template <class T, class Shape, class Tile, int VECTOR>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)
    conv2d_backward_weight_implicit_gemm(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dw,
                                         float* __restrict__ partial, long long range, Shape shape) {
  DYN_SMEM(typename Tile::template Shared<SplitBlock>, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int elements = shape.R * shape.S * Cg;  // of a filter
  const SplitBlock& block = shared->block;
  if (threadIdx.x == 0) shared->block = SplitBlock::of<Tile>(shape.groups, Kg, elements);
  __syncthreads();
  const long long first = block.split * range;
  const int count = SplitBlock::pixels(shape, first, range);

  const Gradients<T> gradients{dy + first * shape.K + block.group * Kg, Kg, shape.K, count};
  const TransposedPatches<T, Shape> patches{x, shape, Cg, block.group, first};
  SimtSums<Tile> sum;
  multiply_simt_tile<Tile, T, VECTOR>(shared->tile, gradients, patches, block.k, block.tap, count, sum);

  const long long first_weight = static_cast<long long>(block.group) * Kg * elements;
  float* const to = partial ? partial + static_cast<long long>(block.split) * shape.K * elements : nullptr;
  store_simt_tile<Tile, VECTOR>(sum, [&](int row, int column, const float (&values)[VECTOR]) {
    const int k = block.k + row, tap = block.tap + column;
    if (k >= Kg || tap >= elements) return;
    const long long index = first_weight + static_cast<long long>(k) * elements + tap;
    if (to) {
      store_run(to + index, values);
    } else {
      store_run(dw + index, values);
    }
  });
}
