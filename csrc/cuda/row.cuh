// Kernels over rows that need all of a row before they write any of it (softmax, layer norm): a team of threads reads a
// row once, in runs of LENGTH, and keeps it in registers, up to KEPT elements a thread; with KEPT == 0, for rows too
// long for that, it reads them again.
//
// A team is the threads of one threadIdx.y: blockDim.x, a power of two. Up to a warp there are several teams, which
// meet by shuffles; a larger team is the whole block and meets in shared memory. Threads of a team without a row stay.
#pragma once
#include "run.cuh"

constexpr int ROW_THREADS = 512;  // most of a team: rows of 512 * 32 elements are kept, in 32 of at most 128 registers
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ inline float minus_infinity() {
  return __int_as_float(0xff800000);
}

using WarpResults = float[ROW_THREADS / 32];

// Calls body(i, c) for this thread's runs: elements c + [0, LENGTH) of a row, run i of those it keeps
template <int LENGTH, int KEPT, class Body>
__device__ __forceinline__ void for_each_run(int length, Body body) {
  static_assert(KEPT % LENGTH == 0, "whole runs");
  const unsigned end = length, step = blockDim.x * LENGTH;
  if constexpr (KEPT > 0) {
#pragma unroll
    for (int i = 0; i < KEPT / LENGTH; i++) {
      const unsigned c = i * step + threadIdx.x * LENGTH;
      if (c < end) body(i, c);
    }
  } else {
    for (unsigned c = threadIdx.x * LENGTH; c < end; c += step) body(0, c);
  }
}

// A thread's part of a row
template <int LENGTH, int KEPT>
using RowPart = float[KEPT > 0 ? KEPT / LENGTH : 1][LENGTH];

struct Add {
  static __device__ float apply(float a, float b) { return a + b; }
};
struct Larger {  // a NaN wins
  static __device__ float apply(float a, float b) { return a > b || a != a ? a : b; }
};

// op over the team, in an order that follows from its size alone; `shared` is used for nothing else
template <class Op>
__device__ __forceinline__ float over_team(float value, WarpResults& shared) {
  const int lanes = blockDim.x < 32 ? static_cast<int>(blockDim.x) : 32;
  for (int step = lanes / 2; step > 0; step /= 2) value = Op::apply(value, __shfl_xor_sync(ALL_LANES, value, step));
  if (blockDim.x > 32) {
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    value = shared[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) value = Op::apply(value, shared[warp]);
  }
  return value;
}
