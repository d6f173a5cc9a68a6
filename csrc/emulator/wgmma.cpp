// wgmma: products of a warpgroup (128 threads) on tiles in shared memory. Issued products are only noted; they are
// performed when the warpgroup waits for them, from what shared memory holds then, and written to the accumulators
// then.
#include <algorithm>

#include "bfloat16.h"
#include "count.h"
#include "half.h"
#include "race.h"
#include "report.h"
#include "tensor_map.h"
#include "worker.h"

namespace emulator {

namespace {

// A matrix descriptor, as the PTX manual lays out its 64 bits; sizes in bytes
struct Descriptor {
  uint32_t start, leading, stride;
  int span;  // of the swizzle: 0, 32, 64 or 128
  explicit Descriptor(uint64_t d)
      : start(field(d, 0)), leading(field(d, 16)), stride(field(d, 32)), span(kSpan[d >> 62]) {}

 private:
  static constexpr int kSpan[] = {0, 128, 64, 32};
  static uint32_t field(uint64_t d, int bit) { return static_cast<uint32_t>(d >> bit & 0x3fff) << 4; }
};

constexpr int kReduction = 32;  // bytes along k: 16 elements of 16 bits, 8 of 32

}  // namespace

// Shared offset of byte k of row r of a K-major operand: rows come in groups of eight, `stride` bytes apart. Without
// swizzle, a group is a row of 8x16-byte core matrices, `leading` bytes apart; with it, a group's rows are `span` bytes
// long.
static uint32_t k_major_offset(const Descriptor& d, int r, int k) {
  const uint32_t group = d.start + static_cast<uint32_t>(r / 8) * d.stride;
  const uint32_t row = static_cast<uint32_t>(r % 8), byte = static_cast<uint32_t>(k);
  if (!d.span) return group + byte / 16 * d.leading + row * 16 + byte % 16;
  return swizzled(group + row * static_cast<uint32_t>(d.span) + byte, d.span);
}

// The same of an MN-major operand (16-bit elements): k runs over rows, `r` along them. With swizzle, eight k are
// a block of 8 x span bytes; blocks along r are `leading` bytes apart, along k `stride`. Without, the blocks are the
// core matrices of 8 x 16 bytes, and it is the other way round.
static uint32_t mn_major_offset(const Descriptor& d, int r, int k) {
  const uint32_t width = d.span ? static_cast<uint32_t>(d.span) : 16;
  const uint32_t byte = static_cast<uint32_t>(r) * 2, element = static_cast<uint32_t>(k) / 2;
  const uint32_t along = d.span ? d.leading : d.stride, across = d.span ? d.stride : d.leading;
  const uint32_t offset = d.start + byte / width * along + element / 8 * across + element % 8 * width + byte % width;
  return swizzled(offset, d.span);
}

static uint32_t operand_offset(const Descriptor& d, bool transpose, int r, int k) {
  return transpose ? mn_major_offset(d, r, k) : k_major_offset(d, r, k);
}

static float read_element(Element element, const char* p) {
  if (element == Element::tf32) {
    uint32_t bits;
    std::memcpy(&bits, p, 4);
    return bits_as<float>(bits & 0xffffe000u);
  }
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return element == Element::bf16 ? bfloat16_to_float(bits) : half_to_float(bits);
}

// The offsets of an operand's elements, (rows, kReduction / bytes), checked against the end of shared memory
static std::vector<uint32_t> offsets(uint64_t bits, bool transpose, int rows, int bytes, char letter, Site site) {
  const Descriptor d(bits);
  if (bits >> 49 & 7)
    fail(kind::wgmma, site, "descriptor of %c: a base offset is not emulated, align the tile to its swizzle", letter);
  std::vector<uint32_t> all;
  all.reserve(static_cast<size_t>(rows) * kReduction / static_cast<size_t>(bytes));
  for (int r = 0; r < rows; r++) {
    for (int k = 0; k < kReduction; k += bytes) {
      all.push_back(operand_offset(d, transpose, r, k));
      if (all.back() + static_cast<size_t>(bytes) > worker->shared_bytes)
        fail(kind::out_of_bounds, site,
             "wgmma's descriptor of %c reads at shared offset %u, past the end of shared memory (%zu bytes)", letter,
             all.back(), worker->shared_bytes);
    }
  }
  return all;
}

static int element_bytes(Element element) {
  return element == Element::tf32 ? 4 : 2;
}

void warpgroup_multiply(const WarpgroupProduct& product, float* d, uint64_t a, uint64_t b, Site site) {
  Fiber* me = running();
  const int first = me->linear / kWarpgroup * kWarpgroup;
  if (first + kWarpgroup > worker->threads)
    fail(kind::wgmma, site, "threads %d to %d are no whole warpgroup of 128", first, worker->threads - 1);
  if (race::kEnabled) {
    const int bytes = element_bytes(product.element);
    if (me->lane == 0) {  // one lane speaks for its warp: all of it reads the same
      for (uint32_t at : offsets(a, product.transpose_a, 64, bytes, 'a', site))
        race::async_read(me->block->shared + at, static_cast<size_t>(bytes), true, site);
      for (uint32_t at : offsets(b, product.transpose_b, product.n, bytes, 'b', site))
        race::async_read(me->block->shared + at, static_cast<size_t>(bytes), true, site);
    }
    race::accumulators_issued(d, product.n / 2, site);
  }
  const int k = kReduction / element_bytes(product.element), multiply_adds = 64 * product.n * k / kWarpgroup;
  count::executed(count::Kind::wgmma, static_cast<size_t>(multiply_adds), nullptr, site, __builtin_return_address(0));
  me->products.push_back({product, d, a, b, me->product_groups, site});
}

void warpgroup_fence(Site) {
  race::wgmma_fence();
}
void warpgroup_commit(Site) {
  running()->product_groups++;
}

// One product for all 128 threads: thread t holds rows 16 * warp + t/4 % 8 (+ 8) and, of every eight columns, two
static void perform(const PendingProduct* const threads[kWarpgroup], const Fiber* const fibers[kWarpgroup]) {
  const PendingProduct& one = *threads[0];
  const int n = one.product.n, bytes = element_bytes(one.product.element), k = kReduction / bytes;
  const std::vector<uint32_t> at_a = offsets(one.a, one.product.transpose_a, 64, bytes, 'a', one.site);
  const std::vector<uint32_t> at_b = offsets(one.b, one.product.transpose_b, n, bytes, 'b', one.site);
  std::vector<float> a(at_a.size()), b(at_b.size()), sums(static_cast<size_t>(n));  // a (64, k), b (k, n)
  const char* shared = this_block().shared;
  if (race::kEnabled) {
    for (int warp = 0; warp < kWarpgroup / kWarp; warp++)
      for (const auto* at : {&at_a, &at_b})
        for (uint32_t offset : *at)
          race::async_read_ends(fibers[warp * kWarp], shared + offset, static_cast<size_t>(bytes), one.site);
  }
  for (size_t i = 0; i < a.size(); i++) a[i] = read_element(one.product.element, shared + at_a[i]);
  for (int c = 0; c < n; c++)
    for (int i = 0; i < k; i++) b[i * n + c] = read_element(one.product.element, shared + at_b[c * k + i]);
  for (int row = 0; row < 64; row++) {
    std::fill(sums.begin(), sums.end(), 0.f);
    for (int i = 0; i < k; i++)
      for (int c = 0; c < n; c++) sums[c] += a[row * k + i] * b[i * n + c];
    for (int c = 0; c < n; c++) {
      const PendingProduct& owner = *threads[row / 16 * 32 + row % 8 * 4 + c % 8 / 2];
      float& d = owner.d[c / 8 * 4 + row % 16 / 8 * 2 + c % 2];
      d = (owner.product.accumulate ? d : 0.f) + sums[c];
    }
  }
}

namespace {
struct WaitOperand {
  int still;
  Site site;
};
}  // namespace

static bool same(const WarpgroupProduct& a, const WarpgroupProduct& b) {
  return a.element == b.element && a.n == b.n && a.accumulate == b.accumulate && a.transpose_a == b.transpose_a &&
         a.transpose_b == b.transpose_b;
}

static void perform_all(Fiber* first) {
  Fiber* threads[kWarpgroup];
  for (Fiber* f = first; f; f = f->next) threads[f->linear % kWarpgroup] = f;
  const WaitOperand& wait = *static_cast<WaitOperand*>(threads[0]->operand);
  const Fiber& one = *threads[0];
  size_t done = 0;
  while (done < one.products.size() && one.products[done].group < one.product_groups - wait.still) done++;
  for (size_t i = 0; i < done; i++) {
    const PendingProduct* product[kWarpgroup];
    for (int t = 0; t < kWarpgroup; t++) {
      const Fiber& f = *threads[t];
      if (f.products.size() != one.products.size() || f.product_groups != one.product_groups ||
          static_cast<WaitOperand*>(f.operand)->still != wait.still ||
          !same(f.products[i].product, one.products[i].product))
        fail(kind::wgmma, wait.site, "%s and %s issued different products before this wait", thread_name(one).c_str(),
             thread_name(f).c_str());
      product[t] = &f.products[i];
      if (product[t]->a != product[0]->a || product[t]->b != product[0]->b)
        fail(kind::wgmma, product[t]->site, "the descriptors of %s and %s differ", thread_name(one).c_str(),
             thread_name(f).c_str());
    }
    perform(product, threads);
  }
  for (Fiber* f : threads) {
    race::accumulators_done(f, done);
    f->products.erase(f->products.begin(), f->products.begin() + static_cast<long>(done));
  }
}

void warpgroup_wait(int still, Site site) {
  Fiber* me = running();
  const int first = me->linear / kWarpgroup * kWarpgroup;
  if (first + kWarpgroup > worker->threads)
    fail(kind::wgmma, site, "threads %d to %d are no whole warpgroup of 128", first, worker->threads - 1);
  WaitOperand operand{still, site};
  meet(me->block->warpgroups[me->linear / kWarpgroup], kWarpgroup, "wgmma.wait_group", site, &operand, perform_all);
}

}  // namespace emulator
