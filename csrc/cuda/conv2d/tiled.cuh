// conv2d, rung `tiled`: implicit GEMM over tile.cuh, with the operands of operands.cuh.
//
// Blocks are numbered along x alone (y and z end at 65535), b's tiles fastest: blocks that read the same pixels run
// close in time and meet in L2. backward_weight has few tiles and a long reduction, so it is split into `splits` ranges
// of pixels whose partial sums go to a workspace (splits, K, R, S, Cg) and are added in order by a second kernel: no
// atomics, the same bits every time. backward_input spends a zero on each tap that the stride skips: at stride 2 three
// of four, which implicit_gemm's phases save.
#pragma once
#include "../epilogue.cuh"
#include "../tile.cuh"
#include "operands.cuh"

template <class T, class Shape, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)
    conv2d_forward_tiled(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, const T* bias,
                         const T* scale, const T* shift, const T* residual, int relu, Shape shape) {
  DYN_SMEM(typename Tile::Shared, shared);
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
  float sum[Tile::TM][Tile::TN];
  multiply_tile<Tile>(*shared, patches, filters, first_pixel, first_k, reduction, sum);

  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  const long long pixel = first_pixel + threadIdx.x / Tile::COLUMNS * Tile::TM;
  const int k = first_k + threadIdx.x % Tile::COLUMNS * Tile::TN;  // within the group
  epilogue.apply_channels(sum, group * Kg + k, (group + 1) * Kg);
#pragma unroll
  for (int i = 0; i < Tile::TM; i++) {
    const long long index = (pixel + i) * shape.K + group * Kg + k;
#pragma unroll
    for (int j = 0; j < Tile::TN; j++)
      if (pixel + i < pixels && k + j < Kg) y[index + j] = epilogue.finish(sum[i][j], index + j);
  }
}

template <class T, class Shape, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)
    conv2d_backward_input_tiled(const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx, Shape shape) {
  DYN_SMEM(typename Tile::Shared, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int elements = shape.R * shape.S * Cg, reduction = shape.R * shape.S * Kg;
  const long long pixels = static_cast<long long>(shape.N) * shape.H * shape.W;
  const int tiles_c = (Cg + Tile::BN - 1) / Tile::BN;
  const long long tiles_pixels = (pixels + Tile::BM - 1) / Tile::BM;
  const long long first_pixel = blockIdx.x / tiles_c % tiles_pixels * Tile::BM;
  const int first_c = blockIdx.x % tiles_c * Tile::BN;
  const int group = blockIdx.x / tiles_c / tiles_pixels;

  const GradientPatches<T, Shape> patches{dy, shape, Kg, group};
  const TransposedFilters<T> filters{w + static_cast<long long>(group) * Kg * elements, Cg, Kg, elements};
  float sum[Tile::TM][Tile::TN];
  multiply_tile<Tile>(*shared, patches, filters, first_pixel, first_c, reduction, sum);

  const long long pixel = first_pixel + threadIdx.x / Tile::COLUMNS * Tile::TM;
  const int c = first_c + threadIdx.x % Tile::COLUMNS * Tile::TN;
#pragma unroll
  for (int i = 0; i < Tile::TM; i++)
#pragma unroll
    for (int j = 0; j < Tile::TN; j++)
      if (pixel + i < pixels && c + j < Cg) dx[(pixel + i) * shape.C + group * Cg + c + j] = from_float<T>(sum[i][j]);
}

// range: pixels a split adds, less than 2^31; partial: (splits, K, R, S, Cg), or null where there is one split, which
// writes dw
template <class T, class Shape, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)
    conv2d_backward_weight_tiled(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dw,
                                 float* __restrict__ partial, long long range, Shape shape) {
  DYN_SMEM(typename Tile::Shared, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int elements = shape.R * shape.S * Cg;  // of a filter
  const SplitBlock block = SplitBlock::of<Tile>(shape.groups, Kg, elements);
  const long long first = block.split * range;
  const int count = SplitBlock::pixels(shape, first, range);

  const Gradients<T> gradients{dy + first * shape.K + block.group * Kg, Kg, shape.K, count};
  const TransposedPatches<T, Shape> patches{x, shape, Cg, block.group, first};
  float sum[Tile::TM][Tile::TN];
  multiply_tile<Tile>(*shared, gradients, patches, block.k, block.tap, count, sum);

  const int k = block.k + threadIdx.x / Tile::COLUMNS * Tile::TM;
  const int tap = block.tap + threadIdx.x % Tile::COLUMNS * Tile::TN;
#pragma unroll
  for (int i = 0; i < Tile::TM; i++)
#pragma unroll
    for (int j = 0; j < Tile::TN; j++)
      if (k + i < Kg && tap + j < elements) {
        const long long index = static_cast<long long>(block.group * Kg + k + i) * elements + tap + j;
        if (partial) {
          partial[static_cast<long long>(block.split) * shape.K * elements + index] = sum[i][j];
        } else {
          dw[index] = from_float<T>(sum[i][j]);
        }
      }
}

constexpr int SUM_THREADS = 256;

// dw (count,) = the sum of partial (splits, count), in order
template <class T>
__global__ void __launch_bounds__(SUM_THREADS, 1)
    conv2d_backward_weight_sum(const float* __restrict__ partial, T* __restrict__ dw, long long count, int splits) {
  const long long index = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (index >= count) return;
  float sum = 0.0f;
  for (int split = 0; split < splits; split++) sum += partial[split * count + index];
  dw[index] = from_float<T>(sum);
}
