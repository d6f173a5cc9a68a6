// Tensor maps and the bulk tensor copies (TMA) between global memory and tiles in shared memory.
#include <algorithm>

#include "count.h"
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
constexpr int kLargestOffset = 255;                // of an im2col load of 4 dimensions

struct TensorMap {
  uint64_t base;
  uint64_t dimension[5];      // elements
  uint64_t stride[5];         // bytes; [0] is the element's size
  uint16_t box[5];            // elements, before the traversal stride; im2col: channels of a pixel, pixels of a column
  uint8_t step[5];            // traversal stride
  int8_t lower[2], upper[2];  // im2col: corners of the bounding box along w and h
  uint8_t rank, swizzle;
  bool im2col;
  uint32_t magic;

  int elements(int axis) const { return im2col ? box[axis] : (box[axis] + step[axis] - 1) / step[axis]; }
  int bytes() const {
    int total = static_cast<int>(stride[0]);
    for (int i = 0; i < (im2col ? 2 : rank); i++) total *= elements(i);
    return total;
  }
  // The bounding box of an im2col map's base pixels along w (axis 1) and h (axis 2), both ends included
  int64_t first_base(int axis) const { return lower[axis - 1]; }
  int64_t last_base(int axis) const { return static_cast<int64_t>(dimension[axis]) - 1 + upper[axis - 1]; }
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap), "the map has 128 bytes");

// The elements of a box in the order of shared memory: innermost axis first
struct BoxWalk {
  const TensorMap& map;
  const int* corner;
  int index[5] = {};

  BoxWalk(const TensorMap& map, const PendingTensorCopy& copy) : map(map), corner(copy.coordinate) {}
  int64_t coordinate(int axis) const { return corner[axis] + static_cast<int64_t>(index[axis]) * map.step[axis]; }
  void next() {
    for (int i = 0; i < map.rank && ++index[i] == map.elements(i); i++) index[i] = 0;
  }
};

// The same of an im2col column: a pixel's channels, then the next base pixel of the bounding box, along w, h and n.
// The pixel that is read lies `offset` behind its base.
struct ColumnWalk {
  const TensorMap& map;
  int64_t offset[5] = {};
  int64_t base[5] = {};
  int channel = 0;

  ColumnWalk(const TensorMap& map, const PendingTensorCopy& copy) : map(map) {
    std::copy(copy.offset, copy.offset + 2, offset + 1);
    std::copy(copy.coordinate, copy.coordinate + 4, base);
  }
  int64_t coordinate(int axis) const { return base[axis] + offset[axis] + (axis == 0 ? channel : 0); }
  void next() {
    if (++channel < map.box[0]) return;
    channel = 0;
    for (int axis = 1; axis <= 2; axis++) {
      base[axis] += map.step[axis];
      if (base[axis] <= map.last_base(axis)) return;
      base[axis] = map.first_base(axis);
    }
    base[3]++;
  }
};
}  // namespace

uint32_t swizzled(uint32_t offset, int span) {
  // the 16-byte chunk within the span moves by the row of the span, as bits 4.. exclusive-or bits 7..
  const uint32_t chunks = span ? static_cast<uint32_t>(span) / 16 - 1 : 0;
  return offset ^ (offset >> 7 & chunks) << 4;
}

// Calls visit(address in shared memory, address in global memory or null, bytes) for every element of the walk.
template <class Walk, class Visit>
static void for_each_element(const TensorMap& map, const PendingTensorCopy& copy, Walk walk, Visit visit) {
  const int element = static_cast<int>(map.stride[0]), bytes = map.bytes(), span = kSwizzleBytes[map.swizzle];
  char* const shared = copy.block->shared;
  const uint32_t start = static_cast<uint32_t>(copy.shared - shared);
  for (int at = 0; at < bytes; at += element, walk.next()) {
    int64_t offset = 0;
    bool inside = true;
    for (int i = 0; i < map.rank; i++) {
      const int64_t c = walk.coordinate(i);
      inside = inside && c >= 0 && c < static_cast<int64_t>(map.dimension[i]);
      offset += c * static_cast<int64_t>(map.stride[i]);
    }
    char* global = inside ? reinterpret_cast<char*>(map.base) + offset : nullptr;
    visit(shared + swizzled(start + static_cast<uint32_t>(at), span), global, element);
  }
}

