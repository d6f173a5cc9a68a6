// Barriers and warp collectives: all of them are threads that meet, exchange what they brought and part again.
#include <cstring>

#include "count.h"
#include "race.h"
#include "report.h"
#include "worker.h"

namespace emulator {

// Everybody has come: answers, orders the accesses of all, lets them go on in the order in which they came.
static void conclude(Rendezvous& rendezvous) {
  if (rendezvous.complete) rendezvous.complete(rendezvous.members.first);
  race::join(rendezvous.members.first);
  count::met(rendezvous);
  FiberList members = rendezvous.members;
  rendezvous = {};
  make_ready(members);
}

static bool same_place(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || !std::strcmp(a.file, b.file));
}

void meet(Rendezvous& r, int expected, const char* what, Site site, void* operand, Rendezvous::Complete complete) {
  Fiber* me = running();
  if (r.arrived && (r.what != what || !same_place(r.site, site))) {
    fail(kind::divergent_barrier, site, "this thread arrives at %s, while %s waits at %s at %s", what,
         thread_name(*r.members.first).c_str(), r.what, place(r.site).c_str());
  }
  r.what = what;
  r.site = site;
  r.expected = expected;
  r.complete = complete;
  me->operand = operand;
  r.members.push(me);
  if (++r.arrived == expected) {
    conclude(r);
    sleep(nullptr, site);  // to the end of the queue, behind those it released
  } else {
    sleep(what, site);
  }
}

// ---- the block's barrier

namespace {
struct Vote {
  Count kind;
  bool predicate;
  int result;
};
}  // namespace

static void count_votes(Fiber* first) {
  int yes = 0, all = 0;
  for (Fiber* f = first; f; f = f->next, all++) yes += static_cast<Vote*>(f->operand)->predicate;
  for (Fiber* f = first; f; f = f->next) {
    Vote* vote = static_cast<Vote*>(f->operand);
    vote->result = vote->kind == Count::all ? yes == all : vote->kind == Count::any ? yes > 0 : yes;
  }
}

static const char* barrier_name(Count kind) {
  switch (kind) {
    case Count::count:
      return "__syncthreads_count";
    case Count::all:
      return "__syncthreads_and";
    case Count::any:
      return "__syncthreads_or";
    default:
      return "__syncthreads";
  }
}

// CUDA lets a barrier pass when the rest has exited; a kernel that counts on it has left a barrier in a branch.
static void refuse_the_finished(const char* what, Site site) {
  const Block& block = this_block();
  for (const Fiber& f : worker->fibers) {
    if (f.block == &block && f.finished)
      fail(kind::divergent_barrier, site, "%d of %d threads are at %s, but %s has returned from the kernel",
           block.barrier.arrived, worker->threads, what, thread_name(f).c_str());
  }
}

int block_barrier(Count kind, bool predicate, Site site) {
  Vote vote{kind, predicate, 0};
  Rendezvous& r = this_block().barrier;
  const char* what = barrier_name(kind);
  count::executed(count::Kind::block_barrier, 0, nullptr, site, nullptr);
  if (this_block().live < worker->threads) {
    r.arrived++;
    refuse_the_finished(what, site);
  }
  meet(r, worker->threads, what, site, &vote, kind == Count::none ? nullptr : count_votes);
  return vote.result;
}

void leave_rendezvous(Fiber* finished) {
  const Rendezvous& barrier = finished->block->barrier;
  if (barrier.arrived) refuse_the_finished(barrier.what, barrier.site);
  Warp& warp = finished->block->warps[finished->warp];
  warp.live &= ~(1u << finished->lane);
  for (size_t i = 0; i < warp.open.size();) {
    Rendezvous& r = warp.open[i];
    r.expected = __builtin_popcount(r.mask & warp.live);
    if (r.arrived == r.expected) {
      Rendezvous done = r;
      warp.open.erase(warp.open.begin() + static_cast<long>(i));
      conclude(done);
    } else {
      i++;
    }
  }
}

void named_barrier(int id, int threads, bool wait, Site site) {
  if (id < 1 || id >= kNamedBarriers)
    fail(kind::named_barrier, site, "barrier %d: 1 to %d are expected, 0 is __syncthreads", id, kNamedBarriers - 1);
  if (threads <= 0 || threads % kWarp || threads > worker->threads)
    fail(kind::named_barrier, site, "barrier %d for %d threads: a multiple of 32 up to the block's %d is expected", id,
         threads, worker->threads);
  Rendezvous& r = this_block().named[id];
  if (r.arrived && r.expected != threads)
    fail(kind::named_barrier, site, "barrier %d for %d threads, while others wait with %d at %s", id, threads,
         r.expected, place(r.site).c_str());
  r.site = site;  // producers and consumers meet here from different lines
  r.what = "bar.sync";
  r.expected = threads;
  count::executed(count::Kind::named_barrier, 0, nullptr, site, nullptr);
  race::release(&r);
  if (wait) {
    meet(r, threads, "bar.sync", site, nullptr, nullptr);
    race::acquire(&r);
  } else if (++r.arrived == threads) {
    conclude(r);
  }
}

