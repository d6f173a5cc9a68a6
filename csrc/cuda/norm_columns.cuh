// The walk of norm.cuh by columns: a matrix of L rows of C = G * D channels, VECTOR neighbouring channels a thread.
// A block is blockDim.x such vectors by blockDim.y rows, a power of two; it takes `chunk` rows of one matrix, `splits`
// blocks share a column. With VECTOR of 16 bytes a thread reads and writes 16 bytes at a time, which needs C to be a
// multiple of VECTOR and all arrays to begin at a multiple of 16 bytes; VECTOR 1 takes any.
#pragma once
#include "epilogue.cuh"
#include "platform.cuh"

constexpr int NORM_THREADS = 256;

// By thread of the block, [row of the block][lane] for each of its channels: neighbouring lanes in different banks
template <class Real, int VECTOR>
struct NormShared {
  Real first[VECTOR][NORM_THREADS], second[VECTOR][NORM_THREADS], count[NORM_THREADS];
};

// Where a thread works: channels c + [0, VECTOR) of matrix n, rows first, first + blockDim.y, ... below end
template <int VECTOR>
struct Column {
  long long n;
  int c, split;
  long long first, end;
  bool busy;  // the channels exist

  template <class Shape>
  __device__ Column(const Shape& shape, int chunk, int splits) {
    const int vectors = shape.G * shape.D / VECTOR, lanes = static_cast<int>(blockDim.x);
    const int tiles = (vectors + lanes - 1) / lanes, block = static_cast<int>(blockIdx.x);
    const int vector = block % tiles * lanes + static_cast<int>(threadIdx.x);
    split = block / tiles % splits;
    n = block / tiles / splits;
    const long long begin = static_cast<long long>(split) * chunk;
    first = begin + threadIdx.y;
    end = begin + chunk < shape.L ? begin + chunk : shape.L;
    c = vector * VECTOR;
    busy = vector < vectors;
  }
};

// values[v]: of channel c + v, or what it is without an array
template <int VECTOR, class T>
__device__ inline void load_channels(const T* array, int c, float otherwise, float (&values)[VECTOR]) {
#pragma unroll
  for (int v = 0; v < VECTOR; v++) values[v] = otherwise;
  if (array) load_run(array + c, values);
}

// values[v]: of the group of channel c + v, from an array with one value each `step` elements. Of one channel a group
// they are neighbours.
template <int VECTOR, class T>
__device__ inline void load_groups(const T* array, int c, int D, int step, float (&values)[VECTOR]) {
  if (D == 1) {
    load_run(array + c, values);
  } else {
#pragma unroll
    for (int v = 0; v < VECTOR; v++) values[v] = to_float(array[static_cast<long long>((c + v) / D) * step]);
  }
}

// Adds two values a channel of all threads with the same threadIdx.x pairwise into threadIdx.y == 0
template <class Real, int VECTOR>
__device__ inline void add_block_rows(NormShared<Real, VECTOR>* shared, Real (&first)[VECTOR], Real (&second)[VECTOR]) {
  const unsigned mine = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int v = 0; v < VECTOR; v++) shared->first[v][mine] = first[v], shared->second[v][mine] = second[v];
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y >= half) continue;
    const unsigned other = mine + half * blockDim.x;
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      shared->first[v][mine] = first[v] += shared->first[v][other];
      shared->second[v][mine] = second[v] += shared->second[v][other];
    }
  }
}

template <class Real>
__device__ inline void add_block_rows(NormShared<Real, 1>* shared, Real& first, Real& second) {
  Real firsts[1] = {first}, seconds[1] = {second};
  add_block_rows(shared, firsts, seconds);
  first = firsts[0], second = seconds[0];
}

// Joins (count, mean, sum of squares about it) of the threads with the same threadIdx.x pairwise into threadIdx.y == 0.
// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
template <class Real, int VECTOR>
__device__ inline void join_block_rows(NormShared<Real, VECTOR>* shared, Real& count, Real (&mean)[VECTOR],
                                       Real (&square)[VECTOR]) {
  const unsigned mine = threadIdx.y * blockDim.x + threadIdx.x;
  shared->count[mine] = count;
#pragma unroll
  for (int v = 0; v < VECTOR; v++) shared->first[v][mine] = mean[v], shared->second[v][mine] = square[v];
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    const unsigned other = mine + half * blockDim.x;
    if (threadIdx.y >= half || shared->count[other] == 0) continue;
    const Real more = shared->count[other], total = count + more, share = more / total, weight = count * share;
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      const Real d = shared->first[v][other] - mean[v];
      shared->first[v][mine] = mean[v] += d * share;
      shared->second[v][mine] = square[v] += shared->second[v][other] + d * d * weight;
    }
    shared->count[mine] = count = total;
  }
}
