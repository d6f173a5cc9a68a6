// Shared memory, fences, and what every atomic operation does first.
#include <algorithm>

#include "atomics.h"
#include "count.h"
#include "race.h"
#include "report.h"
#include "worker.h"

namespace emulator {

void* dynamic_shared(size_t bytes_of_type, Site site) {
  if (bytes_of_type > worker->shared_bytes)
    fail(kind::bad_launch, site, "the kernel's shared memory is %zu bytes, the launch gave %zu", bytes_of_type,
         worker->shared_bytes);
  return this_block().shared;
}

uint32_t shared_offset(const void* p, Site site) {
  const char* address = static_cast<const char*>(p);
  const Block& block = this_block();
  if (address < block.shared || address > block.shared + block.shared_bytes)
    fail(kind::out_of_bounds, site,
         "an instruction on shared memory was given an address that is not in the block's %zu bytes",
         block.shared_bytes);
  return static_cast<uint32_t>(address - block.shared);
}

void before_atomic(const void* p, size_t bytes, Site site) {
  constexpr int kOperationsInARow = 64;  // a spinning thread must let the one it waits for run
  if (reinterpret_cast<uintptr_t>(p) % bytes)
    fail(kind::misaligned, site, "an atomic operation of %zu bytes at an address that is no multiple of it", bytes);
  static thread_local int operations = 0;
  if (++operations % kOperationsInARow == 0) give_turn("an atomic operation", site);
  race::atomic(p, bytes, site);
  const count::Kind kind = this_block().owns(p) ? count::Kind::shared_atomic : count::Kind::global_atomic;
  count::executed(kind, bytes, p, site, nullptr);
}

void atomic_changed() {
  made_progress();
}

uint32_t flag_load(const uint32_t* flag, Site site) {
  pause_thread(site);
  race::flag_loaded(flag, sizeof(*flag), site);
  return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

void flag_store(uint32_t* flag, uint32_t value, Site site) {
  race::flag_stored(flag, sizeof(*flag), site);
  __atomic_store_n(flag, value, __ATOMIC_RELEASE);
  atomic_changed();
}

void memory_fence(bool, Site) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  race::memory_fence();
}

void pause_thread(Site site) {
  give_turn("__nanosleep", site);
}

}  // namespace emulator
