// How results of 16 bits leave wgmma's registers: each warp packs its 16 rows of 64 columns into a panel of shared
// memory with stmatrix, and TMA writes the panel to the matrix of results, whose edges it knows. The warp goes on, into
// the next tile too, and waits only before it fills a panel again that TMA may not have read yet.
//
//   panel   16 rows of 128 bytes in TMA's 128-byte swizzle: chunk c of row r lies at c ^ (r % 8), so that the eight
//   rows
//           which stmatrix writes at once lie in all banks
//
// What is added to the results (a residual) comes the way of operand a, through the ring: for each 64 columns the
// producer brings a stage of all the tile's rows, which ldmatrix reads in the accumulators' order.
//
// A job with STORE_BY_TMA says
//   const CUtensorMap *out, *added     the results and what is added: boxes of 64 columns, 16 and BM rows
//   bool adds                          whether anything is
//   int outputs()                      columns of the results
//   int first_row(Place), first_column(Place)
//   void apply_channels(float (&value)[2][2], int column)   two rows of two neighbours
//   float finish(float value)          after the addition
//   LEAVES_MOMENTS                     whether it has
//   float* moments                     null, or (rows of results / 64, 2, columns of results): see tile_moments.cuh
//   int rows()                         of results
#pragma once
#include "epilogue.cuh"
#include "tile_moments.cuh"
#include "wgmma_ring.cuh"

template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  const Run<T, 2> pair{from_float<T>(low), from_float<T>(high)};
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Panels of a tile that have a column of the results
template <class Tile, class Job>
__device__ inline int panels_of(const Job& job, const typename Job::Place& place) {
  const int left = job.outputs() - job.first_column(place);
  return (left < Tile::BN ? left + Tile::BLOCK - 1 : Tile::BN) / Tile::BLOCK;
}

// Moments of the columns of a consumer's 64 rows, as stored. Each warp takes those of its 16 rows from its panels: a
// lane two columns of each panel, and a row of 32 such pairs lies in all banks. The four warps meet in the panels that
// come next.
template <class Tile, class T>
struct WarpgroupMoments {
  static constexpr int ROWS = 64, PANELS = Tile::BN / Tile::BLOCK;
  static_assert(2 * Tile::BN * sizeof(float) <= sizeof(uint4[16][8]), "a panel holds mean and square of each column");
  float mean[PANELS][2], square[PANELS][2];

  __device__ static int rows_of(int rows, int warp) {  // that exist, of the warpgroup's `rows`
    return rows - warp * 16 < 16 ? (rows > warp * 16 ? rows - warp * 16 : 0) : 16;
  }

  __device__ void take(const uint4 (&stored)[16][8], int panel, int rows) {
    const int lane = threadIdx.x % 32;
    ColumnMoments<T, 2> columns;
#pragma unroll
    for (int row = 0; row < 16; row++)
      if (row < rows) columns.add(reinterpret_cast<const Run<T, 2>*>(&stored[row][(lane / 4) ^ (row % 8)])[lane % 4]);
    columns.template join<32>();
#pragma unroll
    for (int v = 0; v < 2; v++) mean[panel][v] = columns.mean[v], square[panel][v] = columns.square[v];
  }

  // `out`: of the consumer's four warps. Column c's go to to[c] and to[next + c], of the first `count` columns
  __device__ void store(typename Tile::Out* out, int buffer, int consumer, int rows, float* to, int next, int count) {
    const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    if (lane == 0) ptx::tma_store_wait_read<1>();  // TMA has read the panel
    __syncwarp();
    float* mine = reinterpret_cast<float*>(&out[warp].panel[buffer]);
#pragma unroll
    for (int panel = 0; panel < PANELS; panel++) {
      if (panel * Tile::BLOCK >= count) break;
      const int column = panel * Tile::BLOCK + lane * 2;
      *reinterpret_cast<float2*>(mine + column) = make_float2(mean[panel][0], mean[panel][1]);
      *reinterpret_cast<float2*>(mine + Tile::BN + column) = make_float2(square[panel][0], square[panel][1]);
    }
    ptx::named_barrier_sync(1 + consumer, 128);  // all have written
    for (int c = thread; c < Tile::BN && c < count; c += 128)
      store_moments<4>(
          [&](int w) {
            const float* theirs = reinterpret_cast<const float*>(&out[w].panel[buffer]);
            return Moments{static_cast<float>(rows_of(rows, w)), theirs[c], theirs[Tile::BN + c]};
          },
          to + c, next);
    ptx::named_barrier_sync(1 + consumer, 128);  // all have read
  }
};

