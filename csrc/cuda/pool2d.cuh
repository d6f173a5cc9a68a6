// Max- and average-pooling in NHWC: x (N, H, W, C), y (N, P, Q, C). A thread has VECTOR neighbouring channels, 16 bytes
// of them where channels and addresses are multiples of that, else 4 bytes or one element.
//
//   forward   one thread an output; max also stores the winner's r*S + s, counted from the window's start, one byte
//   where
//             that fits; averages of large windows, as of global pooling, are shared by the threads of a block
//   backward  one thread an input, which gathers from the windows that hold it, in order: no atomics, the same bits
//             every time
//
// Max: padding never wins, the first of equal values in row-major order wins, a NaN wins over everything. Avg: divided
// by the shape's divisor, or where that is 0 by the real elements, with count_include_pad by all of the window that
// lies in the padded input; dilation is 1. Adaptive windows cover rows floor(p*H/P) to ceil((p+1)*H/P) - 1. R*S
// comparisons for one output are little beside its traffic of 4 (|x| + |y|) bytes; a block is 32 runs of channels by 8
// lines, so that most of what overlapping windows share is read from L1.
#pragma once
#include "../shapes.h"
#include "line.cuh"
#include "run.cuh"

constexpr int POOL_THREADS = 256;

// The input positions of one output along one axis: start + tap * dilation, tap in [0, taps), some outside the input.
struct Window {
  int start, taps, dilation, size;
  __device__ int position(int tap) const { return start + tap * dilation; }
  __device__ bool holds(int tap) const { return position(tap) >= 0 && position(tap) < size; }
};

// windows of adaptive pooling start at floor(output * size / outputs); a product of two sizes fits 32 bits (shapes.py)
__device__ inline Window adaptive_window(int output, int outputs, int size) {
  const int start = output * size / outputs, stop = ((output + 1) * size + outputs - 1) / outputs;
  return {start, stop - start, 1, size};
}

template <class Shape>
__device__ inline Window window_h(const Shape& shape, int p) {
  if (shape.adaptive) return adaptive_window(p, shape.P, shape.H);
  return {p * shape.stride_h - shape.pad_h, shape.R, shape.dilation_h, shape.H};
}

template <class Shape>
__device__ inline Window window_w(const Shape& shape, int q) {
  if (shape.adaptive) return adaptive_window(q, shape.Q, shape.W);
  return {q * shape.stride_w - shape.pad_w, shape.S, shape.dilation_w, shape.W};
}

// elements of a window along one axis that an average counts
__device__ inline int counted(const Window& window, int pad, bool include_pad) {
  const int end = window.start + window.taps, limit = include_pad ? window.size + pad : window.size;
  return (end < limit ? end : limit) - (window.start >= 0 || include_pad ? window.start : 0);
}

template <class Shape>
__device__ inline float divisor(const Shape& shape, const Window& rows, const Window& columns) {
  if (shape.divisor) return static_cast<float>(shape.divisor);
  const bool include_pad = shape.count_include_pad;
  return static_cast<float>(counted(rows, shape.pad_h, include_pad) * counted(columns, shape.pad_w, include_pad));
}

// Channels c + [0, VECTOR) of output (n, p, q) in an array (N, P, Q, C), or of input (n, h, w) in one (N, H, W, C)
template <int VECTOR>
struct Spot : Place {
  int n, p, q, c;

  __device__ Spot(int N, int P, int Q, int C)
      : Place(Q * (C / VECTOR), N * P),
        n(line / P),
        p(line % P),
        q(column / (C / VECTOR)),
        c(column % (C / VECTOR) * VECTOR) {
    index *= VECTOR;
  }
};

// body(values, r*S + s) for the elements of a window, in row-major order; up to AHEAD of a row are loaded before the
// first is used. image: of channel c
template <int VECTOR, class T, class Shape, class Body>
__device__ __forceinline__ void for_each_tap(const T* image, const Shape& shape, const Window& rows,
                                             const Window& columns, Body body) {
  constexpr int AHEAD = 3;
  for (int r = 0; r < rows.taps; r++) {
    if (!rows.holds(r)) continue;
    const T* line = image + static_cast<long long>(rows.position(r)) * shape.W * shape.C;
    for (int first = 0; first < columns.taps; first += AHEAD) {
      Run<T, VECTOR> held[AHEAD];
#pragma unroll
      for (int i = 0; i < AHEAD; i++)
        if (first + i < columns.taps && columns.holds(first + i))
          held[i] = *reinterpret_cast<const Run<T, VECTOR>*>(
              line + static_cast<long long>(columns.position(first + i)) * shape.C);
#pragma unroll
      for (int i = 0; i < AHEAD; i++)
        if (first + i < columns.taps && columns.holds(first + i)) body(held[i], r * shape.S + first + i);
    }
  }
}

