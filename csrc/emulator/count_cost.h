// One warp instruction, and what it costs.
#pragma once

#include "count.h"
#include "worker.h"

namespace emulator::count {

// A warp's lanes that executed an instruction together; their addresses
struct Request {
  unsigned lanes = 0;  // bit l: lane l
  const char* address[kWarp] = {};
  int traced = -1;  // its number in the trace
};

struct Cost {
  uint64_t requests = 0;  // warp instructions
  uint64_t partial = 0;   // of them, those that not all of the warp's lanes executed
  uint64_t lanes = 0;     // executions, summed over the lanes
  uint64_t amount = 0;    // bytes or multiply-adds, summed over the lanes
  uint64_t sectors = 0, ideal_sectors = 0;
  uint64_t wavefronts = 0, least_wavefronts = 0;

  void add(const Cost& other);
};

// `amount` a lane, `shared` the start of the block's shared memory
Cost cost(const Request& request, Kind kind, size_t amount, unsigned lanes_of_warp, const char* shared);

}  // namespace emulator::count
