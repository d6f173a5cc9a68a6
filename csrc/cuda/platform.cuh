// The one place where the three compilers of a kernel file differ: NVRTC (for the GPU at hand), nvcc (offline
// inspection) and g++ (the emulator, which defines CNN_EMULATOR). Kernel files include this first and nothing of
// theirs.
#pragma once

#ifdef CNN_EMULATOR

#include "../emulator/emulator.h"

#else

#ifdef __CUDACC_RTC__  // NVRTC has no <cstdint>
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#else
#include <cstdint>
#endif

#include <cuda_fp16.h>
#include <cuda_bf16.h>

// `name` points at the block's dynamic shared memory, seen as T: one struct per kernel, whose size is the launch's.
// One array of one name and one alignment, because several of them in a file would all be the same memory anyway.
#define DYN_SMEM(T, name)                                               \
  extern __shared__ __align__(1024) unsigned char cnn_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(cnn_dynamic_shared)

// As cuda.h, which NVRTC cannot include, declares it: filled by cuTensorMapEncodeTiled, a `const __grid_constant__`
// parameter.
#ifndef __cuda_cuda_h__
struct alignas(128) CUtensorMap {
  unsigned long long opaque[16];
};
#endif

#endif

// Conversions between a tensor's element type and float, in which every kernel computes; to nearest even.
__device__ __forceinline__ float to_float(float v) {
  return v;
}
__device__ __forceinline__ float to_float(__half v) {
  return __half2float(v);
}
__device__ __forceinline__ float to_float(__nv_bfloat16 v) {
  return __bfloat162float(v);
}

template <class T>
__device__ __forceinline__ T from_float(float v);
template <>
__device__ __forceinline__ float from_float<float>(float v) {
  return v;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}
