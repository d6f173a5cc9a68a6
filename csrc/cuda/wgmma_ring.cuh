// What the warpgroups of wgmma_tile.cuh share: the tile's sizes, the ring of stages in shared memory, and the block's
// place among those that run together.
#pragma once
#include "fragments_out.cuh"
#include "wgmma.cuh"

// BM rows by BN columns. Two consumers divide them: rows where there are 128, else columns.
template <int BM_, int BN_, int STAGES_>
struct WgmmaTile {
  static constexpr int BM = BM_, BN = BN_, STAGES = STAGES_, CONSUMERS = 2;
  static constexpr int BK = 64, BLOCK = 64;                // BLOCK: elements of a swizzled row
  static constexpr int COLUMNS = BM == 128 ? BN : BN / 2;  // of a consumer, which has 64 rows
  static constexpr int THREADS = 128 * (CONSUMERS + 1), VECTOR = 8, OUT_COLUMNS = 32;
  static constexpr int A_BYTES = BM * BK * 2, B_BYTES = BN * BK * 2;  // of a stage
  static_assert(BM == 64 || BM == 128, "64 rows a consumer");
  static_assert(COLUMNS % 64 == 0 && COLUMNS <= 256, "whole blocks, one wgmma");

  __device__ static int first_row(int consumer) { return BM == 128 ? consumer * 64 : 0; }
  __device__ static int first_column(int consumer) { return BM == 128 ? 0 : consumer * COLUMNS; }

  union Out {  // of a warp: 16 rows of 64 columns on their way to TMA, twice; or 32 columns of sums
    alignas(1024) uint4 panel[2][16][8];
    FragmentRows<OUT_COLUMNS> rows;
  };
  template <class T>
  struct Shared {
    alignas(1024) T a[STAGES][BM * BK];
    alignas(1024) T b[STAGES][BN * BK];
    alignas(1024) Out out[4 * CONSUMERS];
    uint64_t full[STAGES], empty[STAGES];
  };
};

// Where the ring stands: the stage, and the parity of its barriers' phases
template <int STAGES>
struct RingPosition {
  int stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// A cluster of two blocks takes tiles of the same columns side by side: both multiply with the same b, of which each
// brings one half to both. A block without a cluster is alone.
struct BlocksTogether {
  int rank, blocks;

  __device__ static BlocksTogether here() { return {ptx::cluster_rank(), ptx::cluster_blocks()}; }
  __device__ static constexpr uint16_t everyone() { return 3; }  // the mask of a multicast

  // After initialising mbarriers, and before the end: others still arrive at these, and copy to this shared memory
  __device__ void meet() const {
    if (blocks > 1) {
      ptx::cluster_sync();
    } else {
      __syncthreads();
    }
  }
  // A whole warpgroup gives a stage back to all that fill it.
  __device__ void give_back(uint64_t* empty) const {
    const int thread = threadIdx.x % 128;
    if (thread < blocks) ptx::mbarrier_signal_remote(empty, thread);
  }
};
