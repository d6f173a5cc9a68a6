#include "threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

namespace cnn {
namespace {

constexpr long long LEAST_WORK = 1 << 16;  // waking a thread costs about what this much work does
// A worker without a job looks for the next one, at first without a pause, then giving its core to whoever wants it,
// then it sleeps: a sleeper takes longer to come than most kernels run, so Python between two kernels must not be
// enough to put it to sleep.
constexpr auto SPIN = std::chrono::microseconds(100), YIELD = std::chrono::microseconds(1000);
constexpr int MOST_THREADS = 256;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct alignas(64) Range {  // each thread starts on its own run of items and takes from the others' when it is done
  std::atomic<long long> next{0};
  long long end = 0;
};

struct Job {
  Body body;
  void* context;
  Range* ranges;
  int count;  // of ranges
  std::atomic<bool> failed{false};

  void drain(int thread) {
    try {
      for (int i = 0; i < count; i++) {
        Range& range = ranges[(thread + i) % count];
        for (long long item; (item = range.next.fetch_add(1, std::memory_order_relaxed)) < range.end;)
          body(context, item);
      }
    } catch (...) {
      failed = true;
    }
  }
};

#ifdef __linux__
// A thread that is woken may be put on the CPU of the one that wakes it, while others are idle, and then waits there
// until the job is over. So a sleeper is kept off that CPU until it runs.
struct Placement {
  cpu_set_t allowed;  // before
  bool restricted = false;

  void keep_off(int cpu, std::thread& thread) {
    if (restricted || cpu < 0 || pthread_getaffinity_np(thread.native_handle(), sizeof allowed, &allowed) != 0) return;
    cpu_set_t others = allowed;
    CPU_CLR(static_cast<unsigned>(cpu), &others);
    if (CPU_COUNT(&others) > 0)
      restricted = pthread_setaffinity_np(thread.native_handle(), sizeof others, &others) == 0;
  }
  void release() {  // by the thread itself
    if (restricted) pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
    restricted = false;
  }
};
inline int own_cpu() {
  return sched_getcpu();
}
#else
struct Placement {
  void keep_off(int, std::thread&) {}
  void release() {}
};
inline int own_cpu() {
  return -1;
}
#endif

struct Worker {
  std::thread thread;
  bool asleep = false;  // this and placement: with the lock `sleep_`
  Placement placement;
};

// One job at a time. `gate` lets workers in: bits 32.. count the jobs, bit 31 says that the job may be joined, the low
// bits count who has. A worker that comes too late finds the gate closed, so the caller never waits for a sleeper.
class Pool {
 public:
  explicit Pool(int count) : count_(count), ranges_(new Range[count]), workers_(new Worker[count]) {}

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(sleep_);
      stop_ = true;
    }
    wake_.notify_all();
    for (int i = 1; i < count_; i++)
      if (workers_[i].thread.joinable()) workers_[i].thread.join();
  }

  int count() const { return count_; }

  void run(long long items, Body body, void* context) {
    if (!started_) start();
    Job job{body, context, ranges_.get(), count_};
    for (int i = 0; i < count_; i++) {
      ranges_[i].next.store(items * i / count_, std::memory_order_relaxed);
      ranges_[i].end = items * (i + 1) / count_;
    }
    job_ = &job;
    left_.store(0, std::memory_order_relaxed);
    gate_.store(((gate_.load() >> 32) + 1) << 32 | OPEN);
    if (sleepers_.load() > 0) {
      {
        std::lock_guard<std::mutex> lock(sleep_);
        for (int i = 1; i < count_; i++)
          if (workers_[i].asleep) workers_[i].placement.keep_off(own_cpu(), workers_[i].thread);
      }
      wake_.notify_all();
    }
    job.drain(0);
    const uint64_t joined = gate_.fetch_and(~OPEN) & (OPEN - 1);
    for (int turns = 0; left_.load(std::memory_order_acquire) != joined; turns++)
      if (turns < 4096) {
        pause();
      } else {
        sched_yield();
      }
    if (job.failed) throw std::bad_alloc();
  }

 private:
  static constexpr uint64_t OPEN = 1ull << 31;

  void start() {
    started_ = true;
    for (int i = 1; i < count_; i++) workers_[i].thread = std::thread([this, i] { work(i); });
  }

  void work(int thread) {
    for (uint64_t seen = 0;;) {
      uint64_t gate = wait_for_job(seen, workers_[thread]);
      if (gate == 0) return;
      while ((gate & OPEN) && gate >> 32 != seen) {
        if (!gate_.compare_exchange_weak(gate, gate + 1)) continue;
        seen = gate >> 32;
        job_->drain(thread);
        left_.fetch_add(1, std::memory_order_release);
      }
    }
  }

