// Where the lanes of a warp part. g++ calls at the start of each basic block and before each comparison
// (-fsanitize-coverage=trace-pc,trace-cmp), so a lane's way is a list of blocks. The ways of a warp are walked together
// as a GPU without independent progress would: of the lanes that can go on, those at the lowest code address make a
// step, so that the others wait for them where paths meet again. Blocks lie in the order of the source
// (-fno-reorder-blocks). A step of lanes that go different ways is a divergent branch.
#include <algorithm>
#include <unordered_map>
#include <vector>

#include "count.h"
#include "count_branches.h"
#include "count_totals.h"
#include "source_line.h"
#include "worker.h"

namespace emulator::count {

namespace {

struct Step {
  Where block;
  Where condition;  // the last comparison in it, or 0
};

struct Way {
  std::vector<Step> steps;
  size_t next = 0;  // while ways are walked
  bool ended(size_t kept) const { return next + kept >= steps.size(); }
};

struct Branch {
  Where condition = 0;
  Where successor = 0;
  bool goes_two_ways = false;
  Cost cost;  // amount: divergent
};

std::vector<Way> ways;                       // of the cluster's threads, by slot
std::unordered_map<Where, Branch> branches;  // by basic block, since the table was written

}  // namespace

// One step of the lanes at the same block
static void step(Way* const* at, int lanes, bool whole_warp) {
  const Where block = at[0]->steps[at[0]->next].block;
  Branch& branch = branches[block];
  bool divergent = false;
  const Where first = at[0]->steps[at[0]->next + 1].block;
  for (int l = 0; l < lanes; l++) {
    const Step& now = at[l]->steps[at[l]->next++];
    const Where successor = at[l]->steps[at[l]->next].block;
    if (now.condition) branch.condition = now.condition;
    if (!branch.successor) branch.successor = successor;
    branch.goes_two_ways |= successor != branch.successor;
    divergent |= successor != first;
  }
  branch.cost.requests++;
  branch.cost.partial += !whole_warp;
  branch.cost.lanes += static_cast<uint64_t>(lanes);
  branch.cost.amount += divergent;
}

void walk(int first, int lanes) {
  Way* warp = ways.data() + first;
  for (int l = 0; l < lanes; l++) warp[l].next = 0;
  while (true) {
    Way* at[kWarp];
    int count = 0;
    for (int l = 0; l < lanes; l++) {
      if (warp[l].ended(1)) continue;  // where the last block leads is not known yet
      const Where here = warp[l].steps[warp[l].next].block;
      if (count && here > at[0]->steps[at[0]->next].block) continue;
      if (count && here < at[0]->steps[at[0]->next].block) count = 0;
      at[count++] = warp + l;
    }
    if (!count) break;
    step(at, count, count == lanes);
  }
  for (int l = 0; l < lanes; l++) {
    std::vector<Step>& steps = warp[l].steps;
    if (!steps.empty()) steps.erase(steps.begin(), steps.end() - 1);
  }
}

void begin_ways(size_t threads) {
  ways.assign(threads, {});
}

void add_branches_to_totals() {
  std::vector<Where> places;
  for (const auto& [block, branch] : branches) places.push_back(branch.condition ? branch.condition : block);
  look_up(places);
  for (const auto& [block, branch] : branches) {
    const Where where = branch.condition ? branch.condition : block;
    if (branch.goes_two_ways && is_of_kernel(where)) add_to_totals({where, Kind::branch, 0}, branch.cost);
  }
  branches.clear();
}

static Way* my_way() {
  const Fiber* me = running();
  return me ? &ways[static_cast<size_t>(me->slot)] : nullptr;
}

static void enter(const void* code) {
  if (Way* way = my_way()) way->steps.push_back({where_of(code), 0});
}

static void compare(const void* code) {
  Way* way = my_way();
  if (way && !way->steps.empty()) way->steps.back().condition = where_of(code);
}

}  // namespace emulator::count

#define EMULATOR_COVERAGE extern "C" __attribute__((visibility("hidden")))

EMULATOR_COVERAGE void __sanitizer_cov_trace_pc() {
  emulator::count::enter(__builtin_return_address(0));
}

#define EMULATOR_COMPARISON(name, type)                             \
  EMULATOR_COVERAGE void __sanitizer_cov_trace_##name(type, type) { \
    emulator::count::compare(__builtin_return_address(0));          \
  }
EMULATOR_COMPARISON(cmp1, uint8_t)
EMULATOR_COMPARISON(cmp2, uint16_t)
EMULATOR_COMPARISON(cmp4, uint32_t)
EMULATOR_COMPARISON(cmp8, uint64_t)
EMULATOR_COMPARISON(const_cmp1, uint8_t)
EMULATOR_COMPARISON(const_cmp2, uint16_t)
EMULATOR_COMPARISON(const_cmp4, uint32_t)
EMULATOR_COMPARISON(const_cmp8, uint64_t)
EMULATOR_COMPARISON(cmpf, float)
EMULATOR_COMPARISON(cmpd, double)
EMULATOR_COVERAGE void __sanitizer_cov_trace_switch(uint64_t, uint64_t*) {
  emulator::count::compare(__builtin_return_address(0));
}
