// The moments of a block's tile: of each column mean and sum of squares about it, taken from registers as the tile is
// stored. A convolution leaves them for the batch norm behind it, which then reads y once instead of twice.
//
// A lane takes its values about its first one, so that data far from 0 loses no digits; lanes that hold the same
// columns are joined by shuffles, warps above each other through shared memory, tiles by norm_join_tiles of norm.cuh:
// all by the formula of norm_columns.cuh, in an order that follows the tile alone.
#pragma once
#include "epilogue.cuh"
#include "platform.cuh"

// What the warps of a block found; WARPS above each other
template <int WARPS, int COLUMNS>
struct TileMoments {
  float count[WARPS][COLUMNS], mean[WARPS][COLUMNS], square[WARPS][COLUMNS];  // count: of values that exist
};

// What a lane, and then a warp, found in VECTOR neighbouring columns of elements of type T
template <class T, int VECTOR>
struct ColumnMoments {
  float count = 0.0f, mean[VECTOR] = {}, square[VECTOR] = {};  // mean: a sum until `join`
  Run<T, VECTOR> first = {};

  __device__ void add(const Run<T, VECTOR>& stored) {
    if (count == 0.0f) first = stored;
    count += 1.0f;
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      const float d = to_float(stored.value[v]) - to_float(first.value[v]);
      mean[v] += d, square[v] += d * d;
    }
  }

  // Whole warps: over the lanes with the same lane % LANES, which hold the same columns
  template <int LANES>
  __device__ void join() {
    const float share = count > 0.0f ? 1.0f / count : 0.0f;
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      square[v] -= mean[v] * mean[v] * share;
      mean[v] = to_float(first.value[v]) + mean[v] * share;
    }
#pragma unroll
    for (int apart = LANES; apart < 32; apart *= 2) {
      const float more = __shfl_xor_sync(0xffffffffu, count, apart), total = count + more;
      const float share = total > 0.0f ? more / total : 0.0f, weight = count * share;
#pragma unroll
      for (int v = 0; v < VECTOR; v++) {
        const float d = __shfl_xor_sync(0xffffffffu, mean[v], apart) - mean[v];
        square[v] += __shfl_xor_sync(0xffffffffu, square[v], apart) + d * d * weight;
        mean[v] += d * share;
      }
      count = total;
    }
  }

  // by one of the lanes with the same columns
  template <class Moments>
  __device__ void write(Moments& moments, int warp, int column) const {
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      moments.count[warp][column + v] = count;
      moments.mean[warp][column + v] = mean[v];
      moments.square[warp][column + v] = square[v];
    }
  }
};

// The block's, of one column: (mean, sum of squares about it) to[0] and to[next]
template <int WARPS, int COLUMNS>
__device__ inline void store_tile_moments(const TileMoments<WARPS, COLUMNS>& moments, int column, float* to, int next) {
  float count = moments.count[0][column], mean = moments.mean[0][column], square = moments.square[0][column];
#pragma unroll
  for (int w = 1; w < WARPS; w++) {
    const float more = moments.count[w][column], total = count + more, share = more > 0.0f ? more / total : 0.0f;
    const float d = moments.mean[w][column] - mean;
    square += moments.square[w][column] + d * d * (count * share);
    mean += d * share;
    count = total;
  }
  to[0] = mean, to[next] = square;
}
