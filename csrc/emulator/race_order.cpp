// What orders accesses: barriers, mbarriers, atomics with fences. Clusters, or blocks without, are ordered by atomics
// and flags only.
#include <algorithm>
#include <unordered_map>

#include "race.h"
#include "race_clock.h"
#include "race_state.h"
#include "worker.h"

namespace emulator::race {

State state;

static size_t max_barriers() {
  return kMaxBarriers * worker->blocks.size();
}

static void raise(Clocks& a, const Clocks& b) {
  if (a.size() < b.size()) a.resize(b.size(), 0);
  for (size_t i = 0; i < b.size(); i++) a[i] = std::max(a[i], b[i]);
}

void Knowledge::merge(const Knowledge& other) {
  raise(seen, other.seen);
  raise(fenced, other.fenced);
  for (const auto& [block, clocks] : other.other_blocks) raise(other_blocks[block], clocks);
}

// All that the thread knows, its own past included
static Knowledge everything(const Fiber* f) {
  const ThreadClock& clock = state.threads[static_cast<size_t>(f->slot)];
  Knowledge all = *clock.knowledge;
  all.seen[static_cast<size_t>(f->slot)] = clock.own;
  return all;
}

static ThreadClock& clock_of(const Fiber* f) {
  return state.threads[static_cast<size_t>(f->slot)];
}

static void learn(const Fiber* f, const Knowledge& news) {
  ThreadClock& clock = clock_of(f);
  auto more = std::make_shared<Knowledge>(*clock.knowledge);
  more->merge(news);
  clock.knowledge = std::move(more);
}

bool in_the_past(const Access& access, const Fiber* f) {
  const ThreadClock& clock = clock_of(f);
  if (access.block == state.block) {
    return access.slot == f->slot || access.clock <= clock.knowledge->seen[access.slot];
  }
  const auto& others = clock.knowledge->other_blocks;
  const auto found = others.find(access.block);
  return found != others.end() && access.slot < found->second.size() && access.clock <= found->second[access.slot];
}

bool before_a_proxy_fence(const Access& write, const Fiber* f) {
  return write.block != state.block || write.clock <= clock_of(f).knowledge->fenced[write.slot];
}

uint32_t own_clock(const Fiber* f) {
  return clock_of(f).own;
}

void block_begin() {
  const size_t slots = worker->fibers.size() + max_barriers();
  auto nothing = std::make_shared<Knowledge>();
  nothing->seen.assign(slots, 0);
  nothing->fenced.assign(slots, 0);
  state.block++;
  state.threads.assign(worker->fibers.size(), ThreadClock{1, nothing, nothing});
  state.barriers.clear();
  state.accumulators.assign(worker->fibers.size(), {});
  // what lies in shared memory, or in the scheduler, belongs to the block that has ended
  for (auto i = state.told.begin(); i != state.told.end();)
    i = is_global(i->first) ? std::next(i) : state.told.erase(i);
  shadow_block_begin();
}

void launch_begin() {
  state.first_block = state.block + 1;
  state.told.clear();
}

void join(Fiber* first) {
  auto all = std::make_shared<Knowledge>();
  const Knowledge* last = nullptr;  // most members share what they know already
  for (Fiber* f = first; f; f = f->next) {
    const Knowledge* one = clock_of(f).knowledge.get();
    if (one != last) all->merge(*one);
    last = one;
  }
  for (Fiber* f = first; f; f = f->next) {
    uint32_t& entry = all->seen[static_cast<size_t>(f->slot)];
    entry = std::max(entry, clock_of(f).own);
  }
  for (Fiber* f = first; f; f = f->next) {
    clock_of(f).knowledge = all;
    clock_of(f).own++;
  }
}

// ---- objects through which threads talk, also across blocks: named barriers, flags, atomics

// What was told by another block becomes knowledge about that block
static Knowledge& told_through(const void* object) {
  Told& told = state.told[object];
  if (told.block != state.block) {
    if (!told.knowledge.seen.empty()) raise(told.knowledge.other_blocks[told.block], told.knowledge.seen);
    told.knowledge.seen.clear();
    told.knowledge.fenced.clear();
    told.block = state.block;
  }
  return told.knowledge;
}

void release(const void* object) {
  const Fiber* me = running();
  told_through(object).merge(everything(me));
  clock_of(me).own++;
}

void acquire(const void* object) {
  if (state.told.count(object)) learn(running(), told_through(object));
}

// ---- mbarriers: a wait learns what the arrivals of the phase that ended have told

static size_t barrier_slot(const uint64_t* barrier) {
  auto& known = state.barriers;
  size_t i = 0;
  while (i < known.size() && known[i].address != barrier) i++;
  if (i == known.size()) known.push_back({barrier, {}, {}, 0});
  return std::min(i, max_barriers() - 1);
}

void mbarrier_init(const uint64_t* barrier, Site site) {
  BarrierClock& clock = state.barriers[barrier_slot(barrier)];
  clock.arriving = clock.complete = {};
  write(barrier, sizeof(*barrier), site);
}

void mbarrier_arrive(const uint64_t* barrier) {
  const Fiber* me = running();
  state.barriers[barrier_slot(barrier)].arriving.merge(everything(me));
  clock_of(me).own++;
}

void mbarrier_phase_ends(const uint64_t* barrier) {
  const size_t slot = barrier_slot(barrier);
  BarrierClock& clock = state.barriers[slot];
  clock.complete = std::move(clock.arriving);
  clock.arriving = {};
  Clocks& seen = clock.complete.seen;
  const size_t entry = worker->fibers.size() + slot;
  if (seen.size() <= entry) seen.resize(entry + 1, 0);
  seen[entry] = clock.bulk_copies;
}

void mbarrier_wait_ends(const uint64_t* barrier) {
  learn(running(), state.barriers[barrier_slot(barrier)].complete);
}

uint16_t bulk_slot(const uint64_t* barrier) {
  return static_cast<uint16_t>(worker->fibers.size() + barrier_slot(barrier));
}

uint32_t next_bulk_copy(const uint64_t* barrier) {
  return ++state.barriers[barrier_slot(barrier)].bulk_copies;
}

// ---- fences

void async_proxy_fence() {
  ThreadClock& clock = clock_of(running());
  auto more = std::make_shared<Knowledge>(everything(running()));
  more->fenced = more->seen;
  clock.knowledge = std::move(more);
  clock.own++;
}

void memory_fence() {
  ThreadClock& clock = clock_of(running());
  clock.published = std::make_shared<Knowledge>(everything(running()));
  clock.own++;
}

// An atomic operation hears what was told through its address, and tells what its thread knew at its last fence.
void atomic_order(const void* p) {
  acquire(p);
  told_through(p).merge(*clock_of(running()).published);
}

}  // namespace emulator::race
