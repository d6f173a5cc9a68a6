// Normalisation of x (N, L, G, D), L > 1, to mean 0 and variance 1 over L and D, for each n and g (batch, group,
// instance norm), then gain and offset (G*D,), a residual and relu; and the epilogue as a pass of its own. In float32
// whatever T is; what combines blocks in double. Layer norm, L == 1: norm_rows.cuh.
//
// The walk by columns: norm_columns.cuh. A thread sums about its own first value, and means are kept relative to the
// group's first, so that data far from 0 loses no digits; the block joins its threads pairwise, a second kernel joins
// the blocks, a third writes. The split follows the shape alone: the same bits every time.
//
// Passes over memory: forward reads x twice, a residual once, and writes y; behind a convolution that left the moments
// of its tiles it reads x once. Backward reads x and dy twice and writes dx; after relu it reads y twice, too, but
// where the residual's gradient is wanted: the first pass writes that, which is the masked dy, and the second reads it
// in place of dy and y.
#pragma once
#include "../shapes.h"
#include "norm_columns.cuh"

__device__ inline float relu_mask(float dy, float y) {
  return y <= 0.0f ? 0.0f : dy;
}

// ---- one pass: y = activation((x + bias) * scale + shift + residual); y may be x

template <class T, class Shape, int VECTOR>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    apply_epilogue(const T* x, T* y, const T* bias, const T* scale, const T* shift, const T* residual, int relu,
                   int chunk, int splits, Shape shape) {
  const Epilogue<T> rest{nullptr, nullptr, nullptr, residual, relu};
  const Column<VECTOR> place(shape, chunk, splits);
  if (!place.busy) return;
  float before[VECTOR], factor[VECTOR], behind[VECTOR];
  load_channels(bias, place.c, 0.0f, before);
  load_channels(scale, place.c, 1.0f, factor);
  load_channels(shift, place.c, 0.0f, behind);
  for (long long row = place.first; row < place.end; row += blockDim.y) {
    const long long index = row * shape.G + place.c;
    float values[VECTOR];
    load_run(x + index, values);
#pragma unroll
    for (int v = 0; v < VECTOR; v++) values[v] = (values[v] + before[v]) * factor[v] + behind[v];
    rest.finish_run(y, values, index);
  }
}

// ---- forward

// partial (N, splits, 2, C): mean, less the group's first value, and sum of squares about it, of a chunk's rows
template <class T, class Shape, int VECTOR>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_channel_moments(const T* __restrict__ x, float* __restrict__ partial, int chunk, int splits, Shape shape) {
  using Shared = NormShared<float, VECTOR>;
  DYN_SMEM(Shared, shared);
  const Column<VECTOR> place(shape, chunk, splits);
  const int C = shape.G * shape.D;
  const T* matrix = x + place.n * shape.L * C;

  float count = 0.0f, mean[VECTOR] = {}, square[VECTOR] = {};
  if (place.busy && place.first < place.end) {
    float shift[VECTOR];
    load_run(matrix + place.first * C + place.c, shift);
#pragma unroll 4  // so many loads in flight
    for (long long row = place.first; row < place.end; row += blockDim.y) {
      float values[VECTOR];
      load_run(matrix + row * C + place.c, values);
#pragma unroll
      for (int v = 0; v < VECTOR; v++) {
        const float d = values[v] - shift[v];
        mean[v] += d, square[v] += d * d;
      }
      count += 1.0f;
    }
    float group_first[VECTOR];
    load_groups(matrix, place.c, shape.D, shape.D, group_first);
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      mean[v] /= count;
      square[v] -= mean[v] * mean[v] * count;
      mean[v] += shift[v] - group_first[v];
    }
  }
  join_block_rows(shared, count, mean, square);
  if (threadIdx.y == 0 && place.busy) {
    float* result = partial + (place.n * splits + place.split) * 2 * C + place.c;
    store_run(result, mean);
    store_run(result + C, square);
  }
}

