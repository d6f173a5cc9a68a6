// mbarriers: one 64-bit word in shared memory that counts arrivals and bytes, and flips its phase when both are
// complete.
#include "count.h"
#include "race.h"
#include "report.h"
#include "worker.h"

namespace emulator {

namespace {
// Poisoned memory has `unset` true, so that a barrier that nobody initialised is noticed.
struct Word {
  int64_t bytes : 22;     // expected by the phase and not arrived yet
  uint64_t count : 20;    // arrivals that a phase takes
  uint64_t pending : 20;  // arrivals that this phase still takes
  uint64_t phase : 1;
  uint64_t unset : 1;
};
static_assert(sizeof(Word) == 8, "an mbarrier is one 64-bit word");
constexpr int kMaxArrivals = (1 << 20) - 1;
}  // namespace

static uint32_t offset_in(const Block& block, const uint64_t* barrier) {
  return static_cast<uint32_t>(reinterpret_cast<const char*>(barrier) - block.shared);
}

static Word read(const Block& block, const uint64_t* barrier, const char* what, Site site) {
  const uint32_t offset = offset_in(block, barrier);
  if (offset % 8) fail(kind::misaligned, site, "%s on an mbarrier at shared offset %u, no multiple of 8", what, offset);
  if (offset + 8 > worker->shared_bytes)
    fail(kind::out_of_bounds, site, "%s on an mbarrier past the end of shared memory", what);
  Word word;
  std::memcpy(&word, barrier, sizeof(word));
  if (word.unset)
    fail(kind::mbarrier, site, "%s on an mbarrier (shared offset %u) that was not initialised", what, offset);
  return word;
}

// Used by the running thread, in its own block
static Word read(const uint64_t* barrier, const char* what, Site site) {
  shared_offset(barrier, site);
  const Word word = read(this_block(), barrier, what, site);
  race::mbarrier_used(barrier, site);
  return word;
}

static void wake(const uint64_t* barrier, unsigned phase) {
  FiberList woken;
  for (Fiber& f : worker->fibers) {
    if (f.wait_barrier == barrier && static_cast<unsigned>(f.wait_parity) != phase) {
      f.wait_barrier = nullptr;
      woken.push(&f);
    }
  }
  if (!woken.empty()) make_ready(woken);
}

static void write(uint64_t* barrier, Word word) {
  const bool complete = word.pending == 0 && word.bytes == 0;
  if (complete) {
    race::mbarrier_phase_ends(barrier);
    word.phase ^= 1;
    word.pending = word.count;
  }
  std::memcpy(barrier, &word, sizeof(word));
  made_progress();
  if (complete) wake(barrier, word.phase);
}

void mbarrier_init(uint64_t* barrier, int arrivals, Site site) {
  const uint32_t offset = shared_offset(barrier, site);
  if (offset % 8) fail(kind::misaligned, site, "mbarrier.init at shared offset %u, no multiple of 8", offset);
  if (arrivals < 1 || arrivals > kMaxArrivals)
    fail(kind::mbarrier, site, "mbarrier.init for %d arrivals: 1 to %d are expected", arrivals, kMaxArrivals);
  Word word{};
  word.count = word.pending = static_cast<unsigned>(arrivals);
  std::memcpy(barrier, &word, sizeof(word));
  race::mbarrier_init(barrier, site);
}

void mbarrier_init_fence(Site) {}

static void arrive(Word word, uint64_t* barrier, int expected_bytes, Site site) {
  if (word.pending == 0)
    fail(kind::mbarrier, site, "one arrival too many: the phase takes %u and still waits for %d bytes",
         static_cast<unsigned>(word.count), static_cast<int>(word.bytes));
  race::mbarrier_arrive(barrier);
  word.bytes += expected_bytes;
  word.pending--;
  write(barrier, word);
}

void mbarrier_arrive(uint64_t* barrier, int expected_bytes, Site site) {
  arrive(read(barrier, "mbarrier.arrive", site), barrier, expected_bytes, site);
}

void mbarrier_arrive_remote(uint64_t* barrier, int rank, Site site) {
  uint64_t* there = static_cast<uint64_t*>(peer_shared(barrier, rank, site));
  mbarrier_check(there, "a remote mbarrier.arrive", site);
  arrive(read(*worker->owner(there), there, "a remote mbarrier.arrive", site), there, 0, site);
}

void mbarrier_check(const uint64_t* barrier, const char* what, Site site) {
  const Block* block = worker->owner(barrier);
  if (!block) fail(kind::out_of_bounds, site, "%s on an mbarrier that is in no block's shared memory", what);
  check_alive(*block, what, site);
  read(*block, barrier, what, site);
  race::mbarrier_used(barrier, site);
}

void mbarrier_complete(uint64_t* barrier, int bytes, Site site) {
  Word word = read(*worker->owner(barrier), barrier, "a bulk tensor copy", site);
  word.bytes -= bytes;
  write(barrier, word);
}

bool mbarrier_test(uint64_t* barrier, int parity, Site site) {
  const Word word = read(barrier, "mbarrier.test_wait", site);
  if (static_cast<int>(word.phase) != (parity & 1)) {
    race::mbarrier_wait_ends(barrier);
    return true;
  }
  give_turn("an mbarrier", site);
  return false;
}

void mbarrier_wait(uint64_t* barrier, int parity, Site site) {
  Fiber* me = running();
  count::executed(count::Kind::mbarrier_wait, 0, nullptr, site, __builtin_return_address(0));
  while (static_cast<int>(read(barrier, "mbarrier.try_wait", site).phase) == (parity & 1)) {
    me->wait_barrier = barrier;
    me->wait_parity = parity & 1;
    sleep("an mbarrier", site);
  }
  race::mbarrier_wait_ends(barrier);
}

// For the report of a deadlock
std::string mbarrier_state(const uint64_t* barrier) {
  Word word;
  std::memcpy(&word, barrier, sizeof(word));
  return text("an mbarrier (shared offset %d, phase %u, %u of %u arrivals and %d bytes missing)",
              static_cast<int>(offset_in(*worker->owner(barrier), barrier)), static_cast<unsigned>(word.phase),
              static_cast<unsigned>(word.pending), static_cast<unsigned>(word.count), static_cast<int>(word.bytes));
}

}  // namespace emulator
