// What a thread knows of the others' past: vector clocks. A thread's own clock advances whenever it tells somebody; an
// access at clock c by thread s lies in the past of a thread t where t has heard of s's clock c.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace emulator::race {

// One for each thread of the block, then one for each mbarrier, in whose name bulk copies write
using Clocks = std::vector<uint32_t>;

struct Knowledge {
  Clocks seen;    // of this block's threads and mbarriers
  Clocks fenced;  // the part of it that lies before a fence.proxy.async
  std::map<uint32_t, Clocks> other_blocks;

  void merge(const Knowledge& other);
};

// Threads that left a barrier together share what they know
using Shared = std::shared_ptr<const Knowledge>;

struct ThreadClock {
  uint32_t own = 1;
  Shared knowledge;
  Shared published;  // what an atomic operation tells others: the knowledge at the last __threadfence
};

}  // namespace emulator::race