// index may be null; three blocks a multiprocessor, of at most 80 registers a thread, keep enough loads under way
template <class T, class Index, class Shape, int VECTOR>
__global__ void __launch_bounds__(POOL_THREADS, 3)
    pool2d_forward_max(const T* __restrict__ x, T* __restrict__ y, Index* __restrict__ index, Shape shape) {
  const Spot<VECTOR> at(shape.N, shape.P, shape.Q, shape.C);
  if (!at.inside) return;
  const Window rows = window_h(shape, at.p), columns = window_w(shape, at.q);
  const T* image = x + static_cast<long long>(at.n) * shape.H * shape.W * shape.C + at.c;

  bool any = false;
  float best[VECTOR] = {};  // read only once there is a winner
  Run<Index, VECTOR> winner;
  for_each_tap<VECTOR>(image, shape, rows, columns, [&](const Run<T, VECTOR>& held, int tap) {
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
      const float value = to_float(held.value[v]);
      if (!any || value > best[v] || (value != value && best[v] == best[v])) {
        best[v] = value;
        winner.value[v] = static_cast<Index>(tap);
      }
    }
    any = true;
  });
  store_run(y + at.index, best);
  if (index) *reinterpret_cast<Run<Index, VECTOR>*>(index + at.index) = winner;
}

template <class T, class Shape, int VECTOR>
__global__ void __launch_bounds__(POOL_THREADS, 1)
    pool2d_forward_avg(const T* __restrict__ x, T* __restrict__ y, Shape shape) {
  const Spot<VECTOR> at(shape.N, shape.P, shape.Q, shape.C);
  if (!at.inside) return;
  const Window rows = window_h(shape, at.p), columns = window_w(shape, at.q);
  const T* image = x + static_cast<long long>(at.n) * shape.H * shape.W * shape.C + at.c;

  float sum[VECTOR] = {};
  for_each_tap<VECTOR>(image, shape, rows, columns, [&](const Run<T, VECTOR>& held, int) {
#pragma unroll
    for (int v = 0; v < VECTOR; v++) sum[v] += to_float(held.value[v]);
  });
  const float count = divisor(shape, rows, columns);
#pragma unroll
  for (int v = 0; v < VECTOR; v++) sum[v] /= count;
  store_run(y + at.index, sum);
}

struct PoolShared {
  float sum[8 * POOL_THREADS];  // [channel of the run][threadIdx.y][threadIdx.x]
};

// A block has blockDim.x runs of channels of one output, its threads along y every blockDim.y-th element of the window,
// powers of two; they add up pairwise.
template <class T, class Shape, int VECTOR>
__global__ void __launch_bounds__(POOL_THREADS, 1)
    pool2d_forward_avg_shared(const T* __restrict__ x, T* __restrict__ y, Shape shape) {
  DYN_SMEM(PoolShared, shared);
  const int tiles = (shape.C / VECTOR + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x);
  const int c =
      (static_cast<int>(blockIdx.x) % tiles * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * VECTOR;
  const int output = static_cast<int>(blockIdx.x) / tiles;  // (n*P + p)*Q + q
  const int q = output % shape.Q, p = output / shape.Q % shape.P, n = output / shape.Q / shape.P;
  const Window rows = window_h(shape, p), columns = window_w(shape, q);
  const T* image = x + static_cast<long long>(n) * shape.H * shape.W * shape.C + c;

  const int step_r = static_cast<int>(blockDim.y) / columns.taps, step_s = static_cast<int>(blockDim.y) % columns.taps;
  int r = static_cast<int>(threadIdx.y) / columns.taps, s = static_cast<int>(threadIdx.y) % columns.taps;
  float sum[VECTOR] = {};
#pragma unroll 4
  while (r < rows.taps) {
    const long long pixel = static_cast<long long>(rows.position(r)) * shape.W + columns.position(s);
    float values[VECTOR];
    load_run(image + pixel * shape.C, c < shape.C && rows.holds(r) && columns.holds(s), values);
#pragma unroll
    for (int v = 0; v < VECTOR; v++) sum[v] += values[v];
    r += step_r, s += step_s;
    if (s >= columns.taps) s -= columns.taps, r++;
  }

  float* mine = shared->sum + threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int v = 0; v < VECTOR; v++) mine[v * POOL_THREADS] = sum[v];
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
#pragma unroll
      for (int v = 0; v < VECTOR; v++) mine[v * POOL_THREADS] += mine[v * POOL_THREADS + half * blockDim.x];
    }
  }
  if (threadIdx.y > 0 || c >= shape.C) return;
  const float count = divisor(shape, rows, columns);
