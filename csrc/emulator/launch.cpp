// The C interface (see cnnengine/jit/host.py and csrc/launch), and the clusters of a launch spread over cores. A core's
// thread lives as long as its launch: nothing to rebuild after a fork, nothing to stop at exit.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "count.h"
#include "entry.h"
#include "export.h"
#include "race.h"
#include "report.h"
#include "worker.h"

namespace emulator {
namespace {

std::mutex pool_mutex;
std::vector<std::unique_ptr<Worker>> pool;  // idle, with their stacks
std::atomic<unsigned> schedule{0};
std::atomic<int> thread_limit{0};  // 0: as many as there are cores

std::unique_ptr<Worker> take_worker() {
  std::lock_guard<std::mutex> lock(pool_mutex);
  if (pool.empty()) return std::make_unique<Worker>();
  std::unique_ptr<Worker> one = std::move(pool.back());
  pool.pop_back();
  return one;
}

void give_back(std::unique_ptr<Worker> one) {
  std::lock_guard<std::mutex> lock(pool_mutex);
  pool.push_back(std::move(one));
}

// What the cores of one launch share
struct Progress {
  explicit Progress(const Launch& launch)
      : launch(launch),
        clusters(1ull * (launch.grid.x / launch.cluster.x) * (launch.grid.y / launch.cluster.y) *
                 (launch.grid.z / launch.cluster.z)) {}
  const Launch& launch;
  const uint64_t clusters;
  std::atomic<uint64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  uint64_t failed_cluster = ~uint64_t{0};
  std::string error;  // of the failed cluster with the lowest index
};

void run_clusters(Progress& progress) {
  std::unique_ptr<Worker> mine = take_worker();
  worker = mine.get();
  std::string error;
  uint64_t cluster = 0;
  try {
    mine->start(progress.launch);
    while (!progress.failed && error.empty() && (cluster = progress.next++) < progress.clusters) {
      if (!mine->run_cluster(cluster)) error = mine->error;
    }
  } catch (const std::exception& e) {
    error = std::string(kind::bad_launch) + ": " + e.what();
  }
  worker = nullptr;
  give_back(std::move(mine));
  if (error.empty()) return;
  std::lock_guard<std::mutex> lock(progress.mutex);
  progress.failed = true;
  if (cluster < progress.failed_cluster) {
    progress.failed_cluster = cluster;
    progress.error = error;
  }
}

int cores() {
  // the race checker's shadow memory is one, and so are the counters; its schedule is to be repeatable
  if (race::kEnabled || count::kEnabled) return 1;
  const int limit = thread_limit;
  return limit > 0 ? limit : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::string check(const unsigned grid[3], const unsigned block[3], const unsigned cluster[3], size_t shared_bytes) {
  const char* kind = kind::bad_launch;
  const unsigned long long threads = 1ull * block[0] * block[1] * block[2];
  if (threads < 1 || threads > kMaxThreads || block[2] > 64)
    return text("%s: a block of (%u, %u, %u) threads: 1 to %d are expected, at most 64 in z", kind, block[0], block[1],
                block[2], kMaxThreads);
  if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffffu || grid[1] > 65535u || grid[2] > 65535u)
    return text("%s: a grid of (%u, %u, %u) blocks: 1 to 2147483647, 65535 and 65535 are expected", kind, grid[0],
                grid[1], grid[2]);
  const unsigned long long blocks = 1ull * cluster[0] * cluster[1] * cluster[2];
  if (blocks < 1 || blocks > kMaxCluster)
    return text("%s: a cluster of (%u, %u, %u) blocks: 1 to %d are expected", kind, cluster[0], cluster[1], cluster[2],
                kMaxCluster);
  if (grid[0] % cluster[0] || grid[1] % cluster[1] || grid[2] % cluster[2])
    return text("%s: a grid of (%u, %u, %u) blocks is no multiple of the cluster's (%u, %u, %u)", kind, grid[0],
                grid[1], grid[2], cluster[0], cluster[1], cluster[2]);
  if (shared_bytes > kMaxShared)
    return text("%s: %zu bytes of shared memory: at most %zu are expected", kind, shared_bytes, kMaxShared);
  return "";
}

std::string launch_all(const Launch& launch) {
  static std::mutex one_at_a_time;
  std::unique_lock<std::mutex> lock(one_at_a_time, std::defer_lock);
  if (race::kEnabled || count::kEnabled) lock.lock();
  race::launch_begin();
  Progress progress(launch);
  std::vector<std::thread> others;
  const uint64_t wanted = std::min<uint64_t>(cores(), progress.clusters);
  for (uint64_t i = 1; i < wanted; i++) others.emplace_back(run_clusters, std::ref(progress));
  run_clusters(progress);
  for (std::thread& other : others) other.join();
  return progress.error;
}

}  // namespace

void write_error(const std::string& message, char* error, int error_bytes) {
  if (error_bytes > 0) std::snprintf(error, static_cast<size_t>(error_bytes), "%s", message.c_str());
}

}  // namespace emulator

// 0, or 1 with a report in `error`; `cluster` is (1, 1, 1) without clusters
EMULATOR_EXPORT int cnn_emulator_launch(int kernel, const unsigned grid[3], const unsigned block[3],
                                        const unsigned cluster[3], size_t dynamic_shared_bytes, void** arguments,
                                        char* error, int error_bytes) {
  using namespace emulator;
  if (kernel < 0 || kernel >= cnn_emulator_kernel_count) {
    write_error(text("%s: kernel %d of %d", kind::bad_launch, kernel, cnn_emulator_kernel_count), error, error_bytes);
    return 1;
  }
  std::string message = check(grid, block, cluster, dynamic_shared_bytes);
  if (message.empty()) {
    const Launch launch{dim3(grid[0], grid[1], grid[2]),
                        dim3(block[0], block[1], block[2]),
                        dim3(cluster[0], cluster[1], cluster[2]),
                        dynamic_shared_bytes,
                        arguments,
                        cnn_emulator_kernels[kernel].run,
                        schedule};
    message = launch_all(launch);
  }
  if (message.empty()) return 0;
  write_error(std::string(cnn_emulator_kernels[kernel].name) + ": " + message, error, error_bytes);
  return 1;
}

// order: 0 threads run in ascending order, 1 in descending order, else the seed of a random one.
// threads: how many cores run blocks at the same time, 0 for all
EMULATOR_EXPORT void cnn_emulator_configure(int order, int threads) {
  emulator::schedule = static_cast<unsigned>(order);
  emulator::thread_limit = threads;
}

#ifndef CNN_EMULATOR_RACE
// The race build knows which memory kernels may touch; this one does not look.
EMULATOR_EXPORT void cnn_emulator_watch(const void*, size_t, const char*) {}
#endif
