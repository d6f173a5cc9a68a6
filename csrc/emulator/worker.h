// The run-time part's own structures: a worker is one core's share of the machine, on which one cluster of blocks runs
// at a time; without clusters, one block.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "asynchronous.h"
#include "cluster.h"
#include "collectives.h"
#include "fiber.h"
#include "tensor_cores.h"
#include "thread.h"

namespace emulator {

constexpr int kWarp = 32;
constexpr int kWarpgroup = 128;
constexpr int kMaxThreads = 1024;
constexpr int kNamedBarriers = 16;
constexpr int kMaxCluster = 8;             // blocks, what every GPU with clusters can run
constexpr size_t kMaxShared = 227 * 1024;  // what a block of sm_90 may ask for
// on both sides of shared memory, so that an overrun hurts nobody: looked at after each block, or, in the race build,
// wide enough to tell an access beyond shared memory from one that is lost altogether
#ifdef CNN_EMULATOR_RACE
constexpr size_t kSharedMargin = 64 * 1024;
#else
constexpr size_t kSharedMargin = 4 * 1024;
#endif
constexpr size_t kStackBytes = 256 * 1024;
constexpr size_t kStackSpread = 320;     // between stacks, so that their hot ends do not fall into the same cache sets
constexpr unsigned char kPoison = 0xff;  // uninitialised shared memory: NaN as a float, -1 as an int
constexpr unsigned char kCanary = 0xa5;  // the margins

struct Block;
struct Fiber;

// Fibers in order, linked through Fiber::next
struct FiberList {
  Fiber* first = nullptr;
  Fiber* last = nullptr;
  bool empty() const { return first == nullptr; }
  void push(Fiber* fiber);
  Fiber* pop();
  void append(FiberList& other);  // takes all of other's
};

// A cp.async that was issued but not performed
struct PendingCopy {
  void* shared;
  const void* global;
  int bytes;
  bool copy;
  int group;
  Site site;
};

// A bulk tensor copy that was issued but not performed
struct PendingTensorCopy {
  CUtensorMap map;
  Block* block;  // whose shared memory the tile is in
  char* shared;
  int coordinate[5];
  int offset[2];      // of an im2col load, along w and h
  uint64_t* barrier;  // of a load
  int group;          // of a store
  Site site;
};

// One thread's part of a wgmma that was issued but not performed
struct PendingProduct {
  WarpgroupProduct product;
  float* d;
  uint64_t a, b;
  int group;
  Site site;
};

struct Fiber : Thread {
  Block* block;
  int slot;                // in the cluster
  int linear, lane, warp;  // in the block
  Context context;
  Fiber* next = nullptr;
  bool finished = false;
  const char* waits_for = nullptr;  // null while it can run
  Site wait_site{};
  const uint64_t* wait_barrier = nullptr;  // the mbarrier it sleeps on, if any
  int wait_parity = 0;
  bool at_cluster_barrier = false;  // between arrival and wait
  unsigned cluster_phase = 0;       // that it arrived in
  void* operand = nullptr;          // what it brought to a rendezvous
  std::vector<PendingCopy> copies;
  std::vector<PendingTensorCopy> stores;
  std::vector<PendingProduct> products;
  int copy_groups = 0, store_groups = 0, product_groups = 0;  // committed so far
};

// Threads that wait for each other. What each brings stays on its own stack; the last to arrive lets `complete` read
// and answer all of them, and everybody goes on.
struct Rendezvous {
  using Complete = void (*)(Fiber* first);
  FiberList members;
  int arrived = 0;
  int expected = 0;
  unsigned mask = 0;  // of a warp's rendezvous: its lanes
  const char* what = nullptr;
  Site site{};
  Complete complete = nullptr;
};

struct Warp {
  unsigned live = 0;             // lanes that have not finished
  std::vector<Rendezvous> open;  // one for each mask that lanes wait with
};

// One block of the cluster that runs
struct Block {
  uint3 index;
  int rank;      // in the cluster
  int live;      // threads that have not returned
  char* window;  // what was allocated: a margin, shared memory, a margin
  char* shared;
  size_t shared_bytes;
  std::vector<Warp> warps;
  std::vector<Rendezvous> warpgroups;
  Rendezvous barrier;  // __syncthreads
  Rendezvous named[kNamedBarriers];

