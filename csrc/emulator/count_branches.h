// Branches at which the lanes of a warp part.
#pragma once

#include <cstddef>

namespace emulator::count {

void begin_ways(size_t threads);  // of a cluster that starts
// The lanes [first, first + lanes), a warp, have met or are at their end: counts the branches on their way here
void walk(int first, int lanes);
void add_branches_to_totals();

}  // namespace emulator::count
