// Normalisation of x (N, L, G, D) to mean 0 and variance 1 over L and D, for each n and g, then gain and offset (G*D,),
// a residual and relu; and the epilogue as a pass of its own. In float32 whatever T is; what combines blocks in double.
// Layer norm, L == 1, is in norm_rows.cuh.
//
// A walk by columns (batch, group, instance norm): x[n] is a matrix of L rows of C = G*D channels. A block is
// blockDim.x neighbouring channels by blockDim.y rows, powers of two; it takes `chunk` rows of one matrix, `splits`
// blocks share a column. A thread sums about its own first value, and means are kept relative to the group's first, so
// that data far from 0 loses no digits; the block joins its threads pairwise, a second kernel joins the blocks, a third
// writes. The split follows the shape alone: the same bits every time. Traffic in float32: forward reads x twice and
// writes y, 12 bytes an element; backward 20 and, after relu, 8 more for y.
#pragma once
#include "../shapes.h"
#include "epilogue.cuh"
#include "platform.cuh"

constexpr int NORM_THREADS = 256;

struct NormShared {
  float first[NORM_THREADS], second[NORM_THREADS], count[NORM_THREADS];  // [row of the block][lane]
};

struct NormDoubles {
  double first[NORM_THREADS], second[NORM_THREADS], count[NORM_THREADS];
};

// Where a thread of the walk by columns works: channel c of matrix n, rows first, first + blockDim.y, ... below end.
struct Column {
  long long n;
  int c, split;
  long long first, end;
  bool busy;  // the channel exists

  template <class Shape>
  __device__ Column(const Shape& shape, int chunk, int splits) {
    const int C = shape.G * shape.D, tiles = (C + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x);
    c = static_cast<int>(blockIdx.x) % tiles * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    split = static_cast<int>(blockIdx.x) / tiles % splits;
    n = static_cast<int>(blockIdx.x) / tiles / splits;
    const long long begin = static_cast<long long>(split) * chunk;
    first = begin + threadIdx.y;
    end = begin + chunk < shape.L ? begin + chunk : shape.L;
    busy = c < C;
  }
};

// Adds two values of all threads with the same threadIdx.x pairwise into threadIdx.y == 0.
template <class Shared, class Real>
__device__ void add_block_rows(Shared* shared, Real& first, Real& second) {
  const unsigned mine = threadIdx.y * blockDim.x + threadIdx.x;
  shared->first[mine] = first, shared->second[mine] = second;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
      shared->first[mine] += shared->first[mine + half * blockDim.x];
      shared->second[mine] += shared->second[mine + half * blockDim.x];
    }
  }
  first = shared->first[mine], second = shared->second[mine];
}

// Joins (count, mean, sum of squares about it) of the threads with the same threadIdx.x pairwise into threadIdx.y == 0.
// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
template <class Shared, class Real>
__device__ void join_block_rows(Shared* shared, Real& count, Real& mean, Real& square) {
  const unsigned mine = threadIdx.y * blockDim.x + threadIdx.x;
  shared->count[mine] = count, shared->first[mine] = mean, shared->second[mine] = square;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    const unsigned other = mine + half * blockDim.x;
    if (threadIdx.y < half && shared->count[other] > 0) {
      const Real more = shared->count[other], total = count + more, d = shared->first[other] - mean;
      mean += d * (more / total);
      square += shared->second[other] + d * d * (count * more / total);
      count = total;
      shared->count[mine] = count, shared->first[mine] = mean, shared->second[mine] = square;
    }
  }
}

__device__ inline float relu_mask(float dy, float y) {
  return y <= 0.0f ? 0.0f : dy;
}

// ---- one pass: y = activation((x + bias) * scale + shift + residual); y may be x

template <class T, class Shape>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    apply_epilogue(const T* x, T* y, const T* bias, const T* scale, const T* shift, const T* residual, int relu,
                   int chunk, int splits, Shape shape) {
  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  const Column place(shape, chunk, splits);
  if (!place.busy) return;
  for (long long row = place.first; row < place.end; row += blockDim.y) {
    const long long index = row * shape.G + place.c;
    y[index] = epilogue(to_float(x[index]), place.c, index);
  }
}

// ---- by columns, forward

