// From the accesses of single lanes to warp instructions. Lanes are fibers that run one after the other, so what they
// did is matched: between two points that all lanes of a warp pass together, the i-th executions of one instruction by
// each of them are one request. An instruction is a code address (with a size).
#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "access_callbacks.h"
#include "count.h"
#include "count_branches.h"
#include "count_cost.h"
#include "count_totals.h"
#include "source_line.h"

namespace emulator::count {

namespace {

struct Instruction {
  Line line;
  std::vector<Request> requests;  // since the lanes last met
  uint32_t executed[kWarp] = {};  // times, by each lane
};

struct Key {
  const void* code;
  Line line;
  bool operator==(const Key& other) const { return code == other.code && line == other.line; }
};
struct KeyHash {
  size_t operator()(const Key& key) const { return LineHash()(key.line) ^ reinterpret_cast<size_t>(key.code); }
};

struct WarpCounts {
  std::unordered_map<Key, Instruction, KeyHash> instructions;
  std::vector<Instruction*> executed;  // since the lanes last met
};

std::vector<WarpCounts> warps;  // of the cluster, block after block

}  // namespace

static size_t warps_of_a_block() {
  return worker->blocks.front().warps.size();
}
static size_t number_of(const Fiber* f) {
  return static_cast<size_t>(f->block->rank) * warps_of_a_block() + static_cast<size_t>(f->warp);
}

static unsigned lanes_of(size_t number) {
  const int lanes = std::min(kWarp, worker->threads - static_cast<int>(number % warps_of_a_block()) * kWarp);
  return lanes == kWarp ? 0xffffffffu : (1u << lanes) - 1;
}

static void execute(const Line& line, const void* code, const void* p) {
  const Fiber* me = running();
  WarpCounts& warp = warps[number_of(me)];
  Instruction& instruction = warp.instructions[Key{code, line}];
  if (instruction.requests.empty()) {
    instruction.line = line;
    warp.executed.push_back(&instruction);
  }
  const size_t number = instruction.executed[me->lane]++;
  if (number == instruction.requests.size()) instruction.requests.emplace_back();
  Request& request = instruction.requests[number];
  request.lanes |= 1u << me->lane;
  request.address[me->lane] = static_cast<const char*>(p);
}

static void end_section(size_t number) {
  WarpCounts& warp = warps[number];
  const char* shared = worker->blocks[number / warps_of_a_block()].shared;
  for (Instruction* instruction : warp.executed) {
    const Line& line = instruction->line;
    for (const Request& request : instruction->requests)
      add_to_totals(line, cost(request, line.kind, line.amount, lanes_of(number), shared));
    instruction->requests.clear();
    std::memset(instruction->executed, 0, sizeof(instruction->executed));
  }
  warp.executed.clear();
  const size_t block = number / warps_of_a_block(), in_block = number % warps_of_a_block();
  const size_t first = block * static_cast<size_t>(worker->threads) + in_block * kWarp;
  walk(static_cast<int>(first), __builtin_popcount(lanes_of(number)));
}

void block_begin() {
  warps.assign(worker->blocks.size() * warps_of_a_block(), {});
  begin_ways(worker->fibers.size());
}

void block_end() {
  for (size_t w = 0; w < warps.size(); w++) end_section(w);
}

// Not `live` lanes but all that the warp was launched with: which have returned depends on the order of the threads
void met(const Rendezvous& rendezvous) {
  if (rendezvous.mask) {
    const size_t warp = number_of(rendezvous.members.first);
    if ((rendezvous.mask & lanes_of(warp)) == lanes_of(warp)) end_section(warp);
    return;
  }
  std::vector<unsigned> lanes(warps.size(), 0);
  for (const Fiber* f = rendezvous.members.first; f; f = f->next) lanes[number_of(f)] |= 1u << f->lane;
  for (size_t w = 0; w < warps.size(); w++)
    if (lanes[w] == lanes_of(w)) end_section(w);
}

void executed(Kind kind, size_t amount, const void* p, Site site, const void* code) {
  execute({where_of(site), kind, static_cast<uint32_t>(amount)}, code, p);
}

void instrumented(const void* p, size_t bytes, bool is_write, const void* code) {
  const char* address = static_cast<const char*>(p);
  if (!running() || !bytes) return;
  const bool shared = this_block().owns(p);
  if (!shared && is_own(address)) return;
  const Kind load = shared ? Kind::shared_load : Kind::global_load;
  const Kind store = shared ? Kind::shared_store : Kind::global_store;
  execute({where_of(code), is_write ? store : load, static_cast<uint32_t>(bytes)}, code, p);
}

// Sizes that are no power of two, and structs whose alignment is less: nvcc moves their members. Which these are is not
// known here; they are taken to have 4 bytes, or 2 or 1 where the size is no multiple of it.
void instrumented_range(const void* p, size_t bytes, bool is_write, const void* code) {
  const size_t piece = bytes % 4 == 0 ? 4 : bytes % 2 == 0 ? 2 : 1;
  for (size_t i = 0; i < bytes; i += piece) instrumented(static_cast<const char*>(p) + i, piece, is_write, code);
}

}  // namespace emulator::count
