#include "memory.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes)
#endif

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace cnn {

struct Block {
  void* memory;
  size_t bytes;
  int size_class;
  size_t given_back_at;  // a count of blocks given back
};

namespace {

constexpr size_t ALIGNMENT = 64, PAGE = 4096, HUGE_PAGE = 2 << 20;

// ---- the system's memory

// Pages of their own on a border of huge pages, or null.
void* map_pages(size_t bytes) {
  const size_t length = bytes + HUGE_PAGE;
  void* mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* start = static_cast<char*>(mapped);
  const size_t before = (HUGE_PAGE - reinterpret_cast<uintptr_t>(mapped) % HUGE_PAGE) % HUGE_PAGE;
  if (before) munmap(start, before);
  munmap(start + before + bytes, HUGE_PAGE - before);
#ifdef MADV_HUGEPAGE
  madvise(start + before, bytes, MADV_HUGEPAGE);
#endif
  return start + before;
}

// bytes: from HUGE_PAGE on a multiple of PAGE
void* obtain(size_t bytes) {
  void* memory = nullptr;
  if (bytes >= HUGE_PAGE) return map_pages(bytes);
  return posix_memalign(&memory, ALIGNMENT, bytes) == 0 ? memory : nullptr;
}

void release(void* memory, size_t bytes) {
  if (bytes >= HUGE_PAGE) {
    munmap(memory, bytes);
  } else {
    std::free(memory);
  }
}

// ---- size classes

// Class 8 * e + i holds blocks of (8 + i) * 2^e bytes, i < 8.
int class_of(size_t bytes) {
  const size_t n = std::max(bytes, ALIGNMENT);
  const int exponent = 63 - __builtin_clzll(n) - 3;
  const size_t eighths = (n + (size_t{1} << exponent) - 1) >> exponent;  // 8 to 16, and 16 are 8 of the next doubling
  return exponent * 8 + static_cast<int>(eighths - 8);
}

size_t class_bytes(int size_class) {
  return static_cast<size_t>(8 + size_class % 8) << (size_class / 8);
}

// ---- the limit

// The memory this process may use: the machine's, or its control group's where that is less.
size_t memory_there_is() {
  size_t bytes = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    unsigned long long limit;
    if (std::FILE* file = std::fopen(path, "r")) {
      if (std::fscanf(file, "%llu", &limit) == 1) bytes = std::min<size_t>(bytes, limit);
      std::fclose(file);
    }
  }
  return bytes;
}

size_t default_limit() {
  const char* text = std::getenv("CNNENGINE_MEMORY_LIMIT");
  if (!text || !*text) return memory_there_is() / 2;
  char* end;
  const unsigned long long number = std::strtoull(text, &end, 10);
  const std::string unit = end;
  const int shift = unit.empty() ? 0 : unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (*text < '0' || *text > '9' || shift < 0 || number > SIZE_MAX >> shift)
    throw std::invalid_argument(std::string("CNNENGINE_MEMORY_LIMIT must be a number of bytes, or of K, M or G, such "
                                            "as 500M, received '") +
                                text + "'");
  return static_cast<size_t>(number) << shift;
}

// ---- the pool

class BlockPool {
 public:
  BlockPool() { stats_.limit = default_limit(); }

  Block* take(size_t bytes) {
    if (bytes > SIZE_MAX / 4) throw std::bad_alloc();
    const int c = class_of(bytes);
    const size_t size = class_bytes(c);
    std::lock_guard<std::mutex> lock(mutex);
    Block* block;
    if (!kept_[c].empty()) {
      block = kept_[c].back();
      kept_[c].pop_back();
      stats_.cached -= size;
      stats_.reuses++;
    } else {
      make_room(size);
      block = new Block{obtain(size), size, c, 0};
      if (!block->memory) {
        free_kept();
        block->memory = obtain(size);
      }
      if (!block->memory) {
        delete block;
        throw std::bad_alloc();
      }
      stats_.allocations++;
    }
    stats_.in_use += size;
    stats_.peak = std::max(stats_.peak, stats_.in_use);
    ASAN_POISON_MEMORY_REGION(static_cast<char*>(block->memory) + bytes, size - bytes);
    return block;
  }

  void give_back(Block* block) noexcept {
    ASAN_UNPOISON_MEMORY_REGION(block->memory, block->bytes);
    std::lock_guard<std::mutex> lock(mutex);
    stats_.in_use -= block->bytes;
    make_room(block->bytes);
    if (stats_.in_use + block->bytes > stats_.limit || !keep(block)) free_block(block);
  }

  MemoryStats stats() {
    std::lock_guard<std::mutex> lock(mutex);
    return stats_;
  }

  void set_limit(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    stats_.limit = bytes;
    make_room(0);
  }

  void trim() {
    std::lock_guard<std::mutex> lock(mutex);
    free_kept();
  }

  std::mutex mutex;  // held across fork, so that a child finds the pool whole

 private:
  static constexpr int CLASSES = 64 * 8;

  static void free_block(Block* block) {
    release(block->memory, block->bytes);
    delete block;
  }

  bool keep(Block* block) {
    try {
      kept_[block->size_class].push_back(block);
    } catch (const std::bad_alloc&) {
      return false;
    }
    stats_.cached += block->bytes;
    block->given_back_at = ++given_back_;
    return true;
  }

  // Frees kept blocks, the oldest first, until `bytes` more fit into the limit or none is left.
  void make_room(size_t bytes) {
    while (stats_.cached > 0 && stats_.in_use + stats_.cached + bytes > stats_.limit) {
      std::vector<Block*>* oldest = nullptr;
      for (auto& blocks : kept_)
        if (!blocks.empty() && (!oldest || blocks[0]->given_back_at < (*oldest)[0]->given_back_at)) oldest = &blocks;
      Block* block = oldest->front();
      oldest->erase(oldest->begin());
      stats_.cached -= block->bytes;
      free_block(block);
    }
  }

  void free_kept() {
    for (auto& blocks : kept_) {
      for (Block* block : blocks) free_block(block);
      blocks.clear();
    }
    stats_.cached = 0;
  }

  std::vector<Block*> kept_[CLASSES];  // in the order they were given back
  MemoryStats stats_{};
  size_t given_back_ = 0;
};

// Leaked at exit: arrays may outlive everything else.
BlockPool& the_pool() {
  static BlockPool* const pool = [] {
    static BlockPool* const made = new BlockPool;
    pthread_atfork([] { made->mutex.lock(); }, [] { made->mutex.unlock(); }, [] { made->mutex.unlock(); });
    return made;
  }();
  return *pool;
}

// ---- scratch memory

std::atomic<size_t> held[PURPOSES], measured[PURPOSES];
std::atomic<unsigned> measurement{0};

// Under AddressSanitizer: what was not asked for must not be touched.
inline void guard_rest([[maybe_unused]] void* memory, [[maybe_unused]] size_t asked, [[maybe_unused]] size_t capacity) {
  ASAN_UNPOISON_MEMORY_REGION(memory, asked);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(memory) + asked, capacity - asked);
}

