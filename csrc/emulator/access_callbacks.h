// Instrumented code calls at each of its accesses; what answers is the race checker or the counters.
#pragma once

namespace emulator {

// Memory that is no thread's to share: stacks, threadIdx and its kin, constants and tables of the module
bool is_own(const char* p);

}  // namespace emulator
