// Fibers take turns: one runs until it has to wait. Ready ones stand in a queue, in the order of the schedule; when the
// queue is empty, and only then, an asynchronous copy is performed; when there is none either, it is a deadlock.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include "count.h"
#include "race.h"
#include "report.h"
#include "worker.h"

#ifdef EMULATOR_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

// how long a block may poll in vain before it is called a deadlock
#ifndef CNN_EMULATOR_PATIENCE_SECONDS
#define CNN_EMULATOR_PATIENCE_SECONDS 10
#endif

namespace emulator {

__thread Thread* self = nullptr;
__thread Worker* worker = nullptr;

void FiberList::push(Fiber* fiber) {
  fiber->next = nullptr;
  (last ? last->next : first) = fiber;
  last = fiber;
}

Fiber* FiberList::pop() {
  Fiber* fiber = first;
  if (fiber && !(first = fiber->next)) last = nullptr;
  return fiber;
}

void FiberList::append(FiberList& other) {
  if (other.empty()) return;
  (last ? last->next : first) = other.first;
  last = other.last;
  other = {};
}

uint64_t Worker::draw() {  // xorshift64: any nonzero state
  random ^= random << 13;
  random ^= random >> 7;
  random ^= random << 17;
  return random;
}

void Worker::shuffle(FiberList& list) {
  if (launch->schedule < 2) return;
  std::vector<Fiber*> order;
  while (Fiber* fiber = list.pop()) order.push_back(fiber);
  for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[draw() % i]);
  for (Fiber* fiber : order) list.push(fiber);
}

void made_progress() {
  worker->idle_turns = 0;
}

void make_ready(FiberList& fibers) {
  for (Fiber* f = fibers.first; f; f = f->next) f->waits_for = nullptr;
  worker->shuffle(fibers);
  worker->ready.append(fibers);
  made_progress();
}

static bool wait_alike(const Fiber& a, const Fiber& b) {
  if (a.block != b.block) return false;
  if (a.finished || b.finished) return a.finished && b.finished;
  return a.waits_for == b.waits_for && a.wait_site.line == b.wait_site.line && a.wait_parity == b.wait_parity &&
         a.wait_barrier == b.wait_barrier;
}

static std::string wait_description(const Fiber& f) {
  if (f.finished) return "returned";
  std::string what = f.waits_for ? f.waits_for : "their turn";
  if (f.wait_barrier) what = text("parity %d of ", f.wait_parity) + mbarrier_state(f.wait_barrier);
  return "waiting for " + what + " at " + place(f.wait_site);
}

// "threads 0-31, 64: waiting for __syncthreads at cuda/conv2d.cuh:12; threads 32-63: returned"; in a cluster each
// begins with its block
static std::string who_waits() {
  const std::vector<Fiber>& fibers = worker->fibers;
  std::vector<bool> told(fibers.size(), false);
  std::string all;
  for (size_t i = 0; i < fibers.size(); i++) {
    if (told[i]) continue;
    std::string numbers;
    for (size_t j = i; j < fibers.size(); j++) {
      if (!wait_alike(fibers[i], fibers[j])) continue;
      const size_t begin = j;
      while (j + 1 < fibers.size() && wait_alike(fibers[i], fibers[j + 1])) j++;
      std::fill(told.begin() + static_cast<long>(begin), told.begin() + static_cast<long>(j) + 1, true);
      numbers += text("%s%d", numbers.empty() ? "" : ", ", fibers[begin].linear);
      if (j > begin) numbers += text("-%d", fibers[j].linear);
    }
    const std::string block = worker->blocks.size() > 1 ? block_name(fibers[i]) + ", " : "";
    all += (all.empty() ? "" : "; ") + block + "threads " + numbers + ": " + wait_description(fibers[i]);
  }
  return all;
}

// In the name of the first thread that waits: the running one may have returned
[[noreturn]] static void report_deadlock() {
  for (Fiber& f : worker->fibers) {
    if (f.finished) continue;
    self = &f;
    break;
  }
  fail_at(kind::deadlock, place(running()->wait_site), "nobody can go on: " + who_waits());
}

// The running fiber cannot go on: who does?
static void switch_away() {
  Fiber* me = running();
  while (worker->ready.empty())
    if (!finish_a_tensor_load()) report_deadlock();
  Fiber* next = worker->ready.pop();
  if (next == me) return;
  self = next;
  switch_context(me->context, next->context, me->finished);
}

