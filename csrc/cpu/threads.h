// The thread pool that every kernel uses. It knows no operation and no instruction set.
#pragma once

namespace cnn {

// Runs body(context, item) for every item in [0, items), on this thread and the pool's; returns when all are done.
// Which thread takes an item is not determined, so an item must never add to what another item writes. `work` is the
// cost of all items in floating-point operations or bytes: little work, a nested call, or a pool that another
// thread is using, all run inline. Exceptions (std::bad_alloc) of any item are reported as std::bad_alloc.
using Body = void (*)(void* context, long long item);
void run_items(long long items, long long work, Body body, void* context);

int thread_count();
void set_thread_count(int count);  // at least 1
void stop_workers();               // until the next call that needs them; frees their scratch memory
int default_thread_count();        // CNNENGINE_NUM_THREADS, OMP_NUM_THREADS or the CPUs this process may use

}  // namespace cnn
