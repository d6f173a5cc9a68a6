// What the race checker remembers of every byte.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "source_line.h"

namespace emulator::race {

struct Access {
  uint32_t clock;
  uint32_t block;  // serial number over all launches; 0 is no access
  Where where;
  uint16_t slot;  // thread, or behind them an mbarrier
  bool atomic;
  bool generic;  // written by a thread, not by a bulk copy
};

struct Byte {
  Access write;
  Access reads[3];  // some of the latest: those that are not yet ordered are kept if there is room
};

// Of shared memory only
struct SharedByte {
  bool written;
  bool copy_in_flight;  // a cp.async or bulk load will write it
  bool bulk;            // which of the two
  bool read_by_wgmma;   // else by a bulk store
  uint16_t readers;     // wgmmas (one for each warp) and bulk stores in flight that read it
  Where copy_where, reader_where;
};

// Memory that a kernel may touch
struct Range {
  char* begin;
  char* end;
  std::string name;
  Byte* bytes;
};

}  // namespace emulator::race
