// The trace: every warp request of one block, in order, with the address and the bytes of each lane. It is a part of
// the build that counts, off until cnn_emulator_trace asks for a block; cnnengine/jit/trace.py reads it.
#pragma once

#include "count_cost.h"
#include "count_totals.h"

namespace emulator::trace {

// Whether the block of this fiber is traced in this launch
bool wanted(const Fiber& fiber);
// The running lane takes part in a request, which has `number` in the trace, or gets it. `p`: what it reads or writes
void executed(int& number, const count::Line& line, const void* code, const void* p);
// What the lanes of a request have cost together
void cost(int number, const count::Cost& cost);
// All lanes of a warp have met: the order of their requests is known
void section_ends(int warp);

}  // namespace emulator::trace
