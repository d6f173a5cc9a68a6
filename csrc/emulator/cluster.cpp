// The barrier of a cluster, and the way to another block's shared memory. That is ordinary memory here, as it is for a
// GPU's generic addresses.
#include "cluster.h"

#include "race.h"
#include "report.h"
#include "worker.h"

namespace emulator {

int cluster_rank() {
  return this_block().rank;
}
int cluster_blocks() {
  return static_cast<int>(worker->blocks.size());
}

// Threads that have returned are not waited for: so the PTX manual defines it
static void end_phase_if_complete() {
  ClusterBarrier& barrier = worker->cluster_barrier;
  if (barrier.arrived == 0 || barrier.arrived < worker->live) return;
  barrier.phase++;
  barrier.arrived = 0;
  FiberList waiting = barrier.waiting;
  barrier.waiting = {};
  made_progress();
  if (!waiting.empty()) make_ready(waiting);
}

void cluster_arrive(Site site) {
  Fiber* me = running();
  ClusterBarrier& barrier = worker->cluster_barrier;
  if (me->at_cluster_barrier)
    fail(kind::cluster, site, "the thread arrives at the cluster's barrier again without barrier.cluster.wait");
  me->at_cluster_barrier = true;
  me->cluster_phase = barrier.phase;
  race::release(&barrier.clock[barrier.phase % 2]);
  barrier.arrived++;
  end_phase_if_complete();
}

void cluster_wait(Site site) {
  Fiber* me = running();
  ClusterBarrier& barrier = worker->cluster_barrier;
  if (!me->at_cluster_barrier)
    fail(kind::cluster, site, "barrier.cluster.wait of a thread that has not arrived at the cluster's barrier");
  if (barrier.phase == me->cluster_phase) {
    barrier.waiting.push(me);
    sleep("barrier.cluster.wait", site);
  }
  me->at_cluster_barrier = false;
  race::acquire(&barrier.clock[me->cluster_phase % 2]);
}

void leave_cluster_barrier(Fiber* finished) {
  ClusterBarrier& barrier = worker->cluster_barrier;
  if (finished->at_cluster_barrier && finished->cluster_phase == barrier.phase) barrier.arrived--;
  end_phase_if_complete();
}

std::string ended(const Block& block, const char* what) {
  return text("%s reaches the shared memory of block (%u, %u, %u), whose threads have all returned", what,
              block.index.x, block.index.y, block.index.z);
}

void check_alive(const Block& block, const char* what, Site site) {
  if (block.live == 0) fail_at(kind::cluster, place(site), ended(block, what));
}

void* peer_shared(const void* p, int rank, Site site) {
  if (rank < 0 || rank >= cluster_blocks())
    fail(kind::cluster, site, "block %d of a cluster of %d", rank, cluster_blocks());
  return worker->blocks[static_cast<size_t>(rank)].shared + shared_offset(p, site);
}

}  // namespace emulator