  // The gate of a job after `seen`, or 0 when the pool is being taken down. Whoever was woken too late for a job looks
  // for the next one before it sleeps again.
  uint64_t wait_for_job(uint64_t seen, Worker& self) {
    for (;;) {
      const auto start = std::chrono::steady_clock::now();
      uint64_t gate;
      for (auto waited = start - start; waited < YIELD; waited = std::chrono::steady_clock::now() - start) {
        for (int i = 0; i < 64; i++) {
          gate = gate_.load();
          if ((gate & OPEN) && gate >> 32 != seen) return gate;
          pause();
        }
        if (waited > SPIN) sched_yield();
      }
      std::unique_lock<std::mutex> lock(sleep_);
      sleepers_.fetch_add(1);
      self.asleep = true;
      wake_.wait(lock, [&] { return stop_ || gate_.load() >> 32 != gate >> 32; });
      self.asleep = false;
      sleepers_.fetch_sub(1);
      self.placement.release();
      if (stop_) return 0;
    }
  }

  const int count_;
  std::unique_ptr<Range[]> ranges_;
  std::unique_ptr<Worker[]> workers_;  // from 1 on: 0 is the caller
  bool started_ = false;
  Job* job_ = nullptr;
  std::atomic<uint64_t> gate_{0}, left_{0};
  std::atomic<int> sleepers_{0};
  std::mutex sleep_;
  std::condition_variable wake_;
  bool stop_ = false;
};

// The pool in use and who may use it. Both are leaked at exit (workers may still be looking at them) and replaced in a
// forked child, where the workers do not exist and the lock belongs to nobody.
struct State {
  std::mutex busy;
  Pool* pool = nullptr;
  int count = 1;
};
State* state = nullptr;

State& the_state() {
  static const bool made = [] {
    state = new State;
    state->count = default_thread_count();
    pthread_atfork([] { state->busy.lock(); }, [] { state->busy.unlock(); },
                   [] {
                     State* fresh = new State;
                     fresh->count = state->count;
                     state = fresh;
                   });
    return true;
  }();
  (void)made;
  return *state;
}

thread_local bool inside_item = false;

// The first number of an environment variable (OMP_NUM_THREADS may be a list), 0 where there is none.
int environment_count(const char* name, bool strict) {
  const char* text = std::getenv(name);
  if (!text || !*text) return 0;
  char* end;
  const long value = std::strtol(text, &end, 10);
  const bool valid = end != text && value >= 1 && value <= MOST_THREADS;
  if (strict && (!valid || *end))
    throw std::invalid_argument(std::string(name) + " must be a number of threads from 1 to " +
                                std::to_string(MOST_THREADS) + ", received '" + text + "'");
  return valid ? static_cast<int>(value) : 0;
}

}  // namespace

void run_items(long long items, long long work, Body body, void* context) {
  if (items > 1 && work >= LEAST_WORK && !inside_item) {
    State& s = the_state();
    std::unique_lock<std::mutex> lock(s.busy, std::try_to_lock);
    if (lock.owns_lock() && s.count > 1) {
      if (!s.pool) s.pool = new Pool(s.count);
      struct Inside {
        Inside() { inside_item = true; }
        ~Inside() { inside_item = false; }
      } inside;
      s.pool->run(items, body, context);
      return;
    }
  }
  for (long long item = 0; item < items; item++) body(context, item);
}

int thread_count() {
  return the_state().count;
}

void set_thread_count(int count) {
  if (count < 1 || count > MOST_THREADS)
    throw std::invalid_argument("set_num_threads: expected 1 to " + std::to_string(MOST_THREADS) +
                                " threads, received " + std::to_string(count));
  State& s = the_state();
  std::lock_guard<std::mutex> lock(s.busy);
  if (count == s.count) return;
  delete s.pool;
  s.pool = nullptr;
  s.count = count;
}

void stop_workers() {
  State& s = the_state();
  std::lock_guard<std::mutex> lock(s.busy);
  delete s.pool;
  s.pool = nullptr;
}

int default_thread_count() {
  if (const int count = environment_count("CNNENGINE_NUM_THREADS", true)) return count;
  if (const int count = environment_count("OMP_NUM_THREADS", false)) return count;
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::min(CPU_COUNT(&allowed), MOST_THREADS);
#endif
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, MOST_THREADS);
}

}  // namespace cnn