// partial (N, splits, 2, C): mean, less the group's first value, and sum of squares about it, of a chunk's rows
template <class T, class Shape>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_channel_moments(const T* __restrict__ x, float* __restrict__ partial, int chunk, int splits, Shape shape) {
  DYN_SMEM(NormShared, shared);
  const Column place(shape, chunk, splits);
  const int C = shape.G * shape.D;
  const T* column = x + place.n * shape.L * C + place.c;

  float count = 0.0f, mean = 0.0f, square = 0.0f;
  if (place.busy && place.first < place.end) {
    const float shift = to_float(column[place.first * C]);
    for (long long row = place.first; row < place.end; row += blockDim.y) {
      const float d = to_float(column[row * C]) - shift;
      mean += d, square += d * d, count += 1.0f;
    }
    mean /= count;
    square -= mean * mean * count;
    mean += shift - to_float(column[place.c / shape.D * shape.D - place.c]);
  }
  join_block_rows(shared, count, mean, square);
  if (threadIdx.y == 0 && place.busy) {
    float* result = partial + (place.n * splits + place.split) * 2 * C + place.c;
    result[0] = mean, result[C] = square;
  }
}

// One block a group: its D channels and `splits` chunks joined; block (1, threads)
template <class T, class Shape>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_group_moments(const T* __restrict__ x, const float* __restrict__ partial, float* __restrict__ mean,
                       float* __restrict__ variance, int chunk, int splits, Shape shape) {
  DYN_SMEM(NormDoubles, shared);
  const long long n = blockIdx.x / shape.G;
  const int g = blockIdx.x % shape.G, C = shape.G * shape.D;
  const long long parts = static_cast<long long>(splits) * shape.D;

  double count = 0, middle = 0, square = 0;
  for (long long i = threadIdx.y; i < parts; i += blockDim.y) {
    const long long split = i / shape.D, left = shape.L - split * chunk, c = g * shape.D + i % shape.D;
    const float* part = partial + (n * splits + split) * 2 * C + c;
    const double more = left < chunk ? left : chunk, total = count + more, d = part[0] - middle;
    middle += d * (more / total);
    square += part[C] + d * d * (count * more / total);
    count = total;
  }
  join_block_rows(shared, count, middle, square);
  if (threadIdx.y == 0) {
    mean[blockIdx.x] = static_cast<float>(to_float(x[n * shape.L * C + g * shape.D]) + middle);
    variance[blockIdx.x] = static_cast<float>(square / count);
  }
}

template <class T, class Shape>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_apply(const T* __restrict__ x, const T* __restrict__ gain, const T* __restrict__ offset,
               const T* __restrict__ residual, T* __restrict__ y, const float* __restrict__ mean,
               const float* __restrict__ variance, float epsilon, int relu, int chunk, int splits, Shape shape) {
  const Column place(shape, chunk, splits);
  if (!place.busy) return;
  const long long statistic = place.n * shape.G + place.c / shape.D;
  const float middle = mean[statistic], rstd = 1.0f / sqrtf(variance[statistic] + epsilon);
  const float scale = gain ? rstd * to_float(gain[place.c]) : rstd, add = offset ? to_float(offset[place.c]) : 0.0f;
  for (long long row = place.first; row < place.end; row += blockDim.y) {
    const long long index = (place.n * shape.L + row) * shape.G * shape.D + place.c;
    float value = (to_float(x[index]) - middle) * scale + add;
    if (residual) value += to_float(residual[index]);
    if (relu) value = value <= 0.0f ? 0.0f : value;  // a NaN fails the comparison and stays
    y[index] = from_float<T>(value);
  }
}

// ---- by columns, backward: u = (x - mean) * rstd, dz = dy or 0 where y <= 0, du = dz * gain