// partial (splits, 2, C) from the moments (L, 2, C) that a convolution left of its L tiles: mean and sum of squares
// about it of `rows` pixels, in the last tile of `last`. `chunk` tiles a split; shape is (1, L, C, 1).
template <class Shape, int VECTOR>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_join_tiles(const float* __restrict__ moments, float* __restrict__ partial, int rows, int last, int chunk,
                    int splits, Shape shape) {
  using Shared = NormShared<float, VECTOR>;
  DYN_SMEM(Shared, shared);
  const Column<VECTOR> place(shape, chunk, splits);
  const int C = shape.G;

  float count = 0.0f, mean[VECTOR] = {}, square[VECTOR] = {};
  if (place.busy && place.first < place.end) {
    float shift[VECTOR];
    load_run(moments + place.first * 2 * C + place.c, shift);
#pragma unroll 2
    for (long long tile = place.first; tile < place.end; tile += blockDim.y) {
      const float pixels = static_cast<float>(tile + 1 == shape.L ? last : rows);
      float means[VECTOR], squares[VECTOR];
      load_run(moments + tile * 2 * C + place.c, means);
      load_run(moments + (tile * 2 + 1) * C + place.c, squares);
#pragma unroll
      for (int v = 0; v < VECTOR; v++) {
        const float d = means[v] - shift[v];
        mean[v] += pixels * d, square[v] += squares[v] + pixels * d * d;
      }
      count += pixels;
    }
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      mean[v] /= count;
      square[v] -= mean[v] * mean[v] * count;
      mean[v] += shift[v];
    }
  }
  join_block_rows(shared, count, mean, square);
  if (threadIdx.y == 0 && place.busy) {
    float* result = partial + static_cast<long long>(place.split) * 2 * C + place.c;
    store_run(result, mean);
    store_run(result + C, square);
  }
}

// The walk over partial results (N, splits, 2, C): threads above each other share a group's D channels and `splits`
// chunks, neighbouring threads have neighbouring groups of a matrix.
struct GroupParts {
  long long n;
  int g, split, d;  // channel d of the group, of chunk `split`
  bool busy;        // the group exists

  template <class Shape>
  __device__ explicit GroupParts(const Shape& shape) {
    const int lanes = static_cast<int>(blockDim.x), tiles = (shape.G + lanes - 1) / lanes;
    n = blockIdx.x / tiles;
    g = static_cast<int>(blockIdx.x) % tiles * lanes + static_cast<int>(threadIdx.x);
    split = static_cast<int>(threadIdx.y) / shape.D, d = static_cast<int>(threadIdx.y) % shape.D;
    busy = g < shape.G;
  }
  template <class Shape>
  __device__ void advance(const Shape& shape) {
    split += static_cast<int>(blockDim.y) / shape.D, d += static_cast<int>(blockDim.y) % shape.D;
    if (d >= shape.D) d -= shape.D, split++;
  }
  template <class Shape>
  __device__ int channel(const Shape& shape) const {
    return g * shape.D + d;
  }
  // of the first result; the second is C further
  template <class Shape>
  __device__ long long index(const Shape& shape, int splits) const {
    return (n * splits + split) * 2 * shape.G * shape.D + channel(shape);
  }
};

// mean and variance (N, G) from means and sums of squares of chunks of `chunk` rows, the last of what is left. Means
// are relative to the group's first value of x, where x is null to 0.
template <class T, class Shape>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_group_moments(const T* __restrict__ x, const float* __restrict__ partial, float* __restrict__ mean,
                       float* __restrict__ variance, int chunk, int splits, Shape shape) {
  using Shared = NormShared<double, 1>;
  DYN_SMEM(Shared, shared);
  GroupParts place(shape);
  const int C = shape.G * shape.D;

  double count = 0, middle[1] = {}, square[1] = {};
  if (place.busy && place.split < splits) {
    const double shift = partial[place.index(shape, splits)];
#pragma unroll 4
    for (; place.split < splits; place.advance(shape)) {
      const float* part = partial + place.index(shape, splits);
      const long long left = shape.L - static_cast<long long>(place.split) * chunk;
      const double more = static_cast<double>(left < chunk ? left : chunk), d = part[0] - shift;
      count += more, middle[0] += more * d, square[0] += part[C] + more * d * d;
    }
    middle[0] /= count;
    square[0] -= middle[0] * middle[0] * count;
    middle[0] += shift;
  }
  join_block_rows(shared, count, middle, square);
  if (threadIdx.y == 0 && place.busy) {
    const long long group = place.n * shape.G + place.g;
    const float first = x ? to_float(x[place.n * shape.L * C + static_cast<long long>(place.g) * shape.D]) : 0.0f;
    mean[group] = static_cast<float>(first + middle[0]);
    variance[group] = static_cast<float>(square[0] / count);
  }
}

