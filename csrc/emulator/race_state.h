// The race checker's state. There is one: in the race build a launch runs its clusters one after the other on one core.
// Where this speaks of a block, blocks of a cluster count as one.
#pragma once

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "race_clock.h"
#include "race_shadow.h"

namespace emulator {
struct Fiber;
}

namespace emulator::race {

constexpr size_t kMaxBarriers = 64;  // mbarriers of a block that are told apart

struct BarrierClock {
  const uint64_t* address;
  Knowledge arriving, complete;  // of the phase that runs, and of the one before
  uint32_t bulk_copies;          // that were completed on it
};

struct Told {
  uint32_t block = 0;
  Knowledge knowledge;
};

// Registers that wgmma reads and writes until the thread waits
struct Accumulators {
  const float* begin;
  const float* end;
  Site site;
};

struct ThreadAccumulators {
  bool fenced = false;  // a wgmma.fence in this block
  uint32_t fences = 0;  // a word of the stack is dirty where its mark equals this
  std::vector<Accumulators> in_flight;
};

struct State {
  uint32_t block = 0;        // serial number of the block that runs
  uint32_t first_block = 1;  // of its launch; earlier accesses are ordered by the end of theirs
  std::vector<ThreadClock> threads;
  std::vector<BarrierClock> barriers;
  std::unordered_map<const void*, Told> told;
  std::vector<ThreadAccumulators> accumulators;
  uint32_t fences = 0;  // wgmma fences of all threads and launches
};
extern State state;

bool in_the_past(const Access& access, const Fiber* f);
bool before_a_proxy_fence(const Access& write, const Fiber* f);
uint32_t own_clock(const Fiber* f);
uint16_t bulk_slot(const uint64_t* barrier);
uint32_t next_bulk_copy(const uint64_t* barrier);

void shadow_block_begin();
bool is_global(const void* p);  // in memory that was given to cnn_emulator_watch

void atomic_order(const void* p);
void own_stack(const char* p, size_t bytes, bool is_write, const void* code);

// An access by instrumented code of the running thread, `code` being where
void instrumented(const void* p, size_t bytes, bool is_write, const void* code);

}  // namespace emulator::race
