// A fiber: a stack of its own and the place where it stopped. On x86-64 the switch is six pushes and six pops; anywhere
// else, or where CNN_EMULATOR_UCONTEXT is defined, it is POSIX's swapcontext, slower but portable.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(CNN_EMULATOR_UCONTEXT)
#define CNN_EMULATOR_UCONTEXT
#endif

#ifdef CNN_EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

// AddressSanitizer must be told of every switch of stacks; g++ and Clang say differently that it is there
#if defined(__SANITIZE_ADDRESS__)
#define EMULATOR_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATOR_ADDRESS_SANITIZER
#endif
#endif

namespace emulator {

struct Context {
#ifdef CNN_EMULATOR_UCONTEXT
  ucontext_t state;
#else
  void* stack_pointer = nullptr;
#endif
  const void* stack = nullptr;  // lowest address
  size_t stack_bytes = 0;
  void* address_sanitizer = nullptr;  // its bookkeeping while the fiber sleeps
};

// Makes `context` start `entry` on the given stack when it is switched to for the first time. `entry` must not return.
void prepare(Context& context, void* stack, size_t stack_bytes, void (*entry)());

// Sleeps in `from`, goes on in `to`. `last` says that nobody will ever switch back to `from`.
void switch_context(Context& from, Context& to, bool last = false);

// Must be the first call of every fiber's entry, with its own context
void entered(Context& own);

}  // namespace emulator
