// The walk every elementwise kernel makes: a block takes ELEMENTS_PER_BLOCK neighbours, a thread every blockDim.x-th of
// them, so that a warp's accesses are neighbours and each thread has several loads under way.
#pragma once
#include "platform.cuh"

constexpr int ELEMENTWISE_THREADS = 256;
constexpr int ELEMENTS_PER_THREAD = 4;  // 4 loads of 4 bytes by 2048 threads: 32 KB under way per SM

template <class Body>
__device__ inline void for_each_element(long long count, Body body) {
  const long long first = blockIdx.x * static_cast<long long>(blockDim.x) * ELEMENTS_PER_THREAD + threadIdx.x;
#pragma unroll
  for (int i = 0; i < ELEMENTS_PER_THREAD; i++) {
    const long long index = first + i * static_cast<long long>(blockDim.x);
    if (index < count) body(index);
  }
}