// ---- a warp's collectives

void meet_warp(unsigned mask, const char* what, Site site, void* operand, Rendezvous::Complete complete) {
  Fiber* me = running();
  Warp& warp = me->block->warps[me->warp];
  if (!(mask >> me->lane & 1u))
    fail(kind::warp_mask, site, "%s with mask 0x%08x, which lacks the calling lane %d", what, mask, me->lane);
  const int expected = __builtin_popcount(mask & warp.live);
  size_t i = 0;
  while (i < warp.open.size() && warp.open[i].mask != mask) i++;
  if (i == warp.open.size()) {
    warp.open.emplace_back();
    warp.open[i].mask = mask;
  }
  Rendezvous& r = warp.open[i];
  if (r.arrived + 1 < expected) {
    meet(r, expected, what, site, operand, complete);
    return;
  }
  Rendezvous done = r;  // it closes now; a new one with the same mask may open while its members go on
  warp.open.erase(warp.open.begin() + static_cast<long>(i));
  meet(done, expected, what, site, operand, complete);
}

void warp_barrier(unsigned mask, Site site) {
  count::executed(count::Kind::warp_barrier, 0, nullptr, site, nullptr);
  meet_warp(mask, "__syncwarp", site, nullptr, nullptr);
}

namespace {
struct Ballot {
  bool predicate;
  unsigned result;
};

struct Match {
  uint64_t value;
  unsigned result;
};

struct Exchange {
  uint64_t value;
  int source;  // lane
  uint64_t result;
};
}  // namespace

unsigned warp_ballot(unsigned mask, bool predicate, Site site) {
  count::executed(count::Kind::warp_exchange, 0, nullptr, site, nullptr);
  Ballot ballot{predicate, 0};
  meet_warp(mask, "a warp vote", site, &ballot, [](Fiber* first) {
    unsigned result = 0;
    for (Fiber* f = first; f; f = f->next)
      result |= static_cast<unsigned>(static_cast<Ballot*>(f->operand)->predicate) << f->lane;
    for (Fiber* f = first; f; f = f->next) static_cast<Ballot*>(f->operand)->result = result;
  });
  return ballot.result;
}

bool warp_elect(Site site) {
  meet_warp(0xffffffffu, "elect.sync", site, nullptr, nullptr);
  return running()->lane == 0;
}

unsigned warp_match(unsigned mask, uint64_t value, Site site) {
  count::executed(count::Kind::warp_exchange, 0, nullptr, site, nullptr);
  Match match{value, 0};
  meet_warp(mask, "a warp match", site, &match, [](Fiber* first) {
    for (Fiber* f = first; f; f = f->next) {
      Match* mine = static_cast<Match*>(f->operand);
      for (Fiber* g = first; g; g = g->next)
        mine->result |= static_cast<unsigned>(static_cast<Match*>(g->operand)->value == mine->value) << g->lane;
    }
  });
  return match.result;
}

// The lane that the PTX manual's shfl.sync reads, `width` lanes being a segment of their own
static int shuffle_source(Shuffle kind, int lane, int argument, int width) {
  const int segment = lane & ~(width - 1), in_segment = lane & (width - 1);
  switch (kind) {
    case Shuffle::index:
      return segment | (argument & (width - 1));
    case Shuffle::up:
      return in_segment >= argument ? lane - argument : lane;
    case Shuffle::down:
      return in_segment + argument < width ? lane + argument : lane;
    default: {
      const int source = lane ^ argument;
      return source < segment + width ? source : lane;
    }
  }
}

uint64_t warp_shuffle(Shuffle kind, unsigned mask, uint64_t value, int argument, int width, Site site) {
  if (width < 1 || width > kWarp || (width & (width - 1)))
    fail(kind::warp_mask, site, "shuffle of width %d: 1, 2, 4, 8, 16 or 32 is expected", width);
  count::executed(count::Kind::warp_exchange, 0, nullptr, site, nullptr);
  Exchange exchange{value, shuffle_source(kind, running()->lane, argument, width), ~uint64_t{0}};
  meet_warp(mask, "a warp shuffle", site, &exchange, [](Fiber* first) {
    Exchange* lanes[kWarp] = {};
    for (Fiber* f = first; f; f = f->next) lanes[f->lane] = static_cast<Exchange*>(f->operand);
    for (Exchange* lane : lanes)
      if (lane && lanes[lane->source]) lane->result = lanes[lane->source]->value;
  });
  return exchange.result;
}

}  // namespace emulator
