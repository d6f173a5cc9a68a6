// What code compiled with -fsanitize=thread calls at every access. libtsan, which usually answers, is not linked: its
// threads are the system's, ours are fibers.
#include "access_callbacks.h"

#include <link.h>

#include <algorithm>
#include <cstring>

#include "count.h"
#include "race_state.h"
#include "worker.h"

// the shared object's own headers, a name that the linker gives
extern "C" const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

namespace {
#ifdef CNN_EMULATOR_RACE
using emulator::race::instrumented;
constexpr auto instrumented_range = instrumented;
#else
using emulator::count::instrumented;
using emulator::count::instrumented_range;
#endif

bool in_module(const char* p) {
  static const size_t bytes = [] {
    const char* base = reinterpret_cast<const char*>(&__ehdr_start);
    const auto* segment = reinterpret_cast<const ElfW(Phdr)*>(base + __ehdr_start.e_phoff);
    size_t end = 0;
    for (int i = 0; i < __ehdr_start.e_phnum; i++)
      if (segment[i].p_type == PT_LOAD) end = std::max<size_t>(end, segment[i].p_vaddr + segment[i].p_memsz);
    return end;
  }();
  const char* base = reinterpret_cast<const char*>(&__ehdr_start);
  return p >= base && p < base + bytes;
}
}  // namespace

namespace emulator {

bool is_own(const char* p) {
  const auto within = [p](const void* begin, size_t bytes) {
    return p >= static_cast<const char*>(begin) && p < static_cast<const char*>(begin) + bytes;
  };
  return within(worker->stacks, worker->stack_count * (kStackBytes + kStackSpread)) ||
         within(worker->fibers.data(), worker->fibers.size() * sizeof(Fiber)) || within(&self, sizeof(self)) ||
         in_module(p);
}

}  // namespace emulator

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
  instrumented_range(p, bytes, false, __builtin_return_address(0));
}
EMULATOR_CALLBACK void __tsan_write_range(void* p, unsigned long bytes) {
  instrumented_range(p, bytes, true, __builtin_return_address(0));
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
