// What all launches have cost since the counters were read, by line of the source.
#pragma once

#include "count_cost.h"
#include "source_line.h"

namespace emulator::count {

struct Line {
  Where where = 0;
  Kind kind = Kind::global_load;
  uint32_t amount = 0;  // bytes or multiply-adds of a lane

  bool operator==(const Line& other) const {
    return where == other.where && kind == other.kind && amount == other.amount;
  }
};

struct LineHash {
  size_t operator()(const Line& line) const {
    const size_t all = (line.amount * size_t{64} + static_cast<size_t>(line.kind)) << 32 ^ line.where;
    return all * 0x9e3779b97f4a7c15u;
  }
};

void add_to_totals(const Line& line, const Cost& cost);

}  // namespace emulator::count
