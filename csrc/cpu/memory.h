// Where the native backend's memory comes from: a pool of blocks for the arrays it hands out, and scratch memory of the
// threads. Both keep what is given back, since pages that the system has just handed out cost more than most kernels.
#pragma once
#include <cstddef>

namespace cnn {

// ---- blocks of arrays

struct Block;

// A block of at least `bytes`, 64-byte aligned and not initialised: the one of its size class that was given back last,
// else a new one. Classes divide each doubling into eight, so at most an eighth of a block is unused; blocks from 2 MB
// on lie on huge pages where the system has them. Throws std::bad_alloc. Safe from any thread and across fork.
Block* take_block(size_t bytes);
void* memory_of(const Block*);

// Keeps the block for its class's next request. Blocks in use and kept ones together stay within the limit: blocks that
// were given back longest ago are freed first, and where the blocks in use alone pass the limit none are kept.
void give_back(Block*) noexcept;

struct MemoryStats {
  size_t in_use, cached, peak, limit;  // bytes; peak: the most in use at any time
  size_t allocations, reuses;          // blocks that came from the system, blocks that were kept and taken again
};
MemoryStats memory_stats();
void set_memory_limit(size_t bytes);  // starts as CNNENGINE_MEMORY_LIMIT, else half of the memory there is
void free_cached_blocks() noexcept;

// ---- scratch memory

// What a piece of scratch memory holds; pieces of different purposes live at the same time.
enum Purpose {
  PACKED_WEIGHT,
  NEAR_WEIGHT,
  WIDENED,
  PANEL,
  LAST_BAND,
  OFFSETS,
  PIXELS,
  RUNS,
  TAPS,
  PARTIAL_SUMS,
  COLUMN_TOTALS,
  COEFFICIENTS,
  PURPOSES
};

// Weights packed or transformed, partial sums of their gradients, numbers a channel; what else there is comes from
// activations.
inline bool holds_weights(Purpose purpose) {
  return purpose == PACKED_WEIGHT || purpose == NEAR_WEIGHT || purpose == WIDENED || purpose == PARTIAL_SUMS ||
         purpose == COLUMN_TOTALS || purpose == COEFFICIENTS;
}

// Memory of the calling thread, 64-byte aligned and not initialised; valid until its next call for the same purpose.
// Kept until the thread ends.
void* scratch(Purpose purpose, size_t bytes);
void free_own_scratch() noexcept;  // of the calling thread

// Bytes of scratch memory, of all threads together: what they hold now, and what the calls since the last
// start_measuring() have asked for (a thread's largest request for each purpose).
struct ScratchBytes {
  size_t activations, weights;
};
ScratchBytes scratch_held();
void start_measuring();
ScratchBytes scratch_measured();

}  // namespace cnn
