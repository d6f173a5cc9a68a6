// Totals by line, and how cnnengine/jit/counters.py reads them.
#include "count_totals.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "count_branches.h"
#include "export.h"
#include "report.h"

namespace emulator::count {

namespace {
std::unordered_map<Line, Cost, LineHash> totals;
std::string table;  // the last that was asked for
}  // namespace

void add_to_totals(const Line& line, const Cost& cost) {
  totals[line].add(cost);
}

// Lines of "place kind amount requests partial lanes amounts sectors ideal wavefronts least", in order; code addresses
// of one source line become one
static std::string write_table() {
  add_branches_to_totals();
  std::vector<Where> places;
  for (const auto& [line, cost] : totals) places.push_back(line.where);
  look_up(places);
  std::map<std::tuple<std::string, int, uint32_t>, Cost> lines;
  for (const auto& [line, cost] : totals)
    lines[{place(line.where), static_cast<int>(line.kind), line.amount}].add(cost);
  std::string all;
  for (const auto& [line, c] : lines) {
    const auto& [place, kind, amount] = line;
    all += place + text("\t%d\t%u", kind, amount);
    for (uint64_t number :
         {c.requests, c.partial, c.lanes, c.amount, c.sectors, c.ideal_sectors, c.wavefronts, c.least_wavefronts})
      all += text("\t%llu", static_cast<unsigned long long>(number));
    all += "\n";
  }
  return all;
}

}  // namespace emulator::count

// The table since the last call, which starts the counters again at zero. It stays until the next call.
EMULATOR_EXPORT const char* cnn_emulator_take_counters() {
  using namespace emulator::count;
  table = write_table();
  totals.clear();
  return table.c_str();
}
