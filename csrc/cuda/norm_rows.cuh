// Normalisation of x (N, 1, G, D), layer norm: each row of D neighbours to mean 0 and variance 1, then gain and offset
// (G*D,), a residual and relu. In float32 whatever T is.
//
// A team of threads a row (row.cuh). A sum finds a value near the mean, and the variance is about that value, so that
// data far from 0 loses no digits. The gradients of gain and offset are sums over rows, in two stages: blocks add
// chunks of rows, a second kernel adds the blocks, in double; the same bits every time. Traffic in float32: forward
// reads x and writes y, 8 bytes an element; backward reads x and dy and writes dx, 12 bytes, the gradients of the
// parameters read x and dy again.
#pragma once
#include "../shapes.h"
#include "row.cuh"

struct NormRowShared {
  WarpResults first, second, third;
};

constexpr int NORM_SUMS_THREADS = 256;

struct NormSumsShared {
  float dz[8 * NORM_SUMS_THREADS], dzu[8 * NORM_SUMS_THREADS];  // [channel of the run][threadIdx.y][threadIdx.x]
};

struct NormTotalsShared {
  double dz[NORM_SUMS_THREADS], dzu[NORM_SUMS_THREADS];  // [threadIdx.y][threadIdx.x]
};

// Row of this team: D elements from `start` on, channels from `channel` on; without elements past the last row
struct NormRow {
  long long row, start;
  int channel, length;

  template <class Shape>
  __device__ explicit NormRow(const Shape& shape) {
    row = static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y;
    start = row * shape.D;
    channel = static_cast<int>(row % shape.G) * shape.D;
    length = row < static_cast<long long>(shape.N) * shape.G ? shape.D : 0;
  }
};

template <class T, class Shape, int LENGTH, int KEPT>
__global__ void __launch_bounds__(ROW_THREADS, 1)
    norm_forward_rows(const T* __restrict__ x, const T* __restrict__ gain, const T* __restrict__ offset,
                      const T* __restrict__ residual, T* __restrict__ y, float* __restrict__ mean,
                      float* __restrict__ variance, float epsilon, int relu, Shape shape) {
  DYN_SMEM(NormRowShared, shared);
  const NormRow at(shape);
  const T* from = x + at.start;
  const float D = static_cast<float>(shape.D);

  RowPart<LENGTH, KEPT> values;
  float sum = 0.0f;
  for_each_run<LENGTH, KEPT>(at.length, [&](int i, unsigned c) {
    load_run(from + c, values[i]);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) sum += values[i][v];
  });
  const float shift = over_team<Add>(sum, shared->first) / D;

  float beyond = 0.0f, square = 0.0f;
  for_each_run<LENGTH, KEPT>(at.length, [&](int i, unsigned c) {
    if constexpr (KEPT == 0) load_run(from + c, values[i]);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) {
      const float d = values[i][v] - shift;
      beyond += d, square += d * d;
    }
  });
  beyond = over_team<Add>(beyond, shared->second) / D;
  const float var = over_team<Add>(square, shared->third) / D - beyond * beyond, rstd = 1.0f / sqrtf(var + epsilon);
  if (threadIdx.x == 0 && at.length > 0) mean[at.row] = shift + beyond, variance[at.row] = var;

  for_each_run<LENGTH, KEPT>(at.length, [&](int i, unsigned c) {
    if constexpr (KEPT == 0) load_run(from + c, values[i]);
    float result[LENGTH], factor[LENGTH], add[LENGTH], more[LENGTH];
    if (gain) load_run(gain + at.channel + c, factor);
    if (offset) load_run(offset + at.channel + c, add);
    if (residual) load_run(residual + at.start + c, more);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) {
      result[v] = (values[i][v] - shift - beyond) * rstd;
      if (gain) result[v] *= factor[v];
      if (offset) result[v] += add[v];
      if (residual) result[v] += more[v];
      if (relu) result[v] = result[v] <= 0.0f ? 0.0f : result[v];  // a NaN fails the comparison and stays
    }
    store_run(y + at.start + c, result);
  });
}

// u = (x - mean) * rstd, dz = dy or 0 where y <= 0, du = dz * gain: dx = rstd * (du - average of du - u * average of
// du * u); dresidual = dz; either may be null
template <class T, class Shape, int LENGTH, int KEPT>
__global__ void __launch_bounds__(ROW_THREADS, 1)
    norm_backward_rows(const T* __restrict__ x, const T* __restrict__ gain, const float* __restrict__ mean,
                       const float* __restrict__ variance, const T* __restrict__ y, const T* __restrict__ dy,
                       T* __restrict__ dx, T* __restrict__ dresidual, float epsilon, Shape shape) {
  DYN_SMEM(NormRowShared, shared);
  const NormRow at(shape);
  const float middle = at.length > 0 ? mean[at.row] : 0.0f, var = at.length > 0 ? variance[at.row] : 0.0f;
  const float rstd = 1.0f / sqrtf(var + epsilon), D = static_cast<float>(shape.D);

  RowPart<LENGTH, KEPT> u, du;
  const auto find = [&](int i, unsigned c, bool store) {
    load_run(x + at.start + c, u[i]);
    load_run(dy + at.start + c, du[i]);
    float result[LENGTH], factor[LENGTH];
    if (y) load_run(y + at.start + c, result);
    if (gain) load_run(gain + at.channel + c, factor);
#pragma unroll
    for (int v = 0; v < LENGTH; v++)
      if (y && result[v] <= 0.0f) du[i][v] = 0.0f;
    if (store) store_run(dresidual + at.start + c, du[i]);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) {
      u[i][v] = (u[i][v] - middle) * rstd;
      if (gain) du[i][v] *= factor[v];
    }
  };

  float sum_du = 0.0f, sum_duu = 0.0f;
  for_each_run<LENGTH, KEPT>(at.length, [&](int i, unsigned c) {
    find(i, c, dresidual != nullptr);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) sum_du += du[i][v], sum_duu += du[i][v] * u[i][v];
  });
  if (!dx) return;  // all threads
  const float average = over_team<Add>(sum_du, shared->first) / D;
  const float slope = over_team<Add>(sum_duu, shared->second) / D;

  for_each_run<LENGTH, KEPT>(at.length, [&](int i, unsigned c) {
    if constexpr (KEPT == 0) find(i, c, false);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) u[i][v] = rstd * (du[i][v] - average - u[i][v] * slope);
    store_run(dx + at.start + c, u[i]);
  });
}

