// Where threads meet: barriers of the block, and the collectives of a warp. Each records the source line of the call.
#pragma once

#include "intrinsics.h"
#include "thread.h"

namespace emulator {

enum class Count { none, count, all, any };

int block_barrier(Count kind, bool predicate, Site site);
void named_barrier(int id, int threads, bool wait, Site site);
void warp_barrier(unsigned mask, Site site);
unsigned warp_ballot(unsigned mask, bool predicate, Site site);
bool warp_elect(Site site);
unsigned warp_match(unsigned mask, uint64_t value, Site site);

enum class Shuffle { index, up, down, exclusive_or };

// Every lane of `mask` gives 8 bytes and receives those of another lane; 0xFF bytes, a NaN, where that lane gave none.
uint64_t warp_shuffle(Shuffle kind, unsigned mask, uint64_t value, int argument, int width, Site site);

template <class T>
inline T shuffle(Shuffle kind, unsigned mask, T value, int argument, int width, Site site) {
  static_assert(sizeof(T) <= 8, "shuffles move 1, 2, 4 or 8 bytes");
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = warp_shuffle(kind, mask, word, argument, width, site);
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

}  // namespace emulator

inline void __syncthreads(emulator::Site site = emulator::here()) {
  emulator::block_barrier(emulator::Count::none, false, site);
}
inline int __syncthreads_count(int predicate, emulator::Site site = emulator::here()) {
  return emulator::block_barrier(emulator::Count::count, predicate, site);
}
inline int __syncthreads_and(int predicate, emulator::Site site = emulator::here()) {
  return emulator::block_barrier(emulator::Count::all, predicate, site);
}
inline int __syncthreads_or(int predicate, emulator::Site site = emulator::here()) {
  return emulator::block_barrier(emulator::Count::any, predicate, site);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, emulator::Site site = emulator::here()) {
  emulator::warp_barrier(mask, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, emulator::Site site = emulator::here()) {
  return emulator::warp_ballot(mask, predicate, site);
}
inline int __any_sync(unsigned mask, int predicate, emulator::Site site = emulator::here()) {
  return emulator::warp_ballot(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emulator::Site site = emulator::here()) {
  return emulator::warp_ballot(mask, !predicate, site) == 0;
}
template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, emulator::Site site = emulator::here()) {
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return emulator::warp_match(mask, word, site);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, emulator::Site site = emulator::here()) {
  return emulator::shuffle(emulator::Shuffle::index, mask, value, lane, width, site);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                        emulator::Site site = emulator::here()) {
  return emulator::shuffle(emulator::Shuffle::up, mask, value, static_cast<int>(delta), width, site);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                          emulator::Site site = emulator::here()) {
  return emulator::shuffle(emulator::Shuffle::down, mask, value, static_cast<int>(delta), width, site);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                         emulator::Site site = emulator::here()) {
  return emulator::shuffle(emulator::Shuffle::exclusive_or, mask, value, lane_mask, width, site);
}
