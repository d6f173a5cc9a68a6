// What code compiled with -fsanitize=thread calls at every access. libtsan, which usually answers, is not linked: its
// threads are the system's, ours are fibers.
#include <cstring>

#include "race_state.h"

namespace {
using emulator::race::instrumented;
}

#define EMULATOR_CALLBACK extern "C" __attribute__((visibility("hidden")))

EMULATOR_CALLBACK void __tsan_init() {}
EMULATOR_CALLBACK void __tsan_func_entry(void*) {}
EMULATOR_CALLBACK void __tsan_func_exit() {}

#define EMULATOR_ACCESS(name, bytes)                            \
  EMULATOR_CALLBACK void __tsan_##name##read##bytes(void* p) {  \
    instrumented(p, bytes, false, __builtin_return_address(0)); \
  }                                                             \
  EMULATOR_CALLBACK void __tsan_##name##write##bytes(void* p) { \
    instrumented(p, bytes, true, __builtin_return_address(0));  \
  }
#define EMULATOR_ACCESSES(bytes)     \
  EMULATOR_ACCESS(, bytes)           \
  EMULATOR_ACCESS(unaligned_, bytes) \
  EMULATOR_ACCESS(volatile_, bytes)  \
  EMULATOR_ACCESS(unaligned_volatile_, bytes)

EMULATOR_ACCESSES(1)
EMULATOR_ACCESSES(2)
EMULATOR_ACCESSES(4)
EMULATOR_ACCESSES(8)
EMULATOR_ACCESSES(16)

EMULATOR_CALLBACK void __tsan_read_range(void* p, unsigned long bytes) {
  instrumented(p, bytes, false, __builtin_return_address(0));
}
EMULATOR_CALLBACK void __tsan_write_range(void* p, unsigned long bytes) {
  instrumented(p, bytes, true, __builtin_return_address(0));
}

// Clang instruments the copying functions as well
EMULATOR_CALLBACK void* __tsan_memcpy(void* to, const void* from, unsigned long bytes) {
  instrumented(from, bytes, false, __builtin_return_address(0));
  instrumented(to, bytes, true, __builtin_return_address(0));
  return std::memcpy(to, from, bytes);
}
EMULATOR_CALLBACK void* __tsan_memmove(void* to, const void* from, unsigned long bytes) {
  instrumented(from, bytes, false, __builtin_return_address(0));
  instrumented(to, bytes, true, __builtin_return_address(0));
  return std::memmove(to, from, bytes);
}
EMULATOR_CALLBACK void* __tsan_memset(void* to, int value, unsigned long bytes) {
  instrumented(to, bytes, true, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}