// partial (N, splits, 2, C): sums of dz and of dz * u over a chunk's rows
template <class T, class Shape>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_channel_sums(const T* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ variance,
                      const T* __restrict__ y, const T* __restrict__ dy, float* __restrict__ partial, float epsilon,
                      int chunk, int splits, Shape shape) {
  DYN_SMEM(NormShared, shared);
  const Column place(shape, chunk, splits);
  const int C = shape.G * shape.D, g = place.c / shape.D;

  float sum_dz = 0.0f, sum_dzu = 0.0f;
  if (place.busy)
#pragma unroll 2  // more would take more than 80 registers
    for (long long row = place.first; row < place.end; row += blockDim.y) {
      const long long index = (place.n * shape.L + row) * C + place.c;
      const long long statistic = place.n * shape.G + g;
      float dz = to_float(dy[index]);
      if (y) dz = relu_mask(dz, to_float(y[index]));
      sum_dz += dz;
      sum_dzu += dz * ((to_float(x[index]) - mean[statistic]) / sqrtf(variance[statistic] + epsilon));
    }
  add_block_rows(shared, sum_dz, sum_dzu);
  if (threadIdx.y == 0 && place.busy) {
    float* result = partial + (place.n * splits + place.split) * 2 * C + place.c;
    result[0] = sum_dz, result[C] = sum_dzu;
  }
}

// averages (N, G, 2) of du and du * u; one block a group, block (1, threads)
template <class T, class Shape>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_group_sums(const float* __restrict__ partial, const T* __restrict__ gain, float* __restrict__ averages,
                    int splits, Shape shape) {
  DYN_SMEM(NormDoubles, shared);
  const long long n = blockIdx.x / shape.G;
  const int g = blockIdx.x % shape.G, C = shape.G * shape.D;
  double sum_du = 0, sum_duu = 0;
  for (long long i = threadIdx.y; i < static_cast<long long>(splits) * shape.D; i += blockDim.y) {
    const int c = g * shape.D + static_cast<int>(i % shape.D);
    const float* part = partial + (n * splits + i / shape.D) * 2 * C + c;
    const float factor = gain ? to_float(gain[c]) : 1.0f;
    sum_du += part[0] * factor, sum_duu += part[C] * factor;
  }
  add_block_rows(shared, sum_du, sum_duu);
  if (threadIdx.y == 0) {
    const double all = static_cast<double>(shape.L) * shape.D;
    averages[2ll * blockIdx.x] = static_cast<float>(sum_du / all);
    averages[2ll * blockIdx.x + 1] = static_cast<float>(sum_duu / all);
  }
}

// dgain, doffset (C,), either may be null, from partial (parts, 2, C); one thread a channel
template <class T>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_parameter_gradients(const float* __restrict__ partial, T* __restrict__ dgain, T* __restrict__ doffset,
                             long long parts, int C) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= C) return;
  double sum_dz = 0, sum_dzu = 0;
  for (long long i = 0; i < parts; i++) sum_dz += partial[2 * i * C + c], sum_dzu += partial[(2 * i + 1) * C + c];
  if (dgain) dgain[c] = from_float<T>(static_cast<float>(sum_dzu));
  if (doffset) doffset[c] = from_float<T>(static_cast<float>(sum_dz));
}

// dx = rstd * (du - average of du - u * average of du * u); dresidual = dz; either may be null
template <class T, class Shape>
__global__ void __launch_bounds__(NORM_THREADS, 1)
    norm_backward_apply(const T* __restrict__ x, const T* __restrict__ gain, const float* __restrict__ mean,
                        const float* __restrict__ variance, const T* __restrict__ y, const T* __restrict__ dy,
                        const float* __restrict__ averages, T* __restrict__ dx, T* __restrict__ dresidual,
                        float epsilon, int chunk, int splits, Shape shape) {
  const Column place(shape, chunk, splits);
  if (!place.busy) return;
  const long long statistic = place.n * shape.G + place.c / shape.D;
  const float middle = mean[statistic], rstd = 1.0f / sqrtf(variance[statistic] + epsilon);
  const float factor = gain ? to_float(gain[place.c]) : 1.0f;
  const float average = averages[2 * statistic], slope = averages[2 * statistic + 1];
  for (long long row = place.first; row < place.end; row += blockDim.y) {
    const long long index = (place.n * shape.L + row) * shape.G * shape.D + place.c;
    float dz = to_float(dy[index]);
    if (y) dz = relu_mask(dz, to_float(y[index]));
    if (dresidual) dresidual[index] = from_float<T>(dz);
    const float u = (to_float(x[index]) - middle) * rstd;
    if (dx) dx[index] = from_float<T>(rstd * (dz * factor - average - u * slope));
  }
}
