// The race checker proper: every access meets what is remembered of its bytes.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "access_callbacks.h"
#include "export.h"
#include "race.h"
#include "race_state.h"
#include "report.h"
#include "worker.h"

namespace emulator::race {

namespace {

std::vector<Range> watched;  // in order of address
std::vector<Byte> shared_bytes;
std::vector<SharedByte> shared_state;
size_t last_watched = 0;
std::string uninitialised;  // the report of the block's first read of what nobody wrote

// One access of the running thread
struct Touch {
  const char* p;
  size_t bytes;
  bool is_write;
  bool atomic;
  Where where;
};

}  // namespace

constexpr size_t kNowhere = ~size_t{0};

// Where p lies among the shared memory of the cluster's blocks, one after the other; kNowhere outside of it
static size_t shared_index(const char* p) {
  const Block* block = this_block().owns(p) ? &this_block() : worker->owner(p);
  return block ? static_cast<size_t>(block->rank) * worker->shared_bytes + static_cast<size_t>(p - block->shared)
               : kNowhere;
}

static Range* range_of(const char* p) {
  if (last_watched < watched.size() && p >= watched[last_watched].begin && p < watched[last_watched].end)
    return &watched[last_watched];
  const auto after = std::upper_bound(watched.begin(), watched.end(), p,
                                      [](const char* address, const Range& range) { return address < range.begin; });
  if (after == watched.begin() || p >= after[-1].end) return nullptr;
  last_watched = static_cast<size_t>(after - watched.begin()) - 1;
  return &after[-1];
}

bool is_global(const void* p) {
  return range_of(static_cast<const char*>(p)) != nullptr;
}

void watch(const void* p, size_t bytes, const char* name) {
  char* begin = static_cast<char*>(const_cast<void*>(p));
  char* end = begin + bytes;
  const auto overlaps = [&](Range& range) {
    const bool yes = !p || (range.begin < end && begin < range.end);
    if (yes) std::free(range.bytes);
    return yes;
  };
  watched.erase(std::remove_if(watched.begin(), watched.end(), overlaps), watched.end());
  last_watched = 0;
  if (!p || !bytes) return;
  Byte* shadow = static_cast<Byte*>(std::calloc(bytes, sizeof(Byte)));
  if (!shadow) return;
  const auto after = std::upper_bound(watched.begin(), watched.end(), begin,
                                      [](const char* address, const Range& range) { return address < range.begin; });
  watched.insert(after, Range{begin, end, name ? name : "an array", shadow});
}

void shadow_block_begin() {
  shared_bytes.assign(worker->blocks.size() * worker->shared_bytes, Byte{});
  shared_state.assign(worker->blocks.size() * worker->shared_bytes, SharedByte{});
  uninitialised.clear();
}

// ---- reports

static std::string who(const Access& access) {
  if (access.slot >= worker->fibers.size()) return "a bulk copy";
  const dim3 size = worker->launch->block;
  const unsigned t = access.slot % static_cast<unsigned>(worker->threads);
  std::string name = text("thread (%u, %u, %u)", t % size.x, t / size.x % size.y, t / (size.x * size.y));
  const int rank = access.slot / worker->threads;
  if (access.block != state.block || rank != this_block().rank) {
    const uint3 b = block_index(*worker->launch, access.block - state.first_block, rank);
    name += text(" of block (%u, %u, %u)", b.x, b.y, b.z);
  }
  return name;
}

static std::string where_in_memory(const char* p) {
  if (this_block().owns(p)) return text("shared memory, byte %td", p - this_block().shared);
  if (const Block* peer = worker->owner(p))
    return text("shared memory of block (%u, %u, %u), byte %td", peer->index.x, peer->index.y, peer->index.z,
                p - peer->shared);
  const Range* range = range_of(p);
  return range ? text("%s, byte %td", range->name.c_str(), p - range->begin) : "memory";
}

[[noreturn]] static void report_race(const Touch& touch, const char* p, const Access& other, bool other_wrote) {
  fail_at(
      kind::race, place(touch.where),
      text("%s of %s is not ordered after the %s by %s at %s", touch.is_write ? "the write" : "the read",
           where_in_memory(p).c_str(), other_wrote ? "write" : "read", who(other).c_str(), place(other.where).c_str()));
}

[[noreturn]] static void report_out_of_bounds(const Touch& touch) {
  const char* verb = touch.is_write ? "write" : "read";
  const char* p = touch.p;
  for (const Block& block : worker->blocks) {
    if (p + touch.bytes <= block.window || p >= block.shared + block.shared_bytes + kSharedMargin) continue;
    const ptrdiff_t past = p - (block.shared + block.shared_bytes);
    fail_at(kind::out_of_bounds, place(touch.where),
            past >= 0 || touch.p >= block.shared
                ? text("%s of %zu bytes, %td bytes past the end of shared memory (%zu bytes)", verb, touch.bytes,
                       std::max<ptrdiff_t>(past, 0), block.shared_bytes)
                : text("%s of %zu bytes, %td bytes before the start of shared memory", verb, touch.bytes,
                       block.shared - p));
  }
  const Range* nearest = nullptr;
  ptrdiff_t distance = 0;
  for (const Range& range : watched) {
    const ptrdiff_t d = p < range.begin ? range.begin - p : p - range.end;
    if (!nearest || std::abs(d) < std::abs(distance)) nearest = &range, distance = d;
  }
  fail_at(kind::out_of_bounds, place(touch.where),
          text("%s of %zu bytes, %td bytes %s of %s (%td bytes)", verb, touch.bytes, std::max<ptrdiff_t>(distance, 0),
               p < nearest->begin ? "before the start" : "past the end", nearest->name.c_str(),
               nearest->end - nearest->begin));
}

// ---- one access

static bool of_this_launch(const Access& access) {
  return access.block >= state.first_block;
}

// Fails where a remembered access to one of the bytes is not in this thread's past
static void check_order(const Touch& touch, const Byte* bytes) {
  const Fiber* me = running();
  for (size_t i = 0; i < touch.bytes; i++) {
    const Access& write = bytes[i].write;
    if (of_this_launch(write) && !(touch.atomic && write.atomic) && !in_the_past(write, me))
      report_race(touch, touch.p + i, write, true);
    if (!touch.is_write) continue;
    for (const Access& read : bytes[i].reads)
      if (of_this_launch(read) && !in_the_past(read, me)) report_race(touch, touch.p + i, read, false);
  }
}

static void remember_read(Byte& byte, const Access& access, const Fiber* reader) {
  Access* place = nullptr;
  for (Access& read : byte.reads) {
    const bool free = !of_this_launch(read);
    const bool same = read.block == access.block && read.slot == access.slot;
    if (free || same || in_the_past(read, reader)) {
      place = &read;
      if (same) break;
    }
  }
  // no room: another warp's read tells more than one more of the same warp
  for (Access& read : byte.reads)
    if (!place && read.slot / kWarp == access.slot / kWarp) place = &read;
  *(place ? place : &byte.reads[access.slot % 3]) = access;
}

static void remember(const Touch& touch, Byte* bytes, const Fiber* by) {
  const Access access{own_clock(by), state.block, touch.where, static_cast<uint16_t>(by->slot), touch.atomic, true};
  for (size_t i = 0; i < touch.bytes; i++) {
    if (touch.is_write) {
      bytes[i].write = access;
      std::memset(bytes[i].reads, 0, sizeof(bytes[i].reads));
    } else {
      remember_read(bytes[i], access, by);
    }
  }
}

// A read that found nothing. Most often the writer has only not come yet, because a barrier is missing: then its write
// will be reported as a race. Where nobody writes, this is reported at the block's end.
static void note_uninitialised(const Touch& touch, const char* p) {
  if (!uninitialised.empty()) return;
  uninitialised =
      message(kind::uninitialised, place(touch.where), *running(),
              text("the read of %s, finds what nobody in this block has written", where_in_memory(p).c_str()));
}

std::string block_end() {
  return std::exchange(uninitialised, "");
}

static void check_shared_state(const Touch& touch, size_t index) {
  for (const char* p = touch.p; p < touch.p + touch.bytes; p++) {
    const SharedByte& byte = shared_state[index++];
    const char* verb = touch.is_write ? "write" : "read";
    if (byte.copy_in_flight)
      fail_at(byte.bulk ? kind::tensor_copy_wait : kind::copy_wait, place(touch.where),
              text("the %s of %s, meets a copy in flight, issued at %s", verb, where_in_memory(p).c_str(),
                   place(byte.copy_where).c_str()));
    if (touch.is_write && byte.readers)
      fail_at(byte.read_by_wgmma ? kind::wgmma_wait : kind::tensor_copy_wait, place(touch.where),
              text("the write of %s, meets a %s in flight that reads it, issued at %s", where_in_memory(p).c_str(),
                   byte.read_by_wgmma ? "wgmma" : "bulk store", place(byte.reader_where).c_str()));
    if (!touch.is_write && !byte.written) note_uninitialised(touch, p);
  }
}

// The remembered bytes of shared or watched memory; null for memory of the thread's own or the emulator's. Fails where
// the memory is nobody's.
static Byte* shadow_of(const Touch& touch) {
  const char* p = touch.p;
  const size_t index = shared_index(p);
  if (index != kNowhere && shared_index(p + touch.bytes - 1) != kNowhere) return shared_bytes.data() + index;
  for (const Block& block : worker->blocks)
    if (p + touch.bytes > block.window && p < block.shared + block.shared_bytes + kSharedMargin)
      report_out_of_bounds(touch);
  const Range* range = range_of(p);
  if (range && p + touch.bytes <= range->end) return range->bytes + (p - range->begin);
  if (!watched.empty() && !is_own(p)) report_out_of_bounds(touch);
  return nullptr;
}

static void touched(const Touch& touch) {
  Byte* bytes = shadow_of(touch);
  if (!bytes) return;
  const size_t index = shared_index(touch.p);
  if (index != kNowhere) {
    const Block& block = worker->blocks[index / worker->shared_bytes];
    if (!block.live) fail_at(kind::cluster, place(touch.where), ended(block, touch.is_write ? "a write" : "a read"));
    check_shared_state(touch, index);
  }
  check_order(touch, bytes);
  remember(touch, bytes, running());
  if (touch.is_write && index != kNowhere)
    for (size_t i = 0; i < touch.bytes; i++) shared_state[index + i].written = true;
}

static void access(const void* p, size_t bytes, bool is_write, bool atomic, Site site) {
  touched({static_cast<const char*>(p), bytes, is_write, atomic, where_of(site)});
}

void read(const void* p, size_t bytes, Site site) {
  access(p, bytes, false, false, site);
}
void write(const void* p, size_t bytes, Site site) {
  access(p, bytes, true, false, site);
}
void atomic(const void* p, size_t bytes, Site site) {
  access(p, bytes, true, true, site);
  atomic_order(p);
}

void flag_loaded(const void* p, size_t bytes, Site site) {
  // as an atomic that writes nothing: it conflicts with ordinary writes only
  const Touch touch{static_cast<const char*>(p), bytes, false, true, where_of(site)};
  if (const Byte* shadow = shadow_of(touch)) check_order(touch, shadow);
  acquire(p);
}
// By an instruction on an mbarrier: only its initialisation is an ordinary write
void mbarrier_used(const uint64_t* barrier, Site site) {
  const Touch touch{reinterpret_cast<const char*>(barrier), sizeof(*barrier), false, true, where_of(site)};
  check_order(touch, shared_bytes.data() + shared_index(touch.p));
}
void flag_stored(const void* p, size_t bytes, Site site) {
  access(p, bytes, true, true, site);
  release(p);
}

void instrumented(const void* p, size_t bytes, bool is_write, const void* code) {
  const Fiber* me = running();
  if (!me || !bytes) return;
  const char* stack = static_cast<const char*>(me->context.stack);
  const char* address = static_cast<const char*>(p);
  if (address >= stack && address < stack + kStackBytes) {
    own_stack(address, bytes, is_write, code);
    return;
  }
  touched({address, bytes, is_write, false, where_of(code)});
}

// ---- copies that the run-time part performs

static void set_in_flight(const char* shared, size_t bytes, bool in_flight, bool bulk, Where where) {
  const size_t index = shared_index(shared);
  for (size_t i = index; i < index + bytes; i++) {
    SharedByte& byte = shared_state[i];
    byte.copy_in_flight = in_flight;
    byte.bulk = bulk;
    byte.copy_where = where;
    if (!in_flight) byte.written = true;
  }
}

// It may write from now on: whoever still reads is too late already.
static void check_destination(const char* shared, size_t bytes, Site site) {
  const Touch touch{shared, bytes, true, false, where_of(site)};
  check_shared_state(touch, shared_index(shared));
  check_order(touch, shared_bytes.data() + shared_index(shared));
}

void copy_issued(const PendingCopy& copy) {
  const char* shared = static_cast<const char*>(copy.shared);
  const size_t bytes = static_cast<size_t>(copy.bytes);
  if (copy.copy) read(copy.global, bytes, copy.site);
  check_destination(shared, bytes, copy.site);
  set_in_flight(shared, bytes, true, false, where_of(copy.site));
}

void copy_performed(const PendingCopy& copy) {
  set_in_flight(static_cast<const char*>(copy.shared), static_cast<size_t>(copy.bytes), false, false, 0);
  write(copy.shared, static_cast<size_t>(copy.bytes), copy.site);
}

void tensor_load_issued(const PendingTensorCopy& copy, size_t bytes) {
  check_destination(copy.shared, bytes, copy.site);
  set_in_flight(copy.shared, bytes, true, true, where_of(copy.site));
}

// Only whether the memory may be read: the copy engine has no place among the threads
void tensor_load_reads(const void* global, size_t bytes, Site site) {
  shadow_of({static_cast<const char*>(global), bytes, false, false, where_of(site)});
}

void tensor_load_performed(const PendingTensorCopy& copy, size_t bytes) {
  set_in_flight(copy.shared, bytes, false, true, 0);
  const Access access{next_bulk_copy(copy.barrier), state.block, where_of(copy.site),
                      bulk_slot(copy.barrier),      false,       false};
  Byte* shadow = shared_bytes.data() + shared_index(copy.shared);
  for (size_t i = 0; i < bytes; i++) {
    shadow[i].write = access;
    std::memset(shadow[i].reads, 0, sizeof(shadow[i].reads));
  }
}

// ---- reads through the asynchronous proxy, by a bulk store or wgmma: from the issue until the wait

void async_read(const void* shared, size_t bytes, bool wgmma, Site site) {
  const char* p = static_cast<const char*>(shared);
  const size_t index = shared_index(p);
  read(p, bytes, site);
  for (size_t i = index; i < index + bytes; i++) {
    const Access& write = shared_bytes[i].write;
    if (write.generic && !before_a_proxy_fence(write, running()))
      fail(kind::proxy_fence, site,
           "%s, was written by %s at %s with an ordinary store, and no fence.proxy.async lies between",
           where_in_memory(p + (i - index)).c_str(), who(write).c_str(), place(write.where).c_str());
    SharedByte& byte = shared_state[i];
    byte.readers++;
    byte.read_by_wgmma = wgmma;
    byte.reader_where = where_of(site);
  }
}

void async_read_ends(const Fiber* by, const void* shared, size_t bytes, Site site) {
  const char* p = static_cast<const char*>(shared);
  const size_t index = shared_index(p);
  remember({p, bytes, false, false, where_of(site)}, shared_bytes.data() + index, by);
  for (size_t i = index; i < index + bytes; i++) shared_state[i].readers--;
}

void tensor_store_writes(const void* global, size_t bytes, Site site) {
  write(global, bytes, site);
}

}  // namespace emulator::race

EMULATOR_EXPORT void cnn_emulator_watch(const void* p, size_t bytes, const char* name) {
  emulator::race::watch(p, bytes, name);
}
