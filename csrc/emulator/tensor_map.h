// What TMA and wgmma share: the swizzle that keeps both free of bank conflicts.
#pragma once

#include <cstdint>

namespace emulator {

// Where the byte at an offset from a 1024-aligned window lies, when rows of `span` bytes (0, 32, 64 or 128) are
// swizzled
uint32_t swizzled(uint32_t offset, int span);

}  // namespace emulator