  bool owns(const void* p) const { return p >= shared && p < shared + shared_bytes; }
};

// barrier.cluster: arrival and wait are two instructions
struct ClusterBarrier {
  unsigned phase = 0;
  int arrived = 0;  // of the phase, threads that live
  FiberList waiting;
  char clock[2];  // their addresses are where the race checker keeps what arrivals of even and odd phases told
};

struct Launch {
  dim3 grid, block, cluster;
  size_t shared_bytes;
  void** arguments;
  void (*run)(void** arguments);
  unsigned schedule;  // 0 forward, 1 reverse, else the seed of a random order
};

struct Worker {
  const Launch* launch = nullptr;
  int threads = 0;            // of a block
  int live = 0;               // of the cluster
  std::vector<Block> blocks;  // of the cluster that runs, by rank
  std::vector<Fiber> fibers;  // block after block
  char* stacks = nullptr;
  int stack_count = 0;
  size_t shared_bytes = 0;  // of a block
  Context scheduler;        // where the core itself sleeps while fibers run
  FiberList ready;
  ClusterBarrier cluster_barrier;
  std::vector<PendingTensorCopy> loads;
  int idle_turns = 0;  // turns given away since anything happened
  uint64_t random = 0;
  std::string error;

  Worker() = default;
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start(const Launch& launch);  // room for the launch's threads and shared memory
  void allocate_shared(int blocks, size_t bytes);
  void begin(Block& block, uint3 index);
  bool run_cluster(uint64_t linear);  // to its end; false, with `error` set, where it failed
  void check_margins(Block& block);   // for writes beyond shared memory, after a block
  void shuffle(FiberList& list);      // in the random schedule
  uint64_t draw();                    // the next of the cluster's random numbers
  Block* owner(const void* p);        // the block whose shared memory p lies in, or null
};

// Index in the grid of a block: `rank` in the cluster `linear`
uint3 block_index(const Launch& launch, uint64_t linear, int rank);

extern __thread Worker* worker;

inline Fiber* running() {
  return static_cast<Fiber*>(self);
}
inline Block& this_block() {
  return *running()->block;
}

// Puts the running fiber to sleep until somebody makes it ready; a deadlock where nobody can.
void sleep(const char* waits_for, Site site);
// The running fiber polls: every other ready fiber gets a turn. A deadlock where nothing happens for long.
void give_turn(const char* polls_for, Site site);
void make_ready(FiberList& fibers);
// Threads that poll may find something new.
void made_progress();

// The running fiber arrives. Returns when `expected` fibers have, after `complete` has answered them.
void meet(Rendezvous& rendezvous, int expected, const char* what, Site site, void* operand,
          Rendezvous::Complete complete);
// The same among the live lanes of `mask` in the running fiber's warp
void meet_warp(unsigned mask, const char* what, Site site, void* operand, Rendezvous::Complete complete);
// Those who wait for a thread that has finished
void leave_rendezvous(Fiber* finished);
void leave_cluster_barrier(Fiber* finished);

// A bulk copy brings its bytes to its mbarrier
void mbarrier_complete(uint64_t* barrier, int bytes, Site site);
// Fails where the word in any block's shared memory is no mbarrier, or its block has ended
void mbarrier_check(const uint64_t* barrier, const char* what, Site site);
// Fails where nobody of the block is left: its shared memory may be another's
void check_alive(const Block& block, const char* what, Site site);
std::string ended(const Block& block, const char* what);
std::string mbarrier_state(const uint64_t* barrier);

// Performs one bulk tensor load in flight; false where there is none.
bool finish_a_tensor_load();
// What the running fiber left unfinished at its end
void check_nothing_in_flight();

}  // namespace emulator
