// The walks of elementwise kernels. `map` moves runs of 16 bytes, neighbouring threads neighbouring runs; a thread
// loads two before it stores the first, two of one operand or one of each of two. Elements past the last whole run and
// arrays that are not aligned are moved one by one. `for_each_element` is for kernels that compute an element's place.
#pragma once
#include "platform.cuh"
#include "run.cuh"

constexpr int ELEMENTWISE_THREADS = 256;
constexpr int LOADS = 2;  // of 16 bytes by 2048 threads: 64 KB under way per SM
constexpr int ELEMENTS_PER_THREAD = 4;

template <int ELEMENTS = ELEMENTS_PER_THREAD, class Body>
__device__ inline void for_each_element(long long count, Body body) {
  const long long first = blockIdx.x * static_cast<long long>(blockDim.x) * ELEMENTS + threadIdx.x;
#pragma unroll
  for (int i = 0; i < ELEMENTS; i++) {
    const long long index = first + i * static_cast<long long>(blockDim.x);
    if (index < count) body(index);
  }
}

// where run i of this thread begins, i in [0, RUNS): a block has RUNS * blockDim.x runs
template <int LENGTH, int RUNS>
__device__ __forceinline__ long long run_start(int i) {
  return ((static_cast<long long>(blockIdx.x) * RUNS + i) * blockDim.x + threadIdx.x) * LENGTH;
}

// quotient and remainder of what is not negative; 64-bit division, some 100 instructions, only where it is needed
struct Divided {
  long long quotient;
  int remainder;

  __device__ Divided(long long dividend, int divisor) {
    if (dividend >> 32 == 0) {
      quotient = static_cast<unsigned>(dividend) / static_cast<unsigned>(divisor);
    } else {
      quotient = dividend / divisor;
    }
    remainder = static_cast<int>(dividend - quotient * divisor);
  }
};

// y = f(x), run by run: f(held, start, result) of elements start + [0, LENGTH), of which the last may not exist; y may
// be x
template <class From, class To, class Function>
__device__ inline void map_runs(const From* x, To* y, long long count, Function f) {
  constexpr int LENGTH = AT_ONCE<From, To>;
  const bool aligned = aligned_for_runs<LENGTH>(x) && aligned_for_runs<LENGTH>(y);
  Run<From, LENGTH> held[LOADS];
#pragma unroll
  for (int i = 0; i < LOADS; i++) {
    const long long start = run_start<LENGTH, LOADS>(i);
    load_some(x + start, count - start, aligned, held[i]);
  }
#pragma unroll
  for (int i = 0; i < LOADS; i++) {
    const long long start = run_start<LENGTH, LOADS>(i);
    if (start >= count) return;
    Run<To, LENGTH> result;
    f(held[i], start, result);
    store_some(y + start, count - start, aligned, result);
  }
}

// y[i] = f(x[i]); y may be x
template <class From, class To, class Function>
__device__ inline void map(const From* x, To* y, long long count, Function f) {
  constexpr int LENGTH = AT_ONCE<From, To>;
  map_runs(x, y, count, [=](const Run<From, LENGTH>& held, long long, Run<To, LENGTH>& result) {
#pragma unroll
    for (int v = 0; v < LENGTH; v++) result.value[v] = from_float<To>(f(to_float(held.value[v])));
  });
}

// y[i] = f(a[i], b[i]); y may be a or b
template <class T, class Function>
__device__ inline void map(const T* a, const T* b, T* y, long long count, Function f) {
  constexpr int LENGTH = AT_ONCE<T>;
  const bool aligned = aligned_for_runs<LENGTH>(a) && aligned_for_runs<LENGTH>(b) && aligned_for_runs<LENGTH>(y);
  const long long start = run_start<LENGTH, 1>(0);
  Run<T, LENGTH> held_a, held_b, result;
  load_some(a + start, count - start, aligned, held_a);
  load_some(b + start, count - start, aligned, held_b);
#pragma unroll
  for (int v = 0; v < LENGTH; v++)
    result.value[v] = from_float<T>(f(to_float(held_a.value[v]), to_float(held_b.value[v])));
  store_some(y + start, count - start, aligned, result);
}
