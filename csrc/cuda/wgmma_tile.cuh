// The core of rung `implicit_gemm_wgmma` (sm_90a): c (BM, BN) = a (BM, k) @ b (BN, k)^T with wgmma, both operands
// brought to shared memory by TMA. One block stays on each multiprocessor and takes one tile after the other.
//
//   producer    one thread of the first warpgroup. For each step of BK it waits until a stage of the ring is empty,
//               tells the stage's `full` barrier how many bytes come, and starts the copies. It runs ahead of the
//               consumers, into the next tile while they finish the last one.
//   consumers   two warpgroups, each for its half of the tile. They wait for `full`, multiply straight from shared
//               memory (4 products of 64 x COLUMNS x 16 a step), and once the products of the step before have ended,
//               mark that step's stage as empty. Sums stay in registers, which setmaxnreg takes from the producer.
//   clusters    two blocks may share b, of which each brings one half to both: a stage is empty when the consumers of
//               both have left it, and full when both halves of b and the block's own a have come.
//
// An operand lies in shared memory as TMA's 128-byte swizzle leaves it:
//   K-major    its rows run along k: BK = 64 elements, 128 bytes a row
//   MN-major   its rows are steps of k, in blocks of 64 elements along the tile's rows (columns): 64 x 128 bytes each
//
// A Job says what is multiplied:
//   A_ALONG_K, B_ALONG_K, STORE_BY_TMA     operands K-major or not; wgmma_store.cuh or write()
//   int sets(int blocks)                   of the whole launch: a set is a tile for each block of a cluster
//   Place place(int set, together)         what the job wants to know of this block's tile, which may lie outside
//   int steps(Place)                       of BK, the same for a set; none: all sums are 0
//   Step first(Place), void advance(Step&, Place)
//   void load_a(T* stage, uint64_t* full, Place, Step)
//   void load_b(T* stage, uint64_t* full, Place, Step, together)
//   void write(Place, int row, int column, const float (&values)[VECTOR])
#pragma once
#include "fragments_out.cuh"
#include "platform.cuh"
#include "wgmma_store.cuh"

template <class Tile, class T, class Job>
__device__ inline void produce_tiles(typename Tile::template Shared<T>& shared, const Job& job,
                                     const BlocksTogether& together) {
  RingPosition<Tile::STAGES> ring;
  const int sets = job.sets(together.blocks);
  for (int set = blockIdx.x / together.blocks; set < sets; set += gridDim.x / together.blocks) {
    const auto place = job.place(set, together);
    const int steps = job.steps(place);
    auto at = job.first(place);
    for (int step = 0; step < steps; step++, ring.advance(), job.advance(at, place)) {
      ptx::mbarrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);  // the first time round at once
      ptx::mbarrier_arrive_expect_tx(&shared.full[ring.stage], Tile::A_BYTES + Tile::B_BYTES);
      job.load_a(shared.a[ring.stage], &shared.full[ring.stage], place, at);
      job.load_b(shared.b[ring.stage], &shared.full[ring.stage], place, at, together);
    }
    if constexpr (Job::STORE_BY_TMA) {
      const int panels = job.adds ? panels_of<Tile>(job, place) : 0;
      for (int panel = 0; panel < panels; panel++, ring.advance()) {
        ptx::mbarrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);
        ptx::mbarrier_arrive_expect_tx(&shared.full[ring.stage], Tile::A_BYTES);
        ptx::tma_load_2d(shared.a[ring.stage], job.added, &shared.full[ring.stage],
                         job.first_column(place) + panel * Tile::BLOCK, job.first_row(place));
      }
    }
  }
}