// partial (splits, 2, C): sums of dz and of dz * u over `chunk` rows. A block is blockDim.x neighbouring runs of
// channels by blockDim.y rows, powers of two; it adds its threads pairwise.
template <class T, class Shape, int LENGTH>
__global__ void __launch_bounds__(NORM_SUMS_THREADS, 1)
    norm_parameter_sums(const T* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ variance,
                        const T* __restrict__ y, const T* __restrict__ dy, float* __restrict__ partial, float epsilon,
                        int chunk, Shape shape) {
  DYN_SMEM(NormSumsShared, shared);
  const int C = shape.G * shape.D, width = static_cast<int>(blockDim.x) * LENGTH, tiles = (C + width - 1) / width;
  const int c = static_cast<int>(blockIdx.x) % tiles * width + static_cast<int>(threadIdx.x) * LENGTH, g = c / shape.D;
  const long long split = static_cast<int>(blockIdx.x) / tiles, begin = split * chunk;
  const long long end = c >= C ? begin : begin + chunk < shape.N ? begin + chunk : shape.N;

  float sum_dz[LENGTH] = {}, sum_dzu[LENGTH] = {};
#pragma unroll 2
  for (long long n = begin + threadIdx.y; n < end; n += blockDim.y) {
    float value[LENGTH], dz[LENGTH], result[LENGTH];
    load_run(x + n * C + c, value);
    load_run(dy + n * C + c, dz);
    if (y) load_run(y + n * C + c, result);
    const float middle = mean[n * shape.G + g], rstd = 1.0f / sqrtf(variance[n * shape.G + g] + epsilon);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) {
      if (y && result[v] <= 0.0f) dz[v] = 0.0f;
      sum_dz[v] += dz[v];
      sum_dzu[v] += dz[v] * ((value[v] - middle) * rstd);
    }
  }

  const unsigned mine = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int v = 0; v < LENGTH; v++) {
    shared->dz[v * NORM_SUMS_THREADS + mine] = sum_dz[v];
    shared->dzu[v * NORM_SUMS_THREADS + mine] = sum_dzu[v];
  }
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
#pragma unroll
      for (int v = 0; v < LENGTH; v++) {
        const unsigned to = v * NORM_SUMS_THREADS + mine, from = to + half * blockDim.x;
        shared->dz[to] += shared->dz[from];
        shared->dzu[to] += shared->dzu[from];
      }
    }
  }
  if (threadIdx.y > 0 || c >= C) return;
#pragma unroll
  for (int v = 0; v < LENGTH; v++) {
    sum_dz[v] = shared->dz[v * NORM_SUMS_THREADS + mine];
    sum_dzu[v] = shared->dzu[v * NORM_SUMS_THREADS + mine];
  }
  float* sums = partial + split * 2 * C + c;
  store_run(sums, sum_dz);
  store_run(sums + C, sum_dzu);
}

// dgain, doffset (C,), either may be null, from partial (parts, 2, C). A block is blockDim.x neighbouring channels by
// blockDim.y parts, powers of two.
template <class T>
__global__ void __launch_bounds__(NORM_SUMS_THREADS, 1)
    norm_parameter_totals(const float* __restrict__ partial, T* __restrict__ dgain, T* __restrict__ doffset, int parts,
                          int C) {
  DYN_SMEM(NormTotalsShared, shared);
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const unsigned mine = threadIdx.y * blockDim.x + threadIdx.x;
  double dz = 0, dzu = 0;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.y); i < (c < C ? parts : 0); i += static_cast<int>(blockDim.y)) {
    const float* sums = partial + 2ll * i * C + c;
    dz += sums[0], dzu += sums[C];
  }
  shared->dz[mine] = dz, shared->dzu[mine] = dzu;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
      shared->dz[mine] += shared->dz[mine + half * blockDim.x];
      shared->dzu[mine] += shared->dzu[mine + half * blockDim.x];
    }
  }
  if (threadIdx.y > 0 || c >= C) return;
  if (dgain) dgain[c] = from_float<T>(static_cast<float>(shared->dzu[mine]));
  if (doffset) doffset[c] = from_float<T>(static_cast<float>(shared->dz[mine]));
}
