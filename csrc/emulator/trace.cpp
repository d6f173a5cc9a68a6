// Lanes are fibers that run one after the other; a warp's requests are put in an order that agrees with the program of
// each: what the first lane did, with what others did besides behind the request that they did before it.
#include "trace.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "export.h"
#include "report.h"
#include "source_line.h"
#include "worker.h"

namespace emulator::trace {

namespace {

constexpr int kBytes = 16;  // of a lane, at most
constexpr int kNone = -1, kRefused = -2;

// As TRACED of cnnengine/jit/trace.py reads it
struct Event {
  uint32_t frames = 0;  // their number in `places`
  uint32_t kind = 0;    // count::Kind
  uint32_t amount = 0;  // bytes or multiply-adds of a lane
  uint32_t warp = 0;
  uint32_t order = 0;  // among the warp's requests
  uint32_t lanes = 0;
  uint32_t sectors = 0, ideal_sectors = 0, wavefronts = 0, least_wavefronts = 0;
  uint64_t address[kWarp] = {};             // of shared memory: from its start
  unsigned char value[kWarp][kBytes] = {};  // what was read; what lay there after a write
};

// What a lane writes is there when it does the next thing
struct Pending {
  int number = kNone;
  const void* p = nullptr;
  size_t bytes = 0;
};

struct WarpOrder {
  int first = kNone, last[kWarp];  // of the section: its first request, and the last that each lane took part in
  uint32_t done = 0;               // requests of sections that have ended
};

bool on = false;
uint3 block;
size_t limit = 0, refused = 0;
std::deque<Event> events;
std::vector<int> next;  // the request behind each, in its section
std::vector<WarpOrder> warps;
std::vector<Pending> pending;  // by thread
std::map<std::pair<Where, const void*>, uint32_t> known;
std::vector<std::pair<Where, const void*>> places;
std::string table;

}  // namespace

static void capture(int number, int lane, const void* p, size_t bytes) {
  std::memcpy(events[static_cast<size_t>(number)].value[lane], p, bytes);
}

static void settle(int linear) {
  Pending& one = pending[static_cast<size_t>(linear)];
  if (one.number != kNone) capture(one.number, linear % kWarp, one.p, one.bytes);
  one = {};
}

bool wanted(const Fiber& fiber) {
  const uint3 index = fiber.block_index;
  return on && index.x == block.x && index.y == block.y && index.z == block.z;
}

static WarpOrder& order_of(int warp) {
  while (warps.size() <= static_cast<size_t>(warp)) {
    WarpOrder fresh;
    std::fill(fresh.last, fresh.last + kWarp, kNone);
    warps.push_back(fresh);
    pending.resize(warps.size() * kWarp);
  }
  return warps[static_cast<size_t>(warp)];
}

static int add(const count::Line& line, const void* code, const Fiber& me, WarpOrder& order) {
  if (events.size() >= limit) {
    refused++;
    return kRefused;
  }
  const int number = static_cast<int>(events.size());
  const std::pair<Where, const void*> place{line.where, code};
  const auto [found, fresh] = known.try_emplace(place, static_cast<uint32_t>(places.size()));
  if (fresh) places.push_back(place);
  Event& event = events.emplace_back();
  event.frames = found->second;
  event.kind = static_cast<uint32_t>(line.kind);
  event.amount = line.amount;
  event.warp = static_cast<uint32_t>(me.warp);
  next.push_back(kNone);
  int& before = order.last[me.lane] == kNone ? order.first : next[static_cast<size_t>(order.last[me.lane])];
  next.back() = before;
  before = number;
  return number;
}

void executed(int& number, const count::Line& line, const void* code, const void* p) {
  const Fiber& me = *running();
  WarpOrder& order = order_of(me.warp);
  settle(me.linear);
  if (number == kNone) number = add(line, code, me, order);
  if (number == kRefused) return;
  order.last[me.lane] = number;
  Event& event = events[static_cast<size_t>(number)];
  event.lanes |= 1u << me.lane;
  const bool shared = me.block->owns(p);
  event.address[me.lane] = reinterpret_cast<uint64_t>(p) - (shared ? reinterpret_cast<uint64_t>(me.block->shared) : 0);
  if (!p) return;
  const size_t bytes = std::min<size_t>(line.amount, kBytes);
  switch (line.kind) {
    case count::Kind::global_load:
    case count::Kind::global_copy:
    case count::Kind::shared_load:
      capture(number, me.lane, p, bytes);
      break;
    case count::Kind::global_store:
    case count::Kind::shared_store:
    case count::Kind::copy_landed:
      pending[static_cast<size_t>(me.linear)] = {number, p, bytes};
      break;
    case count::Kind::ldmatrix:  // a lane gives a row of a matrix, or nothing
      if (me.lane < static_cast<int>(line.amount) / 4 * 8) capture(number, me.lane, p, kBytes);
      break;
    case count::Kind::mma:  // four sums
      pending[static_cast<size_t>(me.linear)] = {number, p, kBytes};
      break;
    default:
      break;
  }
}

void cost(int number, const count::Cost& cost) {
  if (number < 0) return;
  Event& event = events[static_cast<size_t>(number)];
  event.sectors = static_cast<uint32_t>(cost.sectors);
  event.ideal_sectors = static_cast<uint32_t>(cost.ideal_sectors);
  event.wavefronts = static_cast<uint32_t>(cost.wavefronts);
  event.least_wavefronts = static_cast<uint32_t>(cost.least_wavefronts);
}

void section_ends(int warp) {
  WarpOrder& order = order_of(warp);
  for (int lane = 0; lane < kWarp; lane++) {
    settle(warp * kWarp + lane);
    order.last[lane] = kNone;
  }
  for (int i = order.first; i != kNone; i = next[static_cast<size_t>(i)])
    events[static_cast<size_t>(i)].order = order.done++;
  order.first = kNone;
}

static void clear() {
  events.clear();
  next.clear();
  warps.clear();
  pending.clear();
  known.clear();
  places.clear();
  refused = 0;
}

// Lines of places, the innermost first, separated by tabs: those of each number in Event::frames
static std::string write_places() {
  std::vector<Where> codes;
  for (const auto& [where, code] : places) {
    codes.push_back(where);
    if (code) codes.push_back(where_of(code));
  }
  look_up(codes);
  std::string all;
  for (const auto& [where, code] : places) {
    all += full_place(where);
    if (code)
      for (const std::string& frame : frames(where_of(code))) all += "\t" + frame;
    all += "\n";
  }
  return all;
}

}  // namespace emulator::trace

// From now on the requests of block (x, y, z) of each launch are kept, up to so many; null ends it. What was kept
// before is forgotten.
EMULATOR_EXPORT void cnn_emulator_trace(const unsigned block[3], size_t most) {
  using namespace emulator::trace;
  clear();
  on = block != nullptr;
  if (on) emulator::trace::block = {block[0], block[1], block[2]};
  limit = most;
}

// How many were kept, and for how many there was no room. They are copied by cnn_emulator_copy_trace.
EMULATOR_EXPORT size_t cnn_emulator_traced(size_t* refused) {
  *refused = emulator::trace::refused;
  return emulator::trace::events.size();
}

EMULATOR_EXPORT void cnn_emulator_copy_trace(void* to) {
  using emulator::trace::Event;
  for (const Event& event : emulator::trace::events) {
    std::memcpy(to, &event, sizeof(Event));
    to = static_cast<Event*>(to) + 1;
  }
}

EMULATOR_EXPORT const char* cnn_emulator_trace_places() {
  emulator::trace::table = emulator::trace::write_places();
  return emulator::trace::table.c_str();
}