struct Scratch {
  void* memory[PURPOSES] = {};
  size_t capacity[PURPOSES] = {};
  size_t asked[PURPOSES] = {};  // the largest request of the measurement
  unsigned measured_in = 0;

  void free(int purpose) noexcept {
    if (memory[purpose]) {
      guard_rest(memory[purpose], capacity[purpose], capacity[purpose]);
      release(memory[purpose], capacity[purpose]);
    }
    held[purpose] -= capacity[purpose];
    memory[purpose] = nullptr;
    capacity[purpose] = 0;
  }
  void free_all() noexcept {
    for (int purpose = 0; purpose < PURPOSES; purpose++) free(purpose);
  }
  ~Scratch() { free_all(); }
};
thread_local Scratch own_scratch;

ScratchBytes by_kind(const std::atomic<size_t>* bytes) {
  ScratchBytes sums{};
  for (int p = 0; p < PURPOSES; p++)
    (holds_weights(static_cast<Purpose>(p)) ? sums.weights : sums.activations) += bytes[p].load();
  return sums;
}

}  // namespace

Block* take_block(size_t bytes) {
  return the_pool().take(bytes);
}

void* memory_of(const Block* block) {
  return block->memory;
}

void give_back(Block* block) noexcept {
  the_pool().give_back(block);
}

MemoryStats memory_stats() {
  return the_pool().stats();
}

void set_memory_limit(size_t bytes) {
  the_pool().set_limit(bytes);
}

void free_cached_blocks() noexcept {
  the_pool().trim();
}

void* scratch(Purpose purpose, size_t bytes) {
  Scratch& s = own_scratch;
  const unsigned now = measurement.load(std::memory_order_relaxed);
  if (s.measured_in != now) {
    std::fill_n(s.asked, PURPOSES, 0);
    s.measured_in = now;
  }
  if (s.asked[purpose] < bytes) {
    measured[purpose] += bytes - s.asked[purpose];
    s.asked[purpose] = bytes;
  }
  if (s.capacity[purpose] < bytes) {
    const size_t wanted = bytes + bytes / 4, capacity = (wanted + PAGE - 1) / PAGE * PAGE;
    s.free(purpose);
    s.memory[purpose] = obtain(capacity);
    if (!s.memory[purpose]) throw std::bad_alloc();
    s.capacity[purpose] = capacity;
    held[purpose] += capacity;
  }
  guard_rest(s.memory[purpose], bytes, s.capacity[purpose]);
  return s.memory[purpose];
}

void free_own_scratch() noexcept {
  own_scratch.free_all();
}

ScratchBytes scratch_held() {
  return by_kind(held);
}

void start_measuring() {
  for (auto& bytes : measured) bytes = 0;
  measurement++;
}

ScratchBytes scratch_measured() {
  return by_kind(measured);
}

}  // namespace cnn