template <class Tile, class T, class Job>
__device__ inline void consume_tiles(typename Tile::template Shared<T>& shared, const Job& job, int consumer,
                                     const BlocksTogether& together) {
  // bytes from a step of 16 along k to the next, within a stage
  constexpr int STEP_A = Job::A_ALONG_K ? 32 : 16 * 128, STEP_B = Job::B_ALONG_K ? 32 : 16 * 128;
  constexpr int EIGHT_ROWS = 8 * 128, BLOCK_BYTES = Tile::BK * 128;  // of a block of 64 x 128 bytes
  const int warp = threadIdx.x / 32 % 4;
  const int first_row = Tile::first_row(consumer), first_column = Tile::first_column(consumer);
  // of stage 0; the others follow at once
  const uint64_t first_a =
      ptx::matrix_descriptor(shared.a[0] + first_row * Tile::BK, BLOCK_BYTES, EIGHT_ROWS, ptx::Swizzle::bytes128);
  const uint64_t first_b =
      ptx::matrix_descriptor(shared.b[0] + first_column * Tile::BK, BLOCK_BYTES, EIGHT_ROWS, ptx::Swizzle::bytes128);
  RingPosition<Tile::STAGES> ring;
  int buffer = 0;
  const int sets = job.sets(together.blocks);
  for (int set = blockIdx.x / together.blocks; set < sets; set += gridDim.x / together.blocks) {
    const auto place = job.place(set, together);
    const int steps = job.steps(place);
    float sum[Tile::COLUMNS / 2];
    if (steps == 0)
#pragma unroll
      for (int i = 0; i < Tile::COLUMNS / 2; i++) sum[i] = 0.0f;
    int multiplied = 0;  // the stage of the step before
    for (int step = 0; step < steps; step++) {
      ptx::mbarrier_wait(&shared.full[ring.stage], ring.parity);
      const uint64_t a = ptx::descriptor_behind(first_a, ring.stage * Tile::A_BYTES);
      const uint64_t b = ptx::descriptor_behind(first_b, ring.stage * Tile::B_BYTES);
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < Tile::BK / 16; k++)
        ptx::wgmma<T, !Job::A_ALONG_K, !Job::B_ALONG_K>(sum, ptx::descriptor_behind(a, k * STEP_A),
                                                        ptx::descriptor_behind(b, k * STEP_B), step > 0 || k > 0);
      ptx::wgmma_commit();
      if (step > 0) {
        ptx::wgmma_wait<1>();  // the products of the step before have ended
        together.give_back(&shared.empty[multiplied]);
      }
      multiplied = ring.stage;
      ring.advance();
    }
    ptx::wgmma_wait<0>();
    if (steps > 0) together.give_back(&shared.empty[multiplied]);
    if constexpr (Job::STORE_BY_TMA) {
      store_by_tma<Tile, T>(shared, job, place, sum, consumer, together, ring, buffer);
    } else {
#pragma unroll
      for (int first = 0; first < Tile::COLUMNS; first += Tile::OUT_COLUMNS)
        hand_out_fragments<Tile::VECTOR>(
            shared.out[consumer * 4 + warp].rows, [&](int j, int v) { return sum[first / 2 + j * 4 + v]; },
            [&](int row, int column, const float (&values)[Tile::VECTOR]) {
              job.write(place, first_row + warp * 16 + row, first_column + first + column, values);
            });
    }
  }
  if constexpr (Job::STORE_BY_TMA)
    if (threadIdx.x % 32 == 0) ptx::tma_store_wait_read<0>();  // shared memory must outlast the stores
}

// All tiles of the launch; every thread of the block calls it.
template <class Tile, class T, class Job>
__device__ inline void multiply_wgmma_tiles(typename Tile::template Shared<T>& shared, const Job& job) {
  const BlocksTogether together = BlocksTogether::here();
  if (threadIdx.x == 0) {
    for (int s = 0; s < Tile::STAGES; s++) {
      ptx::mbarrier_init(&shared.full[s], 1);
      ptx::mbarrier_init(&shared.empty[s], Tile::CONSUMERS * together.blocks);
    }
    ptx::fence_mbarrier_init();
  }
  together.meet();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    ptx::decrease_registers<40>();
    if (threadIdx.x == 0) produce_tiles<Tile, T>(shared, job, together);
  } else {
    ptx::increase_registers<232>();
    consume_tiles<Tile, T>(shared, job, warpgroup - 1, together);
  }
  if (together.blocks > 1) together.meet();
}
