// What an emulated CUDA thread knows of itself: threadIdx and its kin, and the block's shared memory.
#pragma once

#include "qualifiers.h"
#include "vector_types.h"

namespace emulator {

// A place in the kernel's source. As a default argument, `here()` is the place of the call.
struct Site {
  const char* file;
  int line;
};
constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return {file, line};
}

struct Thread {
  uint3 thread_index, block_index;
  dim3 block_size, grid_size;
};

// The thread that runs now on this core. Fibers never change cores, so its address may be kept over a switch. No
// tls_model: memory for "initial-exec" ends after some dozens of loaded families.
extern __thread Thread* self;

// The block's shared memory; fails where the launch gave less than one T.
void* dynamic_shared(size_t bytes_of_type, Site site);

// A shared-memory address as PTX has it: an offset from the start of the block's window. Fails where p is not in it.
uint32_t shared_offset(const void* p, Site site);

[[noreturn]] void trap(Site site);

}  // namespace emulator

[[noreturn]] inline void __trap(emulator::Site site = emulator::here()) {
  emulator::trap(site);
}

#define threadIdx (::emulator::self->thread_index)
#define blockIdx (::emulator::self->block_index)
#define blockDim (::emulator::self->block_size)
#define gridDim (::emulator::self->grid_size)
constexpr int warpSize = 32;

#define DYN_SMEM(T, name) T* name = static_cast<T*>(::emulator::dynamic_shared(sizeof(T), ::emulator::here()))
