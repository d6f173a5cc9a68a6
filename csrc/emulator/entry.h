// The table that connects a family's kernels, compiled from its .cuh, with the run-time part. cnnengine/jit/host.py
// writes one translation unit per family: the .cuh and a list of EMULATOR_KERNEL.
#pragma once

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#include "qualifiers.h"

namespace emulator {

// The argument of type T at an address that need not be aligned
template <class T>
EMULATOR_OWN inline T argument_at(const void* p) {
  static_assert(std::is_trivially_copyable_v<T>, "kernel arguments are passed as bytes");
  alignas(T) unsigned char bytes[sizeof(T)];
  std::memcpy(bytes, p, sizeof(T));
  return *reinterpret_cast<T*>(bytes);
}

// arguments[i] points at argument i, as in cuLaunchKernel's kernelParams
template <class... A, size_t... I>
EMULATOR_OWN void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(argument_at<std::remove_cv_t<A>>(arguments[I])...);
}

template <class... A>
EMULATOR_OWN void call(void (*kernel)(A...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<A...>{});
}

struct Kernel {
  const char* name;
  void (*run)(void** arguments);  // one thread's whole life
};

}  // namespace emulator

// Outside of the namespace, so that kernels may have any names
extern const emulator::Kernel cnn_emulator_kernels[];
extern const int cnn_emulator_kernel_count;

// variadic, because a kernel's template arguments hold commas
#define EMULATOR_KERNEL(...) \
  {#__VA_ARGS__, [](void** emulator_packed) EMULATOR_OWN { ::emulator::call(__VA_ARGS__, emulator_packed); }}