template <class T, class Shape, int VECTOR>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_apply(const T* __restrict__ x, const T* __restrict__ gain, const T* __restrict__ offset,
               const T* __restrict__ residual, T* __restrict__ y, const float* __restrict__ mean,
               const float* __restrict__ variance, float epsilon, int relu, int chunk, int splits, Shape shape) {
  const Epilogue<T> rest{nullptr, nullptr, nullptr, residual, relu};
  const Column<VECTOR> place(shape, chunk, splits);
  if (!place.busy) return;
  const int C = shape.G * shape.D;
  float middle[VECTOR], scale[VECTOR], factor[VECTOR], add[VECTOR];
  load_groups(mean + place.n * shape.G, place.c, shape.D, 1, middle);
  load_groups(variance + place.n * shape.G, place.c, shape.D, 1, scale);
  load_channels(gain, place.c, 1.0f, factor);
  load_channels(offset, place.c, 0.0f, add);
#pragma unroll
  for (int v = 0; v < VECTOR; v++) scale[v] = 1.0f / sqrtf(scale[v] + epsilon) * factor[v];
  for (long long row = place.first; row < place.end; row += blockDim.y) {
    const long long index = (place.n * shape.L + row) * C + place.c;
    float values[VECTOR];
    load_run(x + index, values);
#pragma unroll
    for (int v = 0; v < VECTOR; v++) values[v] = (values[v] - middle[v]) * scale[v] + add[v];
    rest.finish_run(y, values, index);
  }
}

// ---- backward: u = (x - mean) * rstd, dz = dy or 0 where y <= 0, du = dz * gain

// partial (N, splits, 2, C): sums of dz and of dz * u over a chunk's rows; dresidual = dz where it is wanted.
template <class T, class Shape, int VECTOR>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_channel_sums(const T* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ variance,
                      const T* __restrict__ y, const T* __restrict__ dy, T* __restrict__ dresidual,
                      float* __restrict__ partial, float epsilon, int chunk, int splits, Shape shape) {
  using Shared = NormShared<float, VECTOR>;
  DYN_SMEM(Shared, shared);
  const Column<VECTOR> place(shape, chunk, splits);
  const int C = shape.G * shape.D;

  float sum_dz[VECTOR] = {}, sum_dzu[VECTOR] = {};
  if (place.busy) {
    float middle[VECTOR];
    load_groups(mean + place.n * shape.G, place.c, shape.D, 1, middle);
#pragma unroll 2  // more would take more than 128 registers
    for (long long row = place.first; row < place.end; row += blockDim.y) {
      const long long index = (place.n * shape.L + row) * C + place.c;
      float xs[VECTOR], dz[VECTOR];
      load_run(x + index, xs);
      load_run(dy + index, dz);
      if (y) {
        float ys[VECTOR];
        load_run(y + index, ys);
#pragma unroll
        for (int v = 0; v < VECTOR; v++) dz[v] = relu_mask(dz[v], ys[v]);
      }
      if (dresidual) store_run(dresidual + index, dz);
#pragma unroll
      for (int v = 0; v < VECTOR; v++) {
        sum_dz[v] += dz[v];
        sum_dzu[v] += dz[v] * (xs[v] - middle[v]);
      }
    }
    float deviation[VECTOR];
    load_groups(variance + place.n * shape.G, place.c, shape.D, 1, deviation);
#pragma unroll
    for (int v = 0; v < VECTOR; v++) sum_dzu[v] /= sqrtf(deviation[v] + epsilon);
  }
  add_block_rows(shared, sum_dz, sum_dzu);
  if (threadIdx.y == 0 && place.busy) {
    float* result = partial + (place.n * splits + place.split) * 2 * C + place.c;
    store_run(result, sum_dz);
    store_run(result + C, sum_dzu);
  }
}

