// What a warp instruction costs: 32-byte sectors of global memory, wavefronts of shared memory.
#include "count_cost.h"

#include <algorithm>

namespace emulator::count {

namespace {
constexpr uintptr_t kSector = 32;
constexpr int kBanks = 32;
constexpr uintptr_t kBankBytes = 4;
}  // namespace

void Cost::add(const Cost& other) {
  requests += other.requests;
  partial += other.partial;
  lanes += other.lanes;
  amount += other.amount;
  sectors += other.sectors;
  ideal_sectors += other.ideal_sectors;
  wavefronts += other.wavefronts;
  least_wavefronts += other.least_wavefronts;
}

static size_t sort_unique(uintptr_t* begin, uintptr_t* end) {
  std::sort(begin, end);
  return static_cast<size_t>(std::unique(begin, end) - begin);
}

// The sectors that the lanes touch; and how few could hold the bytes that they ask for, each byte once
static void count_sectors(const Request& request, size_t bytes, Cost& cost) {
  uintptr_t addresses[kWarp], sectors[2 * kWarp];
  int lanes = 0;
  for (int l = 0; l < kWarp; l++) {
    if (!(request.lanes >> l & 1)) continue;
    const uintptr_t p = reinterpret_cast<uintptr_t>(request.address[l]);
    addresses[lanes] = p;
    sectors[2 * lanes] = p / kSector;
    sectors[2 * lanes + 1] = (p + bytes - 1) / kSector;  // another one where p is no multiple of the access's size
    lanes++;
  }
  cost.sectors = sort_unique(sectors, sectors + 2 * lanes);
  cost.ideal_sectors = (sort_unique(addresses, addresses + lanes) * bytes + kSector - 1) / kSector;
}

// Of lanes first + [0, count), whose accesses one wavefront serves where no bank has to give two words
static int wavefronts(const Request& request, int first, int count, size_t bytes, const char* shared) {
  uintptr_t words[2 * kBanks];
  int used = 0;
  for (int l = first; l < first + count; l++) {
    if (!(request.lanes >> l & 1)) continue;
    const uintptr_t offset = static_cast<uintptr_t>(request.address[l] - shared);
    for (uintptr_t word = offset / kBankBytes; word <= (offset + bytes - 1) / kBankBytes; word++) words[used++] = word;
  }
  int in_bank[kBanks] = {};
  for (size_t i = 0, distinct = sort_unique(words, words + used); i < distinct; i++) in_bank[words[i] % kBanks]++;
  return *std::max_element(in_bank, in_bank + kBanks);
}

// Lanes are served all at once, or by halves and quarters of the warp where each moves 8 or 16 bytes
static void count_wavefronts(const Request& request, size_t bytes, int lanes, const char* shared, Cost& cost) {
  const int at_once = bytes <= 4 ? kWarp : bytes == 8 ? kWarp / 2 : kWarp / 4;
  for (int first = 0; first < lanes; first += at_once) {
    const int one = wavefronts(request, first, at_once, bytes, shared);
    cost.wavefronts += static_cast<uint64_t>(one);
    cost.least_wavefronts += one > 0;
  }
}

Cost cost(const Request& request, Kind kind, size_t amount, unsigned lanes_of_warp, const char* shared) {
  Cost cost;
  cost.requests = 1;
  cost.partial = request.lanes != lanes_of_warp;
  cost.lanes = static_cast<uint64_t>(__builtin_popcount(request.lanes));
  cost.amount = cost.lanes * amount;
  switch (kind) {
    case Kind::global_load:
    case Kind::global_store:
    case Kind::global_atomic:
    case Kind::global_copy:
      count_sectors(request, amount, cost);
      break;
    case Kind::shared_load:
    case Kind::shared_store:
    case Kind::shared_copy:
      count_wavefronts(request, amount, kWarp, shared, cost);
      break;
    case Kind::ldmatrix:  // a lane has 4 bytes of each matrix; eight lanes give the addresses of its rows
    case Kind::stmatrix:
      count_wavefronts(request, 16, static_cast<int>(amount / 4) * 8, shared, cost);
      break;
    default:
      break;
  }
  return cost;
}

}  // namespace emulator::count
