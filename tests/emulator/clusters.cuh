// Kernels of clusters of blocks. BUG 0 is right; every other value plants one bug.

// y (blocks of the grid, 2): rank in the cluster, blocks of the cluster
__global__ void ranks(int* y) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) y[2 * block] = ptx::cluster_rank();
  if (threadIdx.x == 32) y[2 * block + 1] = ptx::cluster_blocks();
}

struct Exchanged {
  alignas(16) int v[32];
  uint64_t never;
};

// y (blocks, 32) = what the next block of the cluster has in shared memory: 1000 * its rank + thread
template <int BUG>
__global__ void __launch_bounds__(32) exchanged(int* y) {
  DYN_SMEM(Exchanged, s);
  const int rank = ptx::cluster_rank(), blocks = ptx::cluster_blocks(), t = threadIdx.x;
  s->v[t] = 1000 * rank + t;  // exchanged-write
  if (t == 0) ptx::mbarrier_init(&s->never, 1);
  if (BUG == 4) ptx::cluster_wait();    // wait-first
  if (BUG == 5) ptx::cluster_arrive();  // arrives-once
  __syncthreads();
  if (BUG == 6 && rank == 1 && t == 5) ptx::mbarrier_wait(&s->never, 0);  // never
  if (BUG != 1) {
    ptx::cluster_arrive();  // exchanged-arrive
    ptx::cluster_wait();    // exchanged-wait
  }
  const int* next = ptx::peer_shared(s->v, BUG == 3 ? blocks : (rank + 1) % blocks);  // exchanged-peer
  y[blockIdx.x * 32 + t] = next[t + (BUG == 7 ? 16 : 0)];                             // exchanged-read
  if (BUG != 2) ptx::cluster_sync();
}

// The odd threads return before the barrier: nobody waits for them
__global__ void __launch_bounds__(32) returned_early(int* y) {
  if (threadIdx.x % 2) return;
  ptx::cluster_sync();
  y[blockIdx.x * 32 + threadIdx.x] = 1;
  ptx::cluster_sync();
}

struct Signalled {
  alignas(16) int v[8][32];
  uint64_t full;
};

// Every block writes a row into the shared memory of block 0 and signals it; y (blocks, 32) is what block 0 finds.
template <int BUG>
__global__ void __launch_bounds__(32) signalled(int* y) {
  DYN_SMEM(Signalled, s);
  const int rank = ptx::cluster_rank(), blocks = ptx::cluster_blocks(), t = threadIdx.x;
  if (t == 0) {
    ptx::mbarrier_init(&s->full, 32 * blocks);  // signalled-init
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  if (BUG != 1) ptx::cluster_sync();
  if (BUG == 4 && rank == 0) return;
  if (BUG == 4) {
    __syncthreads();
    __syncthreads();
  }
  if (BUG != 4) ptx::peer_shared(s->v[rank], 0)[t] = 100 * rank + t;  // signalled-write
  ptx::mbarrier_arrive_remote(&s->full, BUG == 3 ? blocks : 0);       // signalled-arrive
  if (rank == 0) {
    if (BUG != 2) ptx::mbarrier_wait_cluster(&s->full, 0);
    for (int block = 0; block < blocks; block++) y[block * 32 + t] = s->v[block][t];  // signalled-read
  }
  ptx::cluster_sync();
}

template <int BLOCKS>
struct Parts {
  alignas(128) float tile[2][BLOCKS][8][32];  // each block brings one part of a stage to all of them
  uint64_t full[2], empty[2];
};

// y (blocks, steps, 8 * BLOCKS, 32): every block sees all of x (steps * 8 * BLOCKS, 32). Thread 0 of each block
// multicasts its part of every step; warp 1 reads the tile and gives the stage back to all blocks.
template <int BLOCKS, int BUG>
__global__ void __launch_bounds__(64) parts(const __grid_constant__ CUtensorMap x, float* y, int steps) {
  using Shared = Parts<BLOCKS>;
  DYN_SMEM(Shared, s);
  const int rank = ptx::cluster_rank(), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; i++) {
      ptx::mbarrier_init(&s->full[i], 1);
      ptx::mbarrier_init(&s->empty[i], BUG == 2 ? 1 : BLOCKS);
    }
    ptx::fence_mbarrier_init();
  }
  ptx::cluster_sync();
  if (threadIdx.x == 0) {
    for (int i = 0; i < steps; i++) {
      const int stage = i % 2, part = i * BLOCKS + rank;
      if (i >= 2 && BUG != 1) ptx::mbarrier_wait_cluster(&s->empty[stage], (i / 2 - 1) % 2);
      if (BUG != 3 || rank == 0) ptx::mbarrier_arrive_expect_tx(&s->full[stage], BLOCKS * 1024);  // parts-expect
      const uint16_t blocks = BUG == 4 ? 2 << BLOCKS : (1 << BLOCKS) - 1;
      ptx::tma_load_2d_multicast(s->tile[stage][rank], &x, &s->full[stage], 0, part * 8, blocks);  // parts-load
    }
  } else if (warp == 1) {
    for (int i = 0; i < steps; i++) {
      const int stage = i % 2;
      ptx::mbarrier_wait(&s->full[stage], i / 2 % 2);  // parts-wait
      float* out = y + (blockIdx.x * steps + i) * BLOCKS * 256;
      for (int row = 0; row < 8 * BLOCKS; row++)
        out[row * 32 + lane] = s->tile[stage][row / 8][row % 8][lane];  // parts-read
      __syncwarp();
      if (BUG == 2) {
        if (lane == 0) ptx::mbarrier_arrive(&s->empty[stage]);
      } else if (lane < BLOCKS) {
        ptx::mbarrier_arrive_remote(&s->empty[stage], lane);  // parts-arrive
      }
    }
  }
  if (BUG != 5) ptx::cluster_sync();
}

struct Tile {
  alignas(1024) unsigned char tile[8 * 1024];
  uint64_t full;
};

// Block 0 brings one tile to the blocks of a mask: to `bytes` bytes of y (blocks, bytes). RANK 3 and 4, or 0 for im2col
template <int RANK, int BUG>
__global__ void __launch_bounds__(32)
    multicast(const __grid_constant__ CUtensorMap map, unsigned char* y, int bytes, int mask) {
  DYN_SMEM(Tile, s);
  const int rank = ptx::cluster_rank();
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(&s->full, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect_tx(&s->full, mask >> rank & 1 ? bytes : 0);
  }
  __syncthreads();
  if (BUG != 1) ptx::cluster_sync();
  const uint16_t blocks = static_cast<uint16_t>(mask);
  if (rank == 0 && threadIdx.x == 0) {
    if (RANK == 3) ptx::tma_load_3d_multicast(s->tile, &map, &s->full, 0, 1, 2, blocks);  // multicast
    if (RANK == 4) ptx::tma_load_4d_multicast(s->tile, &map, &s->full, 0, 1, 2, 0, blocks);
    if (RANK == 0) ptx::tma_load_im2col_4d_multicast(s->tile, &map, &s->full, 0, -1, 1, 0, 2, 0, blocks);
  }
  if (BUG == 2 && rank == 1) return;
  ptx::mbarrier_wait(&s->full, 0);
  if (mask >> rank & 1)
    for (int i = threadIdx.x; i < bytes; i += 32) y[rank * bytes + i] = s->tile[i];
  ptx::cluster_sync();
}
