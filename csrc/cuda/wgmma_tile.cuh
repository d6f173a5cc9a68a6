// The core of rung `implicit_gemm_wgmma` (sm_90a): c (BM, BN) = a (BM, k) @ b (BN, k)^T with wgmma, both operands
// brought to shared memory by TMA. One block stays on each multiprocessor and takes one tile after the other.
//
//   producer    one thread of the first warpgroup. For each step of BK it waits until a stage of the ring is empty,
//   tells
//               the stage's `full` barrier how many bytes come, and starts the copies. It runs ahead of the consumers,
//               into the next tile while they finish the last one.
//   consumers   one warpgroup for each 64 rows of the tile. They wait for `full`, multiply straight from shared memory
//               (4 products of 64 x BN x 16 a step), and once the products of the step before have ended, mark that
//               step's stage as empty. Sums stay in registers, which setmaxnreg takes from the producer.
//
// An operand lies in shared memory as TMA's 128-byte swizzle leaves it:
//   K-major    its rows run along k: BK = 64 elements, 128 bytes a row
//   MN-major   its rows are steps of k, in blocks of 64 elements along the tile's rows (columns): 64 x 128 bytes each
//
// A Job says what is multiplied:
//   A_ALONG_K, B_ALONG_K             K-major or not
//   long long tiles()                of the whole launch
//   Place place(long long tile)      what the job wants to know of a tile
//   int steps(Place)                 of BK; none: all sums are 0
//   void load_a(T* stage, uint64_t* full, Place, int step), load_b
//   void write(Place, int row, int column, const float (&values)[VECTOR])
#pragma once
#include "fragments_out.cuh"
#include "platform.cuh"
#include "wgmma.cuh"

template <int BN_, int CONSUMERS_, int STAGES_>
struct WgmmaTile {
  static constexpr int BN = BN_, CONSUMERS = CONSUMERS_, STAGES = STAGES_;
  static constexpr int BM = 64 * CONSUMERS, BK = 64, BLOCK = 64;  // BLOCK: elements of a swizzled row
  static constexpr int THREADS = 128 * (CONSUMERS + 1), VECTOR = 8;
  static constexpr int OUT_COLUMNS = BN == 256 ? 32 : 64;  // that leave the registers at once
  static constexpr int STAGE_BYTES = (BM + BN) * BK * 2;
  static_assert(BN % 64 == 0 && BN <= 256, "whole blocks, one wgmma");
  static_assert(CONSUMERS == 2, "the registers of setmaxnreg: 40 for 128 threads, 232 for 256, of 65536");

  template <class T>
  struct Shared {
    alignas(1024) T a[STAGES][BM * BK];
    alignas(1024) T b[STAGES][BN * BK];
    FragmentRows<OUT_COLUMNS> out[4 * CONSUMERS];
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

template <class Tile, class T, class Job>
__device__ inline void produce_tiles(typename Tile::template Shared<T>& shared, const Job& job) {
  RingPosition<Tile::STAGES> ring;
  for (long long tile = blockIdx.x; tile < job.tiles(); tile += gridDim.x) {
    const auto place = job.place(tile);
    const int steps = job.steps(place);
    for (int step = 0; step < steps; step++, ring.advance()) {
      ptx::mbarrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);  // the first time round at once
      ptx::mbarrier_arrive_expect_tx(&shared.full[ring.stage], Tile::STAGE_BYTES);
      job.load_a(shared.a[ring.stage], &shared.full[ring.stage], place, step);
      job.load_b(shared.b[ring.stage], &shared.full[ring.stage], place, step);
    }
  }
}

template <class Tile, class T, class Job>
__device__ inline void consume_tiles(typename Tile::template Shared<T>& shared, const Job& job, int consumer) {
  // bytes from a step of 16 along k to the next, within a stage
  constexpr int STEP_A = Job::A_ALONG_K ? 32 : 16 * 128, STEP_B = Job::B_ALONG_K ? 32 : 16 * 128;
  constexpr int EIGHT_ROWS = 8 * 128, BLOCK_BYTES = Tile::BK * 128;  // of a block of 64 x 128 bytes
  const int warp = threadIdx.x / 32 % 4;
  RingPosition<Tile::STAGES> ring;
  for (long long tile = blockIdx.x; tile < job.tiles(); tile += gridDim.x) {
    const auto place = job.place(tile);
    const int steps = job.steps(place);
    float sum[Tile::BN / 2];
    if (steps == 0)
#pragma unroll
      for (int i = 0; i < Tile::BN / 2; i++) sum[i] = 0.0f;
    int multiplied = 0;  // the stage of the step before
    for (int step = 0; step < steps; step++) {
      ptx::mbarrier_wait(&shared.full[ring.stage], ring.parity);
      const uint64_t a = ptx::matrix_descriptor(shared.a[ring.stage] + consumer * 64 * Tile::BK, BLOCK_BYTES,
                                                EIGHT_ROWS, ptx::Swizzle::bytes128);
      const uint64_t b = ptx::matrix_descriptor(shared.b[ring.stage], BLOCK_BYTES, EIGHT_ROWS, ptx::Swizzle::bytes128);
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < Tile::BK / 16; k++)
        ptx::wgmma<T, !Job::A_ALONG_K, !Job::B_ALONG_K>(sum, a + (k * STEP_A >> 4), b + (k * STEP_B >> 4),
                                                        step > 0 || k > 0);
      ptx::wgmma_commit();
      if (step > 0) {
        ptx::wgmma_wait<1>();  // the products of the step before have ended
        if (threadIdx.x % 128 == 0) ptx::mbarrier_arrive(&shared.empty[multiplied]);
      }
      multiplied = ring.stage;
      ring.advance();
    }
    ptx::wgmma_wait<0>();
    if (steps > 0 && threadIdx.x % 128 == 0) ptx::mbarrier_arrive(&shared.empty[multiplied]);
#pragma unroll
    for (int first = 0; first < Tile::BN; first += Tile::OUT_COLUMNS)
      hand_out_fragments<Tile::VECTOR>(
          shared.out[consumer * 4 + warp], [&](int j, int v) { return sum[first / 2 + j * 4 + v]; },
          [&](int row, int column, const float (&values)[Tile::VECTOR]) {
            job.write(place, consumer * 64 + warp * 16 + row, first + column, values);
          });
  }
}

// All tiles of the launch; every thread of the block calls it.
template <class Tile, class T, class Job>
__device__ inline void multiply_wgmma_tiles(typename Tile::template Shared<T>& shared, const Job& job) {
  if (threadIdx.x == 0) {
    for (int s = 0; s < Tile::STAGES; s++) {
      ptx::mbarrier_init(&shared.full[s], 1);
      ptx::mbarrier_init(&shared.empty[s], Tile::CONSUMERS);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    ptx::decrease_registers<40>();
    if (threadIdx.x == 0) produce_tiles<Tile, T>(shared, job);
  } else {
    ptx::increase_registers<232>();
    consume_tiles<Tile, T>(shared, job, warpgroup - 1);
  }
}
