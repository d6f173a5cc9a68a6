// CUDA's keywords: most mean nothing when every thread is a function call.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

// A kernel has one block of dynamic shared memory, DYN_SMEM: its size is checked, its bytes are poisoned and watched.
// A static array would be none of that, and shared by blocks that run at the same time on several cores.
#define __shared__ \
  _Pragma("GCC error \"the emulator has no static __shared__ arrays: put them into the struct of DYN_SMEM\"")

// Functions of the emulator that run inside kernels but are not the kernel's own memory accesses: the builds that look
// at every access do not instrument them.
#if !defined(CNN_EMULATOR_RACE) && !defined(CNN_EMULATOR_COUNT)
#define EMULATOR_OWN
#elif defined(__clang__)
#define EMULATOR_OWN __attribute__((no_sanitize("thread"), disable_sanitizer_instrumentation))
#else
#define EMULATOR_OWN __attribute__((no_sanitize("thread")))
#endif
