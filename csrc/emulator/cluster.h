// Clusters: blocks that run together, meet at a barrier of their own and reach each other's shared memory.
#pragma once

#include "thread.h"

namespace emulator {

int cluster_rank();
int cluster_blocks();
void cluster_arrive(Site site);
void cluster_wait(Site site);

// The address in block `rank` of the cluster of what lies at p in this one
void* peer_shared(const void* p, int rank, Site site);
void mbarrier_arrive_remote(uint64_t* barrier, int rank, Site site);

}  // namespace emulator