// Whole warpgroups. `buffer`: which of the warp's two panels comes next
template <class Tile, class T, class Job>
__device__ inline void store_by_tma(typename Tile::template Shared<T>& shared, const Job& job,
                                    const typename Job::Place& place, float (&sum)[Tile::COLUMNS / 2], int consumer,
                                    const BlocksTogether& together, RingPosition<Tile::STAGES>& ring, int& buffer) {
  static_assert(Tile::COLUMNS == Tile::BN, "a consumer has all columns of its rows");
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const int first_row = Tile::first_row(consumer) + warp * 16;  // of the warp, in the tile
  const int row = lane % 16;  // whose address this lane gives, for one of two chunks that stand side by side
  const int panels = panels_of<Tile>(job, place);
  [[maybe_unused]] WarpgroupMoments<Tile, T> moments;
  int rows = 0;  // whose moments are wanted, of the consumer's
  if constexpr (Job::LEAVES_MOMENTS)
    if (job.moments) rows = job.rows() - job.first_row(place) - Tile::first_row(consumer);
#pragma unroll
  for (int panel = 0; panel < Tile::BN / Tile::BLOCK; panel++) {
    if (panel >= panels) break;
    const int first_column = job.first_column(place) + panel * Tile::BLOCK;
#pragma unroll
    for (int fragment = 0; fragment < 8; fragment++) {  // of 16 x 8
      const int i = panel * 32 + fragment * 4, column = first_column + fragment * 8 + lane % 4 * 2;
      float value[2][2] = {{sum[i], sum[i + 1]}, {sum[i + 2], sum[i + 3]}};
      if (column < job.outputs()) job.apply_channels(value, column);
      sum[i] = value[0][0], sum[i + 1] = value[0][1], sum[i + 2] = value[1][0], sum[i + 3] = value[1][1];
    }
    if (job.adds) ptx::mbarrier_wait(&shared.full[ring.stage], ring.parity);
    if (lane == 0) ptx::tma_store_wait_read<1>();  // the panel's last store has read it
    __syncwarp();
    uint4(&out)[16][8] = shared.out[consumer * 4 + warp].panel[buffer];
#pragma unroll
    for (int pair = 0; pair < 4; pair++) {  // of fragments
      float* value = sum + panel * 32 + pair * 8;
      const int chunk = (pair * 2 + lane / 16) ^ (row % 8);
      if (job.adds) {
        uint32_t bits[4];
        ptx::ldmatrix_x4(bits, shared.a[ring.stage] + (first_row + row) * Tile::BK + chunk * 8);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const Run<T, 2> added = *reinterpret_cast<const Run<T, 2>*>(&bits[i]);
          value[2 * i] += to_float(added.value[0]), value[2 * i + 1] += to_float(added.value[1]);
        }
      }
      uint32_t packed[4];
#pragma unroll
      for (int i = 0; i < 4; i++) packed[i] = pack<T>(job.finish(value[2 * i]), job.finish(value[2 * i + 1]));
      ptx::stmatrix_x4(&out[row][chunk], packed);
    }
    ptx::fence_proxy_async();
    __syncwarp();
    if constexpr (Job::LEAVES_MOMENTS)
      if (rows > 0) moments.take(out, panel, moments.rows_of(rows, warp));
    if (lane == 0) {
      ptx::tma_store_2d(job.out, &out, first_column, job.first_row(place) + first_row);
      ptx::tma_store_commit();
    }
    buffer ^= 1;
    if (job.adds) {
      ptx::named_barrier_sync(1 + consumer, 128);  // all warps have read the stage
      together.give_back(&shared.empty[ring.stage]);
      ring.advance();
    }
  }
  if constexpr (Job::LEAVES_MOMENTS)
    if (rows > 0) {
      const int first_column = job.first_column(place), tile = (job.first_row(place) + Tile::first_row(consumer)) / 64;
      moments.store(shared.out + consumer * 4, buffer, consumer, rows,
                    job.moments + static_cast<long long>(tile) * 2 * job.outputs() + first_column, job.outputs(),
                    job.outputs() - first_column);
    }
}