#pragma unroll
  for (int v = 0; v < VECTOR; v++) sum[v] = mine[v * POOL_THREADS] / count;
  store_run(y + static_cast<long long>(output) * shape.C + c, sum);
}

// The outputs along one axis whose windows may hold an input position: [first, last].
struct Reach {
  int first, last;
};

__device__ inline Reach reach(int position, int outputs, int size, int taps, int stride, int pad, int dilation,
                              bool adaptive) {
  if (adaptive) {
    const int first = position * outputs / size, last = ((position + 1) * outputs + size - 1) / size - 1;
    return {first, last};
  }
  const int span = dilation * (taps - 1) + 1, after = position + pad;  // a window starts in (after - span, after]
  const int first = after < span ? 0 : (after - span) / stride + 1, last = after / stride;
  return {first, last < outputs ? last : outputs - 1};
}

// the tap that lies on a position, or -1
__device__ inline int tap_of(const Window& window, int position) {
  int tap = position - window.start;
  if (window.dilation != 1) {
    if (tap % window.dilation != 0) return -1;
    tap /= window.dilation;
  }
  return tap >= 0 && tap < window.taps ? tap : -1;
}

// term(output, rows, columns, r*S + s) for the windows that hold input `at` (n, h, w, c), in order; output is the index
// of channel c of theirs in y
template <class Shape, int VECTOR, class Term>
__device__ __forceinline__ void gather_windows(const Shape& shape, const Spot<VECTOR>& at, Term term) {
  const bool adaptive = shape.adaptive;
  const Reach ps = reach(at.p, shape.P, shape.H, shape.R, shape.stride_h, shape.pad_h, shape.dilation_h, adaptive);
  const Reach qs = reach(at.q, shape.Q, shape.W, shape.S, shape.stride_w, shape.pad_w, shape.dilation_w, adaptive);
  for (int p = ps.first; p <= ps.last; p++) {
    const Window rows = window_h(shape, p);
    const int r = tap_of(rows, at.p);
    if (r < 0) continue;
    const long long line = (static_cast<long long>(at.n) * shape.P + p) * shape.Q;
#pragma unroll 2
    for (int q = qs.first; q <= qs.last; q++) {
      const Window columns = window_w(shape, q);
      const int s = tap_of(columns, at.q);
      if (s >= 0) term((line + q) * shape.C + at.c, rows, columns, r * shape.S + s);
    }
  }
}

template <class T, class Index, class Shape, int VECTOR>
__global__ void __launch_bounds__(POOL_THREADS, 1)
    pool2d_backward_max(const T* __restrict__ dy, const Index* __restrict__ index, T* __restrict__ dx, Shape shape) {
  const Spot<VECTOR> at(shape.N, shape.H, shape.W, shape.C);
  if (!at.inside) return;
  float sum[VECTOR] = {};
  gather_windows(shape, at, [&](long long output, const Window&, const Window&, int tap) {
    const Run<Index, VECTOR> winner = *reinterpret_cast<const Run<Index, VECTOR>*>(index + output);
    float values[VECTOR];
    load_run(dy + output, values);
#pragma unroll
    for (int v = 0; v < VECTOR; v++) sum[v] += static_cast<int>(winner.value[v]) == tap ? values[v] : 0.0f;
  });
  store_run(dx + at.index, sum);
}

template <class T, class Shape, int VECTOR>
__global__ void __launch_bounds__(POOL_THREADS, 1)
    pool2d_backward_avg(const T* __restrict__ dy, T* __restrict__ dx, Shape shape) {
  const Spot<VECTOR> at(shape.N, shape.H, shape.W, shape.C);
  if (!at.inside) return;
  float sum[VECTOR] = {};
  gather_windows(shape, at, [&](long long output, const Window& rows, const Window& columns, int) {
    const float count = divisor(shape, rows, columns);
    float values[VECTOR];
    load_run(dy + output, values);
#pragma unroll
    for (int v = 0; v < VECTOR; v++) sum[v] += values[v] / count;
  });
  store_run(dx + at.index, sum);
}
