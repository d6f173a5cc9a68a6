// The accumulators of wgmma. On the GPU they are registers; here they lie on the thread's stack, where the instrumented
// code touches them. They belong to wgmma from its issue to the wait, and a wgmma.fence must lie between a write by the
// thread and the next wgmma.
#include <sys/mman.h>

#include <algorithm>

#include "race.h"
#include "race_state.h"
#include "report.h"
#include "worker.h"

namespace emulator::race {

// One mark for each word of every thread's stack: the fence count at its last write. The kernel's pages of it exist
// where they are used.
static uint32_t* stack_marks(const Fiber* f) {
  constexpr size_t kWords = kStackBytes / sizeof(uint32_t);
  static uint32_t* marks = nullptr;
  static size_t threads = 0;  // that there is room for
  if (threads < worker->fibers.size()) {
    const auto bytes = [](size_t count) { return count * kWords * sizeof(uint32_t); };
    if (marks) munmap(marks, bytes(threads));
    threads = std::max<size_t>(kMaxThreads, worker->fibers.size());
    void* p = mmap(nullptr, bytes(threads), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    marks = p == MAP_FAILED ? nullptr : static_cast<uint32_t*>(p);
  }
  return marks ? marks + static_cast<size_t>(f->slot) * kWords : nullptr;
}

static size_t word_of(const Fiber* f, const void* p) {
  return static_cast<size_t>(static_cast<const char*>(p) - static_cast<const char*>(f->context.stack)) /
         sizeof(uint32_t);
}

static bool on_stack(const Fiber* f, const void* p) {
  const char* stack = static_cast<const char*>(f->context.stack);
  return p >= stack && p < stack + kStackBytes;
}

void own_stack(const char* p, size_t bytes, bool is_write, const void* code) {
  const Fiber* me = running();
  ThreadAccumulators& mine = state.accumulators[static_cast<size_t>(me->slot)];
  for (const Accumulators& one : mine.in_flight) {
    if (p < reinterpret_cast<const char*>(one.end) && p + bytes > reinterpret_cast<const char*>(one.begin))
      fail_at(kind::wgmma_wait, place(where_of(code)),
              text("the %s of an accumulator that the wgmma issued at %s still works on", is_write ? "write" : "read",
                   place(one.site).c_str()));
  }
  uint32_t* marks = stack_marks(me);
  if (!is_write || !marks) return;
  for (size_t i = word_of(me, p); i <= word_of(me, p + bytes - 1); i++) marks[i] = mine.fences;
}

void wgmma_fence() {
  ThreadAccumulators& mine = state.accumulators[static_cast<size_t>(running()->slot)];
  mine.fenced = true;
  mine.fences = ++state.fences;
}

void accumulators_issued(const float* d, int count, Site site) {
  const Fiber* me = running();
  ThreadAccumulators& mine = state.accumulators[static_cast<size_t>(me->slot)];
  if (!mine.fenced) fail(kind::wgmma_fence, site, "the thread's first wgmma has no wgmma.fence before it");
  const uint32_t* marks = stack_marks(me);
  if (marks && on_stack(me, d)) {
    const size_t first = word_of(me, d);
    for (size_t i = 0; i < static_cast<size_t>(count); i++)
      if (marks[first + i] == mine.fences)
        fail(kind::wgmma_fence, site, "accumulator %zu was written after the last wgmma.fence", i);
  }
  mine.in_flight.push_back({d, d + count, site});
}

void accumulators_done(const Fiber* fiber, size_t products) {
  auto& in_flight = state.accumulators[static_cast<size_t>(fiber->slot)].in_flight;
  in_flight.erase(in_flight.begin(), in_flight.begin() + static_cast<long>(std::min(products, in_flight.size())));
}

}  // namespace emulator::race
