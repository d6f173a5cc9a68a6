// Atomics on shared and global memory. Blocks run on several cores at once, so these are the host's real atomics. The
// overloads are CUDA's and no more: what nvcc would refuse must not compile here.
#pragma once

#include "half.h"
#include "thread.h"

namespace emulator {

// Before every atomic operation: gives other threads a turn where this one spins, checks alignment, tells the race
// checker.
void before_atomic(const void* p, size_t bytes, Site site);
// After one that changed memory: whoever polls may now go on.
void atomic_changed();
uint32_t flag_load(const uint32_t* flag, Site site);
void flag_store(uint32_t* flag, uint32_t value, Site site);
void memory_fence(bool device, Site site);
void pause_thread(Site site);

template <class T>
EMULATOR_OWN inline T atomic_exchange(T* p, T value, Site site) {
  before_atomic(p, sizeof(T), site);
  T old;
  __atomic_exchange(p, &value, &old, __ATOMIC_SEQ_CST);
  if (std::memcmp(&old, &value, sizeof(T))) atomic_changed();
  return old;
}

// `expected` becomes the old value
template <class T>
EMULATOR_OWN inline T atomic_compare_exchange(T* p, T expected, T value, Site site) {
  before_atomic(p, sizeof(T), site);
  if (__atomic_compare_exchange(p, &expected, &value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) atomic_changed();
  return expected;
}

// Replaces *p by change(*p), whatever other cores do meanwhile; returns the old value
template <class T, class Change>
EMULATOR_OWN inline T atomic_update(T* p, Site site, Change change) {
  before_atomic(p, sizeof(T), site);
  T old, next;
  __atomic_load(p, &old, __ATOMIC_SEQ_CST);
  do {
    next = change(old);
  } while (!__atomic_compare_exchange(p, &old, &next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  if (std::memcmp(&old, &next, sizeof(T))) atomic_changed();
  return old;
}

// Two's-complement addition, which may wrap as it does on the GPU
template <class T>
struct Wrapping;
template <>
struct Wrapping<int> {
  using type = unsigned;
};
template <>
struct Wrapping<unsigned> {
  using type = unsigned;
};
template <>
struct Wrapping<unsigned long long> {
  using type = unsigned long long;
};
template <class T>
inline T wrapping_add(T a, T b) {
  using U = typename Wrapping<T>::type;
  return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
}

}  // namespace emulator

// name(T* p, T v): *p = expression of old and v
#define EMULATOR_ATOMIC(name, T, expression)                                         \
  EMULATOR_OWN inline T name(T* p, T v, emulator::Site site = emulator::here()) {    \
    return emulator::atomic_update(p, site, [v](T old) -> T { return expression; }); \
  }

EMULATOR_ATOMIC(atomicAdd, int, emulator::wrapping_add(old, v))
EMULATOR_ATOMIC(atomicAdd, unsigned, old + v)
EMULATOR_ATOMIC(atomicAdd, unsigned long long, old + v)
EMULATOR_ATOMIC(atomicAdd, float, old + v)
EMULATOR_ATOMIC(atomicAdd, double, old + v)
EMULATOR_ATOMIC(atomicAdd, __half, old + v)
EMULATOR_ATOMIC(atomicSub, int, emulator::wrapping_add(old, emulator::wrapping_add(~v, 1)))
EMULATOR_ATOMIC(atomicSub, unsigned, old - v)
EMULATOR_ATOMIC(atomicMax, int, v > old ? v : old)
EMULATOR_ATOMIC(atomicMax, unsigned, v > old ? v : old)
EMULATOR_ATOMIC(atomicMax, unsigned long long, v > old ? v : old)
EMULATOR_ATOMIC(atomicMax, long long, v > old ? v : old)
EMULATOR_ATOMIC(atomicMin, int, v < old ? v : old)
EMULATOR_ATOMIC(atomicMin, unsigned, v < old ? v : old)
EMULATOR_ATOMIC(atomicMin, unsigned long long, v < old ? v : old)
EMULATOR_ATOMIC(atomicMin, long long, v < old ? v : old)
EMULATOR_ATOMIC(atomicAnd, int, old& v)
EMULATOR_ATOMIC(atomicAnd, unsigned, old& v)
EMULATOR_ATOMIC(atomicOr, int, old | v)
EMULATOR_ATOMIC(atomicOr, unsigned, old | v)
EMULATOR_ATOMIC(atomicXor, int, old ^ v)
EMULATOR_ATOMIC(atomicXor, unsigned, old ^ v)
EMULATOR_ATOMIC(atomicInc, unsigned, old >= v ? 0u : old + 1u)
EMULATOR_ATOMIC(atomicDec, unsigned, old == 0u || old > v ? v : old - 1u)
#undef EMULATOR_ATOMIC

#define EMULATOR_ATOMIC_EXCHANGE(T)                                                     \
  EMULATOR_OWN inline T atomicExch(T* p, T v, emulator::Site site = emulator::here()) { \
    return emulator::atomic_exchange(p, v, site);                                       \
  }
EMULATOR_ATOMIC_EXCHANGE(int)
EMULATOR_ATOMIC_EXCHANGE(unsigned)
EMULATOR_ATOMIC_EXCHANGE(unsigned long long)
EMULATOR_ATOMIC_EXCHANGE(float)
#undef EMULATOR_ATOMIC_EXCHANGE

#define EMULATOR_ATOMIC_COMPARE(T)                                                                \
  EMULATOR_OWN inline T atomicCAS(T* p, T compare, T v, emulator::Site site = emulator::here()) { \
    return emulator::atomic_compare_exchange(p, compare, v, site);                                \
  }
EMULATOR_ATOMIC_COMPARE(int)
EMULATOR_ATOMIC_COMPARE(unsigned)
EMULATOR_ATOMIC_COMPARE(unsigned long long)
EMULATOR_ATOMIC_COMPARE(unsigned short)
#undef EMULATOR_ATOMIC_COMPARE

inline void __threadfence(emulator::Site site = emulator::here()) {
  emulator::memory_fence(true, site);
}
inline void __threadfence_block(emulator::Site site = emulator::here()) {
  emulator::memory_fence(false, site);
}
inline void __nanosleep(unsigned, emulator::Site site = emulator::here()) {
  emulator::pause_thread(site);
}
