// Matrix product c (batch, M, N) = op(a) @ op(b) with the epilogue over c's last axis; a is (batch, M, K), or
// (batch, K, M) where transposed; b is (batch, K, N), or (batch, N, K) where transposed; a shared operand has no batch
// axis.
//
// Rungs, simplest first:
//   direct  one thread an element of c; chosen where M or N is too small for a tile
//   tiled   tile.cuh, one block a tile of c; chosen otherwise
// Roofline: 2 M N K flops over 4 (M K + K N + M N) bytes in float32: 1024^3 has 171 flops a byte and is bound by
// arithmetic, a linear layer of batch 1 has half a flop a byte and is bound by reading its weight.
#pragma once
#include "../shapes.h"
#include "epilogue.cuh"
#include "line.cuh"
#include "platform.cuh"
#include "tile.cuh"

constexpr int GEMM_DIRECT_THREADS = 256;

template <class T, class Shape>
__global__ void __launch_bounds__(GEMM_DIRECT_THREADS, 1)
    gemm_direct(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ c, const T* bias, const T* scale,
                const T* shift, const T* residual, int relu, Shape shape) {
  const Place at(shape.N);  // in c (batch*M, N)
  if (!at.inside) return;
  const int n = at.column, m = at.line % shape.M;
  const long long matrix = at.line / shape.M;

  // steps in memory along k
  const long long step_a = shape.transpose_a ? shape.M : 1, step_b = shape.transpose_b ? 1 : shape.N;
  const T* row = a + (shape.shared_a ? 0 : matrix * shape.M * shape.K) +
                 (shape.transpose_a ? m : static_cast<long long>(m) * shape.K);
  const T* column = b + (shape.shared_b ? 0 : matrix * shape.K * shape.N) +
                    (shape.transpose_b ? static_cast<long long>(n) * shape.K : n);
  float sum = 0.0f;
  for (int k = 0; k < shape.K; k++) sum += to_float(row[k * step_a]) * to_float(column[k * step_b]);
  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  c[at.index] = epilogue(sum, n, at.index);
}

// a matrix of `rows` by K, row by row, or column by column where K_FIRST
template <class T, bool K_FIRST>
struct Matrix {
  static constexpr bool ALONG_K = !K_FIRST;
  struct Row {
    const T* start;
    bool inside;
  };
  using Tap = int;
  const T* matrix;
  int rows, K;

  __device__ Row row(long long i) const { return {matrix + (K_FIRST ? i : i * K), i < rows}; }
  __device__ Tap tap(long long k) const { return static_cast<int>(k); }
  __device__ const T* at(const Row& row, Tap k) const {
    if (!row.inside || k >= K) return nullptr;
    return row.start + (K_FIRST ? static_cast<long long>(k) * rows : k);
  }
};

// TRANSPOSE_A and TRANSPOSE_B repeat the shape's members for the compiler: threads follow memory
template <class T, class Shape, class Tile, bool TRANSPOSE_A, bool TRANSPOSE_B>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS)
    gemm_tiled(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ c, const T* bias, const T* scale,
               const T* shift, const T* residual, int relu, Shape shape) {
  DYN_SMEM(typename Tile::Shared, shared);
  const int tiles_n = (shape.N + Tile::BN - 1) / Tile::BN, tiles_m = (shape.M + Tile::BM - 1) / Tile::BM;
  const int first_n = blockIdx.x % tiles_n * Tile::BN, first_m = blockIdx.x / tiles_n % tiles_m * Tile::BM;
  const long long matrix = blockIdx.x / tiles_n / tiles_m;

  const Matrix<T, TRANSPOSE_A> rows{a + (shape.shared_a ? 0 : matrix * shape.M * shape.K), shape.M, shape.K};
  const Matrix<T, !TRANSPOSE_B> columns{b + (shape.shared_b ? 0 : matrix * shape.K * shape.N), shape.N, shape.K};
  float sum[Tile::TM][Tile::TN];
  multiply_tile<Tile>(*shared, rows, columns, first_m, first_n, shape.K, sum);

  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  const int m = first_m + threadIdx.x / Tile::COLUMNS * Tile::TM, n = first_n + threadIdx.x % Tile::COLUMNS * Tile::TN;
  epilogue.apply_channels(sum, n, shape.N);
#pragma unroll
  for (int i = 0; i < Tile::TM; i++) {
    const long long index = (matrix * shape.M + m + i) * shape.N + n;
#pragma unroll
    for (int j = 0; j < Tile::TN; j++)
      if (m + i < shape.M && n + j < shape.N) c[index + j] = epilogue.finish(sum[i][j], index + j);
  }
}
