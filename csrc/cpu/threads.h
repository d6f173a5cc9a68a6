// The thread pool and the scratch memory that every kernel uses. Neither knows an operation or an instruction set.
#pragma once
#include <cstddef>

namespace cnn {

// Runs body(context, item) for every item in [0, items), on this thread and the pool's; returns when all are done.
// Which thread takes an item is not determined, so an item must never add to what another item writes. `work` is the
// cost of all items in floating-point operations or bytes: little work, a nested call, or a pool that another
// thread is using, all run inline. Exceptions (std::bad_alloc) of any item are reported as std::bad_alloc.
using Body = void (*)(void* context, long long item);
void run_items(long long items, long long work, Body body, void* context);

// What a piece of scratch memory holds; pieces of different purposes live at the same time.
enum Purpose { PACKED_WEIGHT, WIDENED, PANEL, LAST_BAND, OFFSETS, TAPS, PARTIAL_SUMS, PURPOSES };

// Memory of the calling thread, 64-byte aligned and not initialised; valid until its next call for the same purpose.
// Kept between calls, because pages that the system has just handed out cost more than most kernels.
void* scratch(Purpose purpose, size_t bytes);

int thread_count();
void set_thread_count(int count);  // at least 1
int default_thread_count();        // CNNENGINE_NUM_THREADS, OMP_NUM_THREADS or the CPUs this process may use

}  // namespace cnn