// averages (2, N, G) of du and du * u; and where N is 1 and D is 1, so that groups are channels, dgain and doffset
// (C,). Each of the three may be null.
template <class T, class Shape>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_group_sums(const float* __restrict__ partial, const T* __restrict__ gain, float* __restrict__ averages,
                    T* __restrict__ dgain, T* __restrict__ doffset, int splits, Shape shape) {
  using Shared = NormShared<double, 1>;
  DYN_SMEM(Shared, shared);
  GroupParts place(shape);
  const int C = shape.G * shape.D;

  double sum_dz = 0, sum_dzu = 0;  // times gain where the group has several
  if (place.busy)
#pragma unroll 4
    for (; place.split < splits; place.advance(shape)) {
      const float* part = partial + place.index(shape, splits);
      const float factor = gain && shape.D > 1 ? to_float(gain[place.channel(shape)]) : 1.0f;
      sum_dz += part[0] * factor, sum_dzu += part[C] * factor;
    }
  add_block_rows(shared, sum_dz, sum_dzu);
  if (threadIdx.y > 0 || !place.busy) return;
  if (dgain) dgain[place.g] = from_float<T>(static_cast<float>(sum_dzu));
  if (doffset) doffset[place.g] = from_float<T>(static_cast<float>(sum_dz));
  if (averages) {
    const double factor = gain && shape.D == 1 ? to_float(gain[place.g]) : 1.0f;
    const double share = factor / (static_cast<double>(shape.L) * shape.D);
    const long long group = place.n * shape.G + place.g, groups = static_cast<long long>(shape.N) * shape.G;
    averages[group] = static_cast<float>(sum_dz * share);
    averages[groups + group] = static_cast<float>(sum_dzu * share);
  }
}

// dx = rstd * (du - average of du - u * average of du * u)
template <class T, class Shape, int VECTOR>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_backward_apply(const T* __restrict__ x, const T* __restrict__ gain, const float* __restrict__ mean,
                        const float* __restrict__ variance, const T* __restrict__ y, const T* __restrict__ dy,
                        const float* __restrict__ averages, T* __restrict__ dx, float epsilon, int chunk, int splits,
                        Shape shape) {
  const Column<VECTOR> place(shape, chunk, splits);
  if (!place.busy) return;
  const int C = shape.G * shape.D;
  const long long statistic = place.n * shape.G, groups = static_cast<long long>(shape.N) * shape.G;
  float middle[VECTOR], factor[VECTOR], average[VECTOR], slope[VECTOR];  // of dz, of 1 and of x - mean
  load_groups(mean + statistic, place.c, shape.D, 1, middle);
  load_groups(averages + statistic, place.c, shape.D, 1, average);
  load_groups(averages + groups + statistic, place.c, shape.D, 1, slope);
  load_channels(gain, place.c, 1.0f, factor);
  {
    float variances[VECTOR];
    load_groups(variance + statistic, place.c, shape.D, 1, variances);
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      const float rstd = 1.0f / sqrtf(variances[v] + epsilon);
      factor[v] *= rstd, average[v] *= rstd, slope[v] *= rstd * rstd;
    }
  }
  for (long long row = place.first; row < place.end; row += blockDim.y) {
    const long long index = (place.n * shape.L + row) * C + place.c;
    float xs[VECTOR], dz[VECTOR];
    load_run(x + index, xs);
    load_run(dy + index, dz);
    if (y) {
      float ys[VECTOR];
      load_run(y + index, ys);
#pragma unroll
      for (int v = 0; v < VECTOR; v++) dz[v] = relu_mask(dz[v], ys[v]);
    }
#pragma unroll
    for (int v = 0; v < VECTOR; v++) dz[v] = dz[v] * factor[v] - average[v] - (xs[v] - middle[v]) * slope[v];
    store_run(dx + index, dz);
  }
}