void sleep(const char* waits_for, Site site) {
  Fiber* me = running();
  me->waits_for = waits_for;
  me->wait_site = site;
  switch_away();
}

// Polling may wait for another block, on another core, so only time tells a deadlock from patience.
void give_turn(const char* polls_for, Site site) {
  constexpr int kTurnsBetweenLooks = 4096;
  static thread_local std::chrono::steady_clock::time_point idle_since;
  const auto now = std::chrono::steady_clock::now;
  if (worker->idle_turns++ == 0) idle_since = now();
  if (worker->idle_turns > 4 * worker->live && finish_a_tensor_load()) made_progress();
  Fiber* me = running();
  me->waits_for = polls_for;
  me->wait_site = site;
  if (worker->idle_turns % kTurnsBetweenLooks == 0 &&
      std::chrono::duration<double>(now() - idle_since).count() > CNN_EMULATOR_PATIENCE_SECONDS)
    fail_at(kind::deadlock, place(site), "polled in vain: " + who_waits());
  worker->ready.push(me);
  switch_away();
  me->waits_for = nullptr;
}

static void fiber_main() {
  Fiber* me = running();
  entered(me->context);
  worker->launch->run(worker->launch->arguments);
  check_nothing_in_flight();
  me->finished = true;
  me->block->live--;
  worker->live--;
  made_progress();
  leave_rendezvous(me);
  leave_cluster_barrier(me);
  if (worker->live == 0) switch_context(me->context, worker->scheduler, true);
  switch_away();
  __builtin_unreachable();
}

// AddressSanitizer remembers the frames of fibers that never returned; what is mapped there next has none.
static void unmap_stacks(char* stacks, size_t bytes) {
#ifdef EMULATOR_ADDRESS_SANITIZER
  ASAN_UNPOISON_MEMORY_REGION(stacks, bytes);
#endif
  munmap(stacks, bytes);
}

Worker::~Worker() {
  if (stacks) unmap_stacks(stacks, stack_count * (kStackBytes + kStackSpread));
  for (Block& block : blocks) std::free(block.window);
}

