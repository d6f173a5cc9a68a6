// The counters' side of the run-time part: what a warp's instructions cost. In builds without them all of it is
// nothing. docs/emulator.md has the model.
#pragma once

#include <cstddef>
#include <cstdint>

#include "thread.h"

namespace emulator {

struct Rendezvous;

namespace count {

enum class Kind : uint8_t {
  // memory; `amount` is the bytes of a lane
  global_load,
  global_store,
  global_atomic,
  global_copy,  // what cp.async reads
  shared_load,
  shared_store,
  shared_atomic,
  shared_copy,  // what cp.async writes
  ldmatrix,
  stmatrix,
  bulk_load,
  bulk_store,
  // products; `amount` is a lane's share of the multiply-adds
  mma,
  wgmma,
  // meetings and waits
  block_barrier,
  named_barrier,
  warp_barrier,
  warp_exchange,  // shuffles, votes, matches
  mbarrier_wait,
  // of all, those at which lanes went different ways
  branch,
};

#ifdef CNN_EMULATOR_COUNT

constexpr bool kEnabled = true;
// The running thread executes an instruction of the run-time part, called from `code`. `p` is what it reads or writes.
void executed(Kind kind, size_t amount, const void* p, Site site, const void* code);
// An access by instrumented code of the running thread, `code` being where
void instrumented(const void* p, size_t bytes, bool is_write, const void* code);
// The same of a struct that is no single access on a GPU
void instrumented_range(const void* p, size_t bytes, bool is_write, const void* code);
void block_begin();
void block_end();
void met(const Rendezvous& rendezvous);  // before anybody goes on

#else

constexpr bool kEnabled = false;
inline void executed(Kind, size_t, const void*, Site, const void*) {}
inline void block_begin() {}
inline void block_end() {}
inline void met(const Rendezvous&) {}

#endif

}  // namespace count
}  // namespace emulator
