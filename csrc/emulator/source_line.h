// A place in the source in 32 bits, as the race checker and the counters remember it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "thread.h"

namespace emulator {

// A code address relative to the module, or the number of a Site
using Where = uint32_t;
Where where_of(Site site);
Where where_of(const void* code);                // where a call returns to
std::string place(Where where);                  // "conv2d.cuh:33"
bool is_of_kernel(Where where);                  // by look_up: not in a function of the emulator that was inlined there
void look_up(const std::vector<Where>& places);  // many at once, before place() is asked for each

}  // namespace emulator