void Worker::start(const Launch& next) {
  launch = &next;
  threads = static_cast<int>(next.block.x * next.block.y * next.block.z);
  const int cluster = static_cast<int>(next.cluster.x * next.cluster.y * next.cluster.z), all = cluster * threads;
  if (all > stack_count) {
    const size_t stride = kStackBytes + kStackSpread;
    if (stacks) unmap_stacks(stacks, stack_count * stride);
    void* p = mmap(nullptr, all * stride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    stack_count = p == MAP_FAILED ? 0 : all;
    stacks = p == MAP_FAILED ? nullptr : static_cast<char*>(p);
    if (!stacks) throw std::bad_alloc();
  }
  if (cluster != static_cast<int>(blocks.size()) || next.shared_bytes != shared_bytes)
    allocate_shared(cluster, next.shared_bytes);
  for (Block& block : blocks) {
    block.warps.resize((threads + kWarp - 1) / kWarp);
    block.warpgroups.resize((threads + kWarpgroup - 1) / kWarpgroup);
  }
  fibers.resize(all);
  for (int i = 0; i < all; i++) {
    Fiber& f = fibers[i];
    const int linear = i % threads;
    const unsigned t = static_cast<unsigned>(linear), x = next.block.x, y = next.block.y;
    f.thread_index = {t % x, t / x % y, t / (x * y)};
    f.block_size = next.block;
    f.grid_size = next.grid;
    f.block = &blocks[i / threads];
    f.slot = i;
    f.linear = linear;
    f.lane = linear % kWarp;
    f.warp = linear / kWarp;
  }
}

// Exactly the size asked for; under AddressSanitizer without margins, so that it sees an overrun itself
void Worker::allocate_shared(int cluster, size_t bytes) {
#ifdef EMULATOR_ADDRESS_SANITIZER
  const size_t margin = 0;
#else
  const size_t margin = kSharedMargin;
#endif
  for (Block& block : blocks) std::free(block.window);
  blocks.clear();
  for (int rank = 0; rank < cluster; rank++) {
    void* p = nullptr;
    if (posix_memalign(&p, 1024, bytes + 2 * margin)) throw std::bad_alloc();
    Block& block = blocks.emplace_back();
    block.rank = rank;
    block.window = static_cast<char*>(p);
    block.shared = block.window + margin;
    block.shared_bytes = bytes;
    std::fill(block.window, block.shared, kCanary);
    std::fill(block.shared + bytes, block.shared + bytes + margin, kCanary);
  }
  shared_bytes = bytes;
}

Block* Worker::owner(const void* p) {
  for (Block& block : blocks)
    if (block.owns(p)) return &block;
  return nullptr;
}

uint3 block_index(const Launch& launch, uint64_t linear, int rank) {
  const dim3 size = launch.cluster;
  const uint64_t x = launch.grid.x / size.x, y = launch.grid.y / size.y;  // clusters
  const unsigned r = static_cast<unsigned>(rank);
  return {static_cast<unsigned>(linear % x) * size.x + r % size.x,
          static_cast<unsigned>(linear / x % y) * size.y + r / size.x % size.y,
          static_cast<unsigned>(linear / x / y) * size.z + r / size.x / size.y};
}

void Worker::begin(Block& block, uint3 index) {
  block.index = index;
  block.live = threads;
  block.barrier = {};
  for (Rendezvous& r : block.named) r = {};
  for (Rendezvous& r : block.warpgroups) r = {};
  std::fill(block.shared, block.shared + shared_bytes, kPoison);
  for (size_t w = 0; w < block.warps.size(); w++) {
    const int lanes = std::min<int>(kWarp, threads - static_cast<int>(w) * kWarp);
    block.warps[w].live = lanes == kWarp ? 0xffffffffu : (1u << lanes) - 1;
    block.warps[w].open.clear();
  }
}

bool Worker::run_cluster(uint64_t linear) {
  const int all = static_cast<int>(fibers.size());
  live = all;
  idle_turns = 0;
  error.clear();
  random = (launch->schedule * 0x9e3779b97f4a7c15u) ^ (linear + 1) * 0xbf58476d1ce4e5b9u;
  random |= random == 0;
  ready = {};
  cluster_barrier = {};
  loads.clear();
  for (Block& block : blocks) begin(block, block_index(*launch, linear, block.rank));
  for (int i = 0; i < all; i++) {
    Fiber& f = fibers[launch->schedule == 1 ? all - 1 - i : i];
    f.block_index = f.block->index;
    f.finished = false;
    f.waits_for = nullptr;
    f.wait_site = {};
    f.wait_barrier = nullptr;
    f.wait_parity = 0;
    f.at_cluster_barrier = false;
    f.copies.clear();
    f.stores.clear();
    f.products.clear();
    f.copy_groups = f.store_groups = f.product_groups = 0;
    prepare(f.context, stacks + f.slot * (kStackBytes + kStackSpread), kStackBytes, fiber_main);
    ready.push(&f);
  }
  shuffle(ready);
  race::block_begin();
  count::block_begin();
  Fiber* first = ready.pop();
  self = first;
  switch_context(scheduler, first->context);
  self = nullptr;
  if (error.empty()) error = race::block_end();
  if (error.empty()) count::block_end();
  for (Block& block : blocks)
    if (error.empty()) check_margins(block);
  return error.empty();
}

// Who wrote past shared memory is not known any more, that somebody did is.
void Worker::check_margins(Block& block) {
  const size_t margin = static_cast<size_t>(block.shared - block.window);
  char* const end = block.shared + shared_bytes;
  static const std::string untouched(kSharedMargin, static_cast<char>(kCanary));
  if (!std::memcmp(block.window, untouched.data(), margin) && !std::memcmp(end, untouched.data(), margin)) return;
  const char* after = std::mismatch(end, end + margin, untouched.begin()).first;
  const uint3 index = block.index;
  error = std::string(kind::out_of_bounds) + text(" in block (%u, %u, %u): a thread wrote ", index.x, index.y, index.z);
  error += after < end + margin ? text("%td bytes past the end", after - end) : std::string("before the start");
  error += text(" of shared memory (%zu bytes); the race build names thread and line", shared_bytes);
  std::fill(block.window, block.shared, kCanary);
  std::fill(end, end + margin, kCanary);
}

}  // namespace emulator
