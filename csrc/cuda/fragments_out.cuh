// From the registers of mma and wgmma to rows: fragments of 16 x 8 sums, of which lane l holds (l/4, l%4*2 + {0, 1})
// and the same of row l/4 + 8, go through a corner of shared memory and come back as runs of neighbouring columns, so
// that global memory is written 16 bytes at a time.
#pragma once
#include "platform.cuh"

// 16 rows of a warp. Eight floats between them: the pairs that half a warp writes at once lie in different banks.
template <int COLUMNS_>
struct FragmentRows {
  static constexpr int COLUMNS = COLUMNS_, PAD = 8;
  static_assert(COLUMNS % 8 == 0, "whole fragments");
  alignas(16) float row[16][COLUMNS + PAD];
};

// VECTOR neighbours of shared memory, this lane's of runs that follow one another, in as few reads as may be. A quarter
// of a warp reads 16 bytes a lane at once, from all banks: of runs of 8 each second four lanes take the second half
// first.
template <int VECTOR>
__device__ inline void read_run(const float* shared, float (&values)[VECTOR]) {
  if constexpr (VECTOR == 8) {
    const bool second_first = threadIdx.x % 8 >= 4;
    const float4 a = *reinterpret_cast<const float4*>(shared + (second_first ? 4 : 0));
    const float4 b = *reinterpret_cast<const float4*>(shared + (second_first ? 0 : 4));
    const float4 low = second_first ? b : a, high = second_first ? a : b;
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
  } else if constexpr (VECTOR == 4) {
    const float4 four = *reinterpret_cast<const float4*>(shared);
    values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
  } else if constexpr (VECTOR == 2) {
    const float2 two = *reinterpret_cast<const float2*>(shared);
    values[0] = two.x, values[1] = two.y;
  } else {
    static_assert(VECTOR == 1, "runs of 1, 2, 4 or 8");
    values[0] = *shared;
  }
}

// Whole warps. sum(j, v) is the v-th of this lane's four sums in fragment j, columns [8j, 8j + 8);
// write(row, column, values) gets VECTOR neighbours, every run once.
template <int VECTOR, class Rows, class Sum, class Write>
__device__ inline void hand_out_fragments(Rows& rows, const Sum& sum, const Write& write) {
  constexpr int RUNS = Rows::COLUMNS / VECTOR;  // of a row
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < Rows::COLUMNS / 8; j++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float2 pair;
      pair.x = sum(j, half * 2), pair.y = sum(j, half * 2 + 1);
      *reinterpret_cast<float2*>(&rows.row[lane / 4 + half * 8][j * 8 + lane % 4 * 2]) = pair;
    }
  __syncwarp();
  for (int run = lane; run < 16 * RUNS; run += 32) {
    const int row = run / RUNS, column = run % RUNS * VECTOR;
    float values[VECTOR];
    read_run(&rows.row[row][column], values);
    write(row, column, values);
  }
  __syncwarp();
}