template <class Visit>
static void for_each_element(const TensorMap& map, const PendingTensorCopy& copy, Visit visit) {
  if (map.im2col)
    for_each_element(map, copy, ColumnWalk(map, copy), visit);
  else
    for_each_element(map, copy, BoxWalk(map, copy), visit);
}

static TensorMap checked(const CUtensorMap& opaque, bool im2col, const int* coordinate, int rank, const void* shared,
                         const char* what, Site site) {
  TensorMap map;
  std::memcpy(&map, &opaque, sizeof(map));
  if (map.magic != kMagic) fail(kind::tensor_map, site, "%s through a tensor map that nobody encoded", what);
  if (map.im2col != im2col)
    fail(kind::tensor_map, site, "%s through %s map", what, map.im2col ? "an im2col" : "a tiled");
  if (map.rank != rank) fail(kind::tensor_map, site, "%s of %d dimensions through a map of %d", what, rank, map.rank);
  if (coordinate[0] * static_cast<int64_t>(map.stride[0]) % 16)
    fail(kind::misaligned, site, "%s at innermost coordinate %d, of %d bytes each: a multiple of 16 bytes is expected",
         what, coordinate[0], static_cast<int>(map.stride[0]));
  const uint32_t offset = shared_offset(shared, site);
  const uint32_t alignment = map.swizzle ? 8u * static_cast<uint32_t>(kSwizzleBytes[map.swizzle]) : 128u;
  if (offset % alignment)
    fail(kind::misaligned, site, "%s with a tile at shared offset %u: a multiple of %u is expected", what, offset,
         alignment);
  // swizzled, a chunk may lie anywhere in its line of 128 bytes, the last line included
  const size_t bytes = static_cast<size_t>(map.bytes()), reach = map.swizzle ? (bytes + 127) / 128 * 128 : bytes;
  if (offset + reach > worker->shared_bytes)
    fail(kind::out_of_bounds, site,
         "%s with a tile of %d bytes at shared offset %u, past the end of shared memory (%zu bytes)", what, map.bytes(),
         offset, worker->shared_bytes);
  return map;
}

static PendingTensorCopy pending(const CUtensorMap& map, const int* coordinate, int rank, const void* shared,
                                 Site site) {
  PendingTensorCopy copy{};
  copy.map = map;
  copy.block = running()->block;
  copy.shared = static_cast<char*>(const_cast<void*>(shared));
  std::copy(coordinate, coordinate + rank, copy.coordinate);
  copy.site = site;
  return copy;
}

// Into the running block or, with `multicast`, into each block of the cluster that has a bit: at the same place of its
// shared memory, and for its own mbarrier at that place. Each arrives on its own.
static void issue(PendingTensorCopy copy, const TensorMap& map, uint64_t* barrier, const uint16_t* multicast) {
  count::executed(count::Kind::bulk_load, static_cast<size_t>(map.bytes()), nullptr, copy.site,
                  __builtin_return_address(0));
  const int blocks = static_cast<int>(worker->blocks.size()), me = running()->block->rank;
  const unsigned mask = multicast ? *multicast : 1u << me;
  if (!mask || mask >> blocks)
    fail(kind::cluster, copy.site, "multicast to the blocks of mask 0x%x in a cluster of %d", mask, blocks);
  const uint32_t tile = shared_offset(copy.shared, copy.site), signal = shared_offset(barrier, copy.site);
  for (Block& block : worker->blocks) {
    if (!(mask >> block.rank & 1)) continue;
    copy.block = &block;
    copy.shared = block.shared + tile;
    copy.barrier = reinterpret_cast<uint64_t*>(block.shared + signal);
    mbarrier_check(copy.barrier, "a bulk tensor load", copy.site);
    race::tensor_load_issued(copy, static_cast<size_t>(map.bytes()));
    worker->loads.push_back(copy);
  }
}

void tensor_load(void* shared, const CUtensorMap& opaque, const int* coordinate, int rank, uint64_t* barrier,
                 const uint16_t* multicast, Site site) {
  const TensorMap map = checked(opaque, false, coordinate, rank, shared, "a bulk tensor load", site);
  issue(pending(opaque, coordinate, rank, shared, site), map, barrier, multicast);
}

