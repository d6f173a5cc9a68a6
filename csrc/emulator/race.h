// The race checker's side of the run-time part: what orders accesses, and the accesses that no instrumented code makes.
// In builds without the checker all of it is nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "thread.h"

namespace emulator {

struct Fiber;
struct PendingCopy;
struct PendingTensorCopy;

namespace race {

#ifdef CNN_EMULATOR_RACE

constexpr bool kEnabled = true;
void launch_begin();
void block_begin();
std::string block_end();  // a report that waited until now, or nothing
void join(Fiber* first);  // a barrier among a list of fibers
void release(const void* object);
void acquire(const void* object);
void memory_fence();
void atomic(const void* p, size_t bytes, Site site);
void flag_loaded(const void* p, size_t bytes, Site site);
void flag_stored(const void* p, size_t bytes, Site site);
void mbarrier_init(const uint64_t* barrier, Site site);
void mbarrier_used(const uint64_t* barrier, Site site);
void mbarrier_arrive(const uint64_t* barrier);
void mbarrier_phase_ends(const uint64_t* barrier);
void mbarrier_wait_ends(const uint64_t* barrier);
void read(const void* p, size_t bytes, Site site);
void write(const void* p, size_t bytes, Site site);
void copy_issued(const PendingCopy& copy);
void copy_performed(const PendingCopy& copy);
void tensor_load_issued(const PendingTensorCopy& copy, size_t bytes);
void tensor_load_reads(const void* global, size_t bytes, Site site);
void tensor_load_performed(const PendingTensorCopy& copy, size_t bytes);
void tensor_store_writes(const void* global, size_t bytes, Site site);
void async_proxy_fence();
void async_read(const void* shared, size_t bytes, bool wgmma, Site site);  // by wgmma or a bulk store, when issued
void async_read_ends(const Fiber* by, const void* shared, size_t bytes, Site site);
void wgmma_fence();
void accumulators_issued(const float* d, int count, Site site);
void accumulators_done(const Fiber* fiber, size_t products);

#else

constexpr bool kEnabled = false;
inline void launch_begin() {}
inline void block_begin() {}
inline std::string block_end() {
  return {};
}
inline void join(Fiber*) {}
inline void release(const void*) {}
inline void acquire(const void*) {}
inline void memory_fence() {}
inline void atomic(const void*, size_t, Site) {}
inline void flag_loaded(const void*, size_t, Site) {}
inline void flag_stored(const void*, size_t, Site) {}
inline void mbarrier_init(const uint64_t*, Site) {}
inline void mbarrier_used(const uint64_t*, Site) {}
inline void mbarrier_arrive(const uint64_t*) {}
inline void mbarrier_phase_ends(const uint64_t*) {}
inline void mbarrier_wait_ends(const uint64_t*) {}
inline void read(const void*, size_t, Site) {}
inline void write(const void*, size_t, Site) {}
inline void copy_issued(const PendingCopy&) {}
inline void copy_performed(const PendingCopy&) {}
inline void tensor_load_issued(const PendingTensorCopy&, size_t) {}
inline void tensor_load_reads(const void*, size_t, Site) {}
inline void tensor_load_performed(const PendingTensorCopy&, size_t) {}
inline void tensor_store_writes(const void*, size_t, Site) {}
inline void async_proxy_fence() {}
inline void async_read(const void*, size_t, bool, Site) {}
inline void async_read_ends(const Fiber*, const void*, size_t, Site) {}
inline void wgmma_fence() {}
inline void accumulators_issued(const float*, int, Site) {}
inline void accumulators_done(const Fiber*, size_t) {}

#endif

}  // namespace race
}  // namespace emulator
