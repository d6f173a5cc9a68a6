// Images of bytes to floating-point numbers about 0: y = x * factor[c] + offset[c] over x (count,), whose channels c =
// i % C are neighbours; functional makes factor = 1 / (255 std) and offset = -mean / std.
//
// Traffic: reads 1 byte an element and writes 4, in float16 and bfloat16 2; a run is 16 bytes of y. Factors and offsets
// come from L1.
#pragma once
#include "elementwise.cuh"

template <class T>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1)
    normalize_images(const unsigned char* __restrict__ x, const float* __restrict__ factor,
                     const float* __restrict__ offset, T* __restrict__ y, long long count, int C) {
  constexpr int LENGTH = AT_ONCE<unsigned char, T>;
  map_runs(x, y, count, [=](const Run<unsigned char, LENGTH>& held, long long start, Run<T, LENGTH>& result) {
    int c = Divided(start, C).remainder;
#pragma unroll
    for (int v = 0; v < LENGTH; v++) {
      result.value[v] = from_float<T>(static_cast<float>(held.value[v]) * factor[c] + offset[c]);
      c = c + 1 == C ? 0 : c + 1;
    }
  });
}
