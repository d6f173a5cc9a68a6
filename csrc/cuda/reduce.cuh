// Reductions of the middle axis: x (outer, reduced, inner) -> y (outer, inner), in float32.
//
// A block is blockDim.x lanes along the columns (outer, inner), neighbours in memory where inner > 1, by blockDim.y
// along reduced, powers of two; it takes `chunk` of the reduced axis. Each thread adds every blockDim.y-th element,
// then the block adds its threads pairwise in shared memory. Where that gives too few blocks to fill a GPU, `splits`
// blocks share a column: they write partial results (outer, splits, inner), which the same kernel reduces once more.
// The split follows the shape alone: the same bits every time. Traffic: 4 |x| bytes in float32; a sum over NPQ of (1,
// NPQ, K) runs at memory speed.
#pragma once
#include "../shapes.h"
#include "platform.cuh"

constexpr int REDUCE_THREADS = 256;

struct Sum {
  static __device__ float apply(float a, float b) { return a + b; }
};
struct Max {  // a NaN wins
  static __device__ float apply(float a, float b) { return a > b || a != a ? a : b; }
};

struct ReduceShared {
  float value[REDUCE_THREADS];  // [row of the block][lane]
};

template <class Input, class Output, class Op, class Shape>
__global__ void __launch_bounds__(REDUCE_THREADS, 1)
    reduce(const Input* __restrict__ x, Output* __restrict__ y, int chunk, int splits, Shape shape) {
  DYN_SMEM(ReduceShared, shared);
  const long long columns = static_cast<long long>(shape.outer) * shape.inner;
  const unsigned tiles = static_cast<unsigned>((columns + blockDim.x - 1) / blockDim.x);
  const long long column = blockIdx.x % tiles * static_cast<long long>(blockDim.x) + threadIdx.x;
  const bool busy = column < columns;
  const long long row = column / shape.inner, lane = column % shape.inner;
  const int split = blockIdx.x / tiles;
  const long long begin = static_cast<long long>(split) * chunk;
  const long long end = begin + chunk < shape.reduced ? begin + chunk : shape.reduced;

  // elements this row of threads starts with; a last chunk may leave rows without one
  const long long first = begin + threadIdx.y;
  const Input* line = x + row * shape.reduced * shape.inner + lane;
  float result = 0.0f;
  if (busy && first < end) {
    result = to_float(line[first * shape.inner]);
    for (long long i = first + blockDim.y; i < end; i += blockDim.y)
      result = Op::apply(result, to_float(line[i * shape.inner]));
  }

  float* mine = &shared->value[threadIdx.y * blockDim.x + threadIdx.x];
  *mine = result;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half && first + half < end) *mine = Op::apply(*mine, mine[half * blockDim.x]);
  }
  if (threadIdx.y == 0 && busy) y[(row * splits + split) * shape.inner + lane] = from_float<Output>(*mine);
}
