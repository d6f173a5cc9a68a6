// Runs: neighbouring elements that a thread moves at once, 16 bytes of them where it can, and computes in float32.
#pragma once
#include "platform.cuh"

// LENGTH neighbouring elements, at most 16 bytes of them at an address that is a multiple of it
template <class T, int LENGTH>
struct alignas(LENGTH * sizeof(T) < 16 ? LENGTH * sizeof(T) : 16) Run {
  T value[LENGTH];
};

// elements that a thread moves at once: 16 bytes of the wider type
template <class T, class Other = T>
constexpr int AT_ONCE = 16 / (sizeof(T) > sizeof(Other) ? sizeof(T) : sizeof(Other));

template <int LENGTH, class T>
__device__ __forceinline__ bool aligned_for_runs(const T* from) {
  return reinterpret_cast<uintptr_t>(from) % alignof(Run<T, LENGTH>) == 0;
}

// Runs of more than 16 bytes, which only what belongs to a channel is in, move in parts of 16 bytes.
template <class T, int LENGTH>
constexpr int PART = LENGTH * sizeof(T) > 16 ? 16 / sizeof(T) : LENGTH;

template <class T, int LENGTH>
__device__ __forceinline__ void load_run(const T* from, float (&values)[LENGTH]) {
  Run<T, PART<T, LENGTH>> run;
  if constexpr (PART<T, LENGTH> == LENGTH) {
    run = *reinterpret_cast<const Run<T, LENGTH>*>(from);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) values[v] = to_float(run.value[v]);
  } else {
#pragma unroll
    for (int v = 0; v < LENGTH; v++) {
      if (v % PART<T, LENGTH> == 0) run = *reinterpret_cast<const Run<T, PART<T, LENGTH>>*>(from + v);
      values[v] = to_float(run.value[v % PART<T, LENGTH>]);
    }
  }
}

// The same, or zeros where `inside` is false, and nothing is read then
template <class T, int LENGTH>
__device__ __forceinline__ void load_run(const T* from, bool inside, float (&values)[LENGTH]) {
  if (inside) {
    load_run(from, values);
  } else {
#pragma unroll
    for (int v = 0; v < LENGTH; v++) values[v] = 0.0f;
  }
}

// what was stored, rounded to T
template <class T, int LENGTH>
__device__ __forceinline__ Run<T, LENGTH> store_run(T* to, const float (&values)[LENGTH]) {
  Run<T, LENGTH> run;
#pragma unroll
  for (int v = 0; v < LENGTH; v++) run.value[v] = from_float<T>(values[v]);
#pragma unroll
  for (int v = 0; v < LENGTH; v += PART<T, LENGTH>)
    *reinterpret_cast<Run<T, PART<T, LENGTH>>*>(to + v) =
        *reinterpret_cast<const Run<T, PART<T, LENGTH>>*>(run.value + v);
  return run;
}

// The first `count` elements of a run, at once where that is all of them and `aligned`; the others become 0
template <class T, int LENGTH>
__device__ __forceinline__ void load_some(const T* from, long long count, bool aligned, Run<T, LENGTH>& run) {
  if (aligned && count >= LENGTH) {
    run = *reinterpret_cast<const Run<T, LENGTH>*>(from);
  } else {
#pragma unroll
    for (int v = 0; v < LENGTH; v++) run.value[v] = v < count ? from[v] : T{};
  }
}

template <class T, int LENGTH>
__device__ __forceinline__ void store_some(T* to, long long count, bool aligned, const Run<T, LENGTH>& run) {
  if (aligned && count >= LENGTH) {
    *reinterpret_cast<Run<T, LENGTH>*>(to) = run;
  } else {
#pragma unroll
    for (int v = 0; v < LENGTH; v++)
      if (v < count) to[v] = run.value[v];
  }
}
