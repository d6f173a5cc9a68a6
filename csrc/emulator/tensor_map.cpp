// Tensor maps and the bulk tensor copies (TMA) between global memory and tiles in shared memory.
#include <algorithm>

#include "export.h"
#include "race.h"
#include "report.h"
#include "tensor_map.h"
#include "worker.h"

namespace emulator {

namespace {
constexpr uint32_t kMagic = 0x544d4150;                                   // a map that cnn_emulator_encode_tiled filled
constexpr int kElementBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};  // by CUtensorMapDataType
constexpr int kDataTypes = sizeof(kElementBytes) / sizeof(kElementBytes[0]);
constexpr int kSwizzleBytes[] = {0, 32, 64, 128};  // by CUtensorMapSwizzle

struct TensorMap {
  uint64_t base;
  uint64_t dimension[5];  // elements
  uint64_t stride[5];     // bytes; [0] is the element's size
  uint16_t box[5];        // elements, before the traversal stride
  uint8_t step[5];        // traversal stride
  uint8_t rank, swizzle;
  uint32_t magic;

  int elements(int axis) const { return (box[axis] + step[axis] - 1) / step[axis]; }
  int bytes() const {
    int total = static_cast<int>(stride[0]);
    for (int i = 0; i < rank; i++) total *= elements(i);
    return total;
  }
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap), "the map has 128 bytes");
}  // namespace

uint32_t swizzled(uint32_t offset, int span) {
  // the 16-byte chunk within the span moves by the row of the span, as bits 4.. exclusive-or bits 7..
  const uint32_t chunks = span ? static_cast<uint32_t>(span) / 16 - 1 : 0;
  return offset ^ (offset >> 7 & chunks) << 4;
}

// Calls visit(address in shared memory, address in global memory or null, bytes) for every element of the box.
template <class Visit>
static void for_each_element(const TensorMap& map, const PendingTensorCopy& copy, Visit visit) {
  const int element = static_cast<int>(map.stride[0]), bytes = map.bytes(), span = kSwizzleBytes[map.swizzle];
  const uint32_t start = static_cast<uint32_t>(copy.shared - worker->shared);
  int index[5] = {};
  for (int at = 0; at < bytes; at += element) {
    int64_t offset = 0;
    bool inside = true;
    for (int i = 0; i < map.rank; i++) {
      const int64_t c = static_cast<int64_t>(copy.coordinate[i]) + static_cast<int64_t>(index[i]) * map.step[i];
      inside = inside && c >= 0 && c < static_cast<int64_t>(map.dimension[i]);
      offset += c * static_cast<int64_t>(map.stride[i]);
    }
    char* global = inside ? reinterpret_cast<char*>(map.base) + offset : nullptr;
    visit(worker->shared + swizzled(start + static_cast<uint32_t>(at), span), global, element);
    for (int i = 0; i < map.rank && ++index[i] == map.elements(i); i++) index[i] = 0;
  }
}

static TensorMap checked(const CUtensorMap& opaque, int rank, const void* shared, const char* what, Site site) {
  TensorMap map;
  std::memcpy(&map, &opaque, sizeof(map));
  if (map.magic != kMagic) fail(kind::tensor_map, site, "%s through a tensor map that nobody encoded", what);
  if (map.rank != rank) fail(kind::tensor_map, site, "%s of %d dimensions through a map of %d", what, rank, map.rank);
  const uint32_t offset = shared_offset(shared, site);
  const uint32_t alignment = map.swizzle ? 8u * static_cast<uint32_t>(kSwizzleBytes[map.swizzle]) : 128u;
  if (offset % alignment)
    fail(kind::misaligned, site, "%s with a tile at shared offset %u: a multiple of %u is expected", what, offset,
         alignment);
  if (offset + static_cast<size_t>(map.bytes()) > worker->shared_bytes)
    fail(kind::out_of_bounds, site,
         "%s with a tile of %d bytes at shared offset %u, past the end of shared memory (%zu bytes)", what, map.bytes(),
         offset, worker->shared_bytes);
  return map;
}

static PendingTensorCopy pending(const CUtensorMap& map, const int* coordinate, int rank, const void* shared,
                                 Site site) {
  PendingTensorCopy copy{};
  copy.map = map;
  copy.shared = static_cast<char*>(const_cast<void*>(shared));
  std::copy(coordinate, coordinate + rank, copy.coordinate);
  copy.site = site;
  return copy;
}

void tensor_load(void* shared, const CUtensorMap& opaque, const int* coordinate, int rank, uint64_t* barrier,
                 Site site) {
  const TensorMap map = checked(opaque, rank, shared, "a bulk tensor load", site);
  PendingTensorCopy copy = pending(opaque, coordinate, rank, shared, site);
  copy.barrier = barrier;
  race::tensor_load_issued(copy, static_cast<size_t>(map.bytes()));
  worker->loads.push_back(copy);
}