void tensor_load_im2col(void* shared, const CUtensorMap& opaque, const int (&coordinate)[4], const int (&offset)[2],
                        uint64_t* barrier, const uint16_t* multicast, Site site) {
  const TensorMap map = checked(opaque, true, coordinate, 4, shared, "an im2col load", site);
  for (int axis = 1; axis <= 2; axis++) {
    const char letter = axis == 1 ? 'w' : 'h';
    if (offset[axis - 1] < 0 || offset[axis - 1] > kLargestOffset)
      fail(kind::tensor_copy, site, "im2col offset %d along %c: 0 to %d are expected", offset[axis - 1], letter,
           kLargestOffset);
    if (coordinate[axis] < map.first_base(axis) || coordinate[axis] > map.last_base(axis))
      fail(kind::tensor_copy, site, "im2col load at %c = %d: %d to %lld of the map's bounding box are expected", letter,
           coordinate[axis], static_cast<int>(map.first_base(axis)), static_cast<long long>(map.last_base(axis)));
  }
  PendingTensorCopy copy = pending(opaque, coordinate, 4, shared, site);
  std::copy(offset, offset + 2, copy.offset);
  issue(copy, map, barrier, multicast);
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
  const TensorMap map = checked(opaque, false, coordinate, rank, shared, "a bulk tensor store", site);
  PendingTensorCopy copy = pending(opaque, coordinate, rank, shared, site);
  copy.group = running()->store_groups;
  race::async_read(shared, static_cast<size_t>(map.bytes()), false, site);
  count::executed(count::Kind::bulk_store, static_cast<size_t>(map.bytes()), nullptr, site,
                  __builtin_return_address(0));
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

// What tiled and im2col maps have in common: the tensor in global memory, and rows of `row` elements in shared memory
static std::string describe(TensorMap& map, int data_type, int rank, void* base, const uint64_t* dimension,
                            const uint64_t* stride, const uint32_t* step, uint32_t row, int swizzle) {
  if (data_type < 0 || data_type >= kDataTypes)
    return text("data type %d: 0 to %d are expected", data_type, kDataTypes - 1);
  if (swizzle < 0 || swizzle > 3) return text("swizzle mode %d: 0 to 3 are expected", swizzle);
  if (reinterpret_cast<uintptr_t>(base) % 16) return text("base address %p: a multiple of 16 is expected", base);
  map.base = reinterpret_cast<uint64_t>(base);
  map.rank = static_cast<uint8_t>(rank);
  map.swizzle = static_cast<uint8_t>(swizzle);
  map.magic = kMagic;
  map.stride[0] = static_cast<uint64_t>(kElementBytes[data_type]);
  for (int i = 0; i < rank; i++) {
    if (dimension[i] < 1 || dimension[i] > 1ull << 32)
      return text("dimension %d of %llu elements: 1 to 2^32 are expected", i,
                  static_cast<unsigned long long>(dimension[i]));
    if (step[i] < 1 || step[i] > 8) return text("element stride %d of %u: 1 to 8 are expected", i, step[i]);
    if (i > 0) {
      map.stride[i] = stride[i - 1];
      if (map.stride[i] % 16 || map.stride[i] >= 1ull << 40)
        return text("stride %d of %llu bytes: a multiple of 16 below 2^40 is expected", i,
                    static_cast<unsigned long long>(map.stride[i]));
    }
    map.dimension[i] = dimension[i];
    map.step[i] = static_cast<uint8_t>(i ? step[i] : 1);  // along the first dimension the hardware has no stride
  }
  const int bytes = static_cast<int>(row) * kElementBytes[data_type];
  if (bytes % 16) return text("an inner box dimension of %d bytes: a multiple of 16 is expected", bytes);
  if (swizzle && bytes > kSwizzleBytes[swizzle])
    return text("an inner box dimension of %d bytes: at most the swizzle's %d are expected", bytes,
                kSwizzleBytes[swizzle]);
  return "";
}

static std::string encode_tiled(TensorMap& map, int data_type, int rank, void* base, const uint64_t* dimension,
                                const uint64_t* stride, const uint32_t* box, const uint32_t* step, int swizzle) {
  if (rank < 1 || rank > 5) return text("rank %d: 1 to 5 are expected", rank);
  for (int i = 0; i < rank; i++) {
    if (box[i] < 1 || box[i] > 256) return text("box dimension %d of %u: 1 to 256 are expected", i, box[i]);
    map.box[i] = static_cast<uint16_t>(box[i]);
  }
  return describe(map, data_type, rank, base, dimension, stride, step, box[0], swizzle);
}

// Dimensions are c, w, h, n; corners w, h
static std::string encode_im2col(TensorMap& map, int data_type, int rank, void* base, const uint64_t* dimension,
                                 const uint64_t* stride, const int* lower, const int* upper, uint32_t channels,
                                 uint32_t pixels, const uint32_t* step, int swizzle) {
  if (rank != 4) return text("an im2col map of rank %d: the emulator has those of rank 4, NHWC", rank);
  if (channels < 1 || channels > 256) return text("%u channels of a pixel: 1 to 256 are expected", channels);
  if (pixels < 1 || pixels > 1024) return text("%u pixels of a column: 1 to 1024 are expected", pixels);
  if (step[3] != 1) return text("element stride 3 of %u: the emulator walks every image, 1 is expected", step[3]);
  map.im2col = true;
  map.box[0] = static_cast<uint16_t>(channels);
  map.box[1] = static_cast<uint16_t>(pixels);
  for (int i = 0; i < 2; i++) {
    const char letter = i == 0 ? 'w' : 'h';
    if (lower[i] < -128 || lower[i] > 127 || upper[i] < -128 || upper[i] > 127)
      return text("corners %d and %d along %c: -128 to 127 are expected", lower[i], upper[i], letter);
    map.lower[i] = static_cast<int8_t>(lower[i]);
    map.upper[i] = static_cast<int8_t>(upper[i]);
  }
  std::string problem = describe(map, data_type, rank, base, dimension, stride, step, channels, swizzle);
  for (int axis = 1; axis <= 2 && problem.empty(); axis++)
    if (map.last_base(axis) < map.first_base(axis))
      problem = text("an empty bounding box along %c: corners %d and %d at %llu elements", axis == 1 ? 'w' : 'h',
                     lower[axis - 1], upper[axis - 1], static_cast<unsigned long long>(dimension[axis]));
  return problem;
}

// 0 with the map written, or 1 with the reason in `error`
static int finish(void* opaque, const TensorMap& map, const std::string& problem, char* error, int error_bytes) {
  if (problem.empty()) {
    std::memset(opaque, 0, sizeof(CUtensorMap));
    std::memcpy(opaque, &map, sizeof(map));
    return 0;
  }
  write_error(std::string(kind::tensor_map) + ": " + problem, error, error_bytes);
  return 1;
}

}  // namespace emulator

