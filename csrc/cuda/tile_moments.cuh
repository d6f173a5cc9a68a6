// The moments of a block's tile: of each column mean and sum of squares about it, taken from registers as the tile is
// stored. A convolution leaves them for the batch norm behind it, which then reads y once instead of twice.
//
// A lane takes its values about its first one, so that data far from 0 loses no digits; lanes that hold the same
// columns are joined by shuffles, warps above each other through shared memory, tiles by norm_join_tiles of norm.cuh:
// all by the formula of norm_columns.cuh, in an order that follows the tile alone.
#pragma once
#include "epilogue.cuh"
#include "platform.cuh"

struct Moments {
  float count, mean, square;  // count: of values that exist; square: the sum of squares about the mean
};

// What the warps of a block found; WARPS above each other
template <int WARPS, int COLUMNS>
struct TileMoments {
  float count[WARPS][COLUMNS], mean[WARPS][COLUMNS], square[WARPS][COLUMNS];

  __device__ Moments of(int warp, int column) const {
    return {count[warp][column], mean[warp][column], square[warp][column]};
  }
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

// One column of all warps, `of(warp)`: (mean, sum of squares about it) to[0] and to[next]
template <int WARPS, class Of>
__device__ inline void store_moments(const Of& of, float* to, int next) {
  Moments all = of(0);
#pragma unroll
  for (int w = 1; w < WARPS; w++) {
    const Moments more = of(w);
    const float total = all.count + more.count, share = more.count > 0.0f ? more.count / total : 0.0f;
    const float d = more.mean - all.mean;
    all.square += more.square + d * d * (all.count * share);
    all.mean += d * share;
    all.count = total;
  }
  to[0] = all.mean, to[next] = all.square;
}

template <int WARPS, int COLUMNS>
__device__ inline void store_tile_moments(const TileMoments<WARPS, COLUMNS>& moments, int column, float* to, int next) {
  store_moments<WARPS>([&](int warp) { return moments.of(warp, column); }, to, next);
}