bool finish_a_tensor_load() {
  std::vector<PendingTensorCopy>& loads = worker->loads;
  if (loads.empty()) return false;
  // the hardware promises no order: the oldest first, the youngest first, or any
  const unsigned schedule = worker->launch->schedule;
  size_t which = 0;
  if (schedule == 1) which = loads.size() - 1;
  if (schedule >= 2) which = worker->draw() % loads.size();
  const PendingTensorCopy copy = loads[which];
  loads.erase(loads.begin() + static_cast<long>(which));
  TensorMap map;
  std::memcpy(&map, &copy.map, sizeof(map));
  for_each_element(map, copy, [&](char* shared, const char* global, int bytes) {
    if (global) {
      race::tensor_load_reads(global, static_cast<size_t>(bytes), copy.site);
      std::memcpy(shared, global, static_cast<size_t>(bytes));
    } else {
      std::memset(shared, 0, static_cast<size_t>(bytes));
    }
  });
  race::tensor_load_performed(copy, static_cast<size_t>(map.bytes()));
  mbarrier_complete(copy.barrier, map.bytes(), copy.site);
  return true;
}

void tensor_store(const CUtensorMap& opaque, const int* coordinate, int rank, const void* shared, Site site) {
  const TensorMap map = checked(opaque, rank, shared, "a bulk tensor store", site);
  PendingTensorCopy copy = pending(opaque, coordinate, rank, shared, site);
  copy.group = running()->store_groups;
  race::async_read(shared, static_cast<size_t>(map.bytes()), false, site);
  running()->stores.push_back(copy);
}

void tensor_store_commit(Site) {
  running()->store_groups++;
}

// Shared memory is read now, as late as allowed: what was overwritten meanwhile goes out wrong.
void tensor_store_wait(int still, Site) {
  Fiber* me = running();
  size_t done = 0;
  while (done < me->stores.size() && me->stores[done].group < me->store_groups - still) {
    const PendingTensorCopy& copy = me->stores[done++];
    TensorMap map;
    std::memcpy(&map, &copy.map, sizeof(map));
    for_each_element(map, copy, [&](const char* shared, char* global, int bytes) {
      race::async_read_ends(me, shared, static_cast<size_t>(bytes), copy.site);
      if (!global) return;  // what lies outside the tensor is not written
      std::memcpy(global, shared, static_cast<size_t>(bytes));
      race::tensor_store_writes(global, static_cast<size_t>(bytes), copy.site);
    });
  }
  me->stores.erase(me->stores.begin(), me->stores.begin() + static_cast<long>(done));
}

void async_proxy_fence(Site) {
  race::async_proxy_fence();
}

static std::string encode(void* opaque, int data_type, int rank, void* base, const uint64_t* dimension,
                          const uint64_t* stride, const uint32_t* box, const uint32_t* step, int swizzle) {
  if (data_type < 0 || data_type >= kDataTypes)
    return text("data type %d: 0 to %d are expected", data_type, kDataTypes - 1);
  if (rank < 1 || rank > 5) return text("rank %d: 1 to 5 are expected", rank);
  if (swizzle < 0 || swizzle > 3) return text("swizzle mode %d: 0 to 3 are expected", swizzle);
  if (reinterpret_cast<uintptr_t>(base) % 16) return text("base address %p: a multiple of 16 is expected", base);
  TensorMap map{};
  map.base = reinterpret_cast<uint64_t>(base);
  map.rank = static_cast<uint8_t>(rank);
  map.swizzle = static_cast<uint8_t>(swizzle);
  map.magic = kMagic;
  map.stride[0] = static_cast<uint64_t>(kElementBytes[data_type]);
  for (int i = 0; i < rank; i++) {
    if (dimension[i] < 1 || dimension[i] > 1ull << 32)
      return text("dimension %d of %llu elements", i, static_cast<unsigned long long>(dimension[i]));
    if (box[i] < 1 || box[i] > 256) return text("box dimension %d of %u: 1 to 256 are expected", i, box[i]);
    if (step[i] < 1 || step[i] > 8) return text("element stride %d of %u: 1 to 8 are expected", i, step[i]);
    if (i > 0) {
      map.stride[i] = stride[i - 1];
      if (map.stride[i] % 16 || map.stride[i] >= 1ull << 40)
        return text("stride %d of %llu bytes: a multiple of 16 below 2^40 is expected", i,
                    static_cast<unsigned long long>(map.stride[i]));
    }
    map.dimension[i] = dimension[i];
    map.box[i] = static_cast<uint16_t>(box[i]);
    map.step[i] = static_cast<uint8_t>(i ? step[i] : 1);  // along the first dimension the hardware has no stride
  }
  const int row = box[0] * kElementBytes[data_type];
  if (row % 16) return text("an inner box dimension of %d bytes: a multiple of 16 is expected", row);
  if (swizzle && row > kSwizzleBytes[swizzle])
    return text("an inner box dimension of %d bytes: at most the swizzle's %d are expected", row,
                kSwizzleBytes[swizzle]);
  std::memset(opaque, 0, sizeof(CUtensorMap));
  std::memcpy(opaque, &map, sizeof(map));
  return "";
}

}  // namespace emulator

// As cuTensorMapEncodeTiled without interleave and with zeros outside the tensor; strides of dimensions 1 and up in
// bytes. 0, or 1 with the reason in `error`
EMULATOR_EXPORT int cnn_emulator_encode_tiled(void* map, int data_type, int rank, void* base, const uint64_t* dimension,
                                              const uint64_t* stride, const uint32_t* box,
                                              const uint32_t* element_stride, int swizzle, char* error,
                                              int error_bytes) {
  const std::string message =
      emulator::encode(map, data_type, rank, base, dimension, stride, box, element_stride, swizzle);
  if (message.empty()) return 0;
  emulator::write_error(std::string(emulator::kind::tensor_map) + ": " + message, error, error_bytes);
  return 1;
}