// As cuTensorMapEncodeTiled without interleave and with zeros outside the tensor; strides of dimensions 1 and up in
// bytes. 0, or 1 with the reason in `error`
EMULATOR_EXPORT int cnn_emulator_encode_tiled(void* map, int data_type, int rank, void* base, const uint64_t* dimension,
                                              const uint64_t* stride, const uint32_t* box,
                                              const uint32_t* element_stride, int swizzle, char* error,
                                              int error_bytes) {
  emulator::TensorMap encoded{};
  const std::string problem =
      emulator::encode_tiled(encoded, data_type, rank, base, dimension, stride, box, element_stride, swizzle);
  return emulator::finish(map, encoded, problem, error, error_bytes);
}

// As cuTensorMapEncodeIm2col, of rank 4
EMULATOR_EXPORT int cnn_emulator_encode_im2col(void* map, int data_type, int rank, void* base,
                                               const uint64_t* dimension, const uint64_t* stride, const int* lower,
                                               const int* upper, uint32_t channels, uint32_t pixels,
                                               const uint32_t* element_stride, int swizzle, char* error,
                                               int error_bytes) {
  emulator::TensorMap encoded{};
  const std::string problem = emulator::encode_im2col(encoded, data_type, rank, base, dimension, stride, lower, upper,
                                                      channels, pixels, element_stride, swizzle);
  return emulator::finish(map, encoded, problem, error, error_bytes);
}
