// Max- and average-pooling in NHWC: x (N, H, W, C), y (N, P, Q, C).
//
//   forward   one thread an output; max also stores the winner's r*S + s, counted from the window's start
//   backward  one thread an input, which gathers from the windows that hold it, in order: no atomics, the same bits
//             every time
//
// Max: padding never wins, the first of equal values in row-major order wins, a NaN wins over everything. Avg: divided
// by the shape's divisor, or where that is 0 by the real elements, with count_include_pad by all of the window that
// lies in the padded input. Adaptive windows cover rows floor(p*H/P) to ceil((p+1)*H/P) - 1. One rung, `direct`: R*S
// comparisons for one output are little beside its traffic of 4 (|x| + |y|) bytes, and overlapping windows meet in L1.
#pragma once
#include "../shapes.h"
#include "line.cuh"
#include "platform.cuh"

constexpr int POOL_THREADS = 256;  // no shared memory, few registers

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
  int count = 0;
  for (int tap = 0; tap < window.taps; tap++)
    count += include_pad ? window.start + tap < window.size + pad : window.holds(tap);
  return count;
}

template <class Shape>
__device__ inline float divisor(const Shape& shape, const Window& rows, const Window& columns) {
  if (shape.divisor) return static_cast<float>(shape.divisor);
  const bool include_pad = shape.count_include_pad;
  return static_cast<float>(counted(rows, shape.pad_h, include_pad) * counted(columns, shape.pad_w, include_pad));
}

// (n, p, q, c) of this thread's element of an array (N, P, Q, C), or (n, h, w, c) of one (N, H, W, C)
struct Element : Place {
  int n, p, q, c;
  __device__ Element(int P, int Q, int C) : Place(Q * C), n(line / P), p(line % P), q(column / C), c(column % C) {}
};

// index may be null
template <class T, class Index, class Shape>
__global__ void __launch_bounds__(POOL_THREADS, 1)
    pool2d_forward_max(const T* __restrict__ x, T* __restrict__ y, Index* __restrict__ index, Shape shape) {
  const Element at(shape.P, shape.Q, shape.C);
  if (!at.inside) return;
  const Window rows = window_h(shape, at.p), columns = window_w(shape, at.q);
  const T* image = x + static_cast<long long>(at.n) * shape.H * shape.W * shape.C + at.c;

  int winner = -1;
  float best = 0.0f;  // read only once there is a winner
  for (int r = 0; r < rows.taps; r++) {
    if (!rows.holds(r)) continue;
    for (int s = 0; s < columns.taps; s++) {
      if (!columns.holds(s)) continue;
      const long long pixel = static_cast<long long>(rows.position(r)) * shape.W + columns.position(s);
      const float value = to_float(image[pixel * shape.C]);
      if (winner < 0 || value > best || (value != value && best == best)) {
        best = value;
        winner = r * shape.S + s;
      }
    }
  }
  y[at.index] = from_float<T>(best);
  if (index) index[at.index] = static_cast<Index>(winner);
}

template <class T, class Shape>
__global__ void __launch_bounds__(POOL_THREADS, 1)
    pool2d_forward_avg(const T* __restrict__ x, T* __restrict__ y, Shape shape) {
  const Element at(shape.P, shape.Q, shape.C);
  if (!at.inside) return;
  const Window rows = window_h(shape, at.p), columns = window_w(shape, at.q);
  const T* image = x + static_cast<long long>(at.n) * shape.H * shape.W * shape.C + at.c;

  float sum = 0.0f;
  for (int r = 0; r < rows.taps; r++) {
    if (!rows.holds(r)) continue;
    for (int s = 0; s < columns.taps; s++) {
      if (!columns.holds(s)) continue;
      const long long pixel = static_cast<long long>(rows.position(r)) * shape.W + columns.position(s);
      sum += to_float(image[pixel * shape.C]);
    }
  }
  y[at.index] = from_float<T>(sum / divisor(shape, rows, columns));
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
  const int distance = position - window.start;
  if (distance < 0 || distance % window.dilation || distance / window.dilation >= window.taps) return -1;
  return distance / window.dilation;
}

// Adds up what the windows that hold input `at` (n, h, w, c) hand back; term(output, rows, columns, r*S + s).
template <class Shape, class Term>
__device__ inline float gather_windows(const Shape& shape, const Element& at, Term term) {
  const bool adaptive = shape.adaptive;
  const Reach ps = reach(at.p, shape.P, shape.H, shape.R, shape.stride_h, shape.pad_h, shape.dilation_h, adaptive);
  const Reach qs = reach(at.q, shape.Q, shape.W, shape.S, shape.stride_w, shape.pad_w, shape.dilation_w, adaptive);
  float sum = 0.0f;
  for (int p = ps.first; p <= ps.last; p++) {
    const Window rows = window_h(shape, p);
    const int r = tap_of(rows, at.p);
    if (r < 0) continue;
    for (int q = qs.first; q <= qs.last; q++) {
      const Window columns = window_w(shape, q);
      const int s = tap_of(columns, at.q);
      if (s < 0) continue;
      const long long line = static_cast<long long>(at.n) * shape.P + p;
      sum += term((line * shape.Q + q) * shape.C + at.c, rows, columns, r * shape.S + s);
    }
  }
  return sum;
}

template <class T, class Index, class Shape>
__global__ void __launch_bounds__(POOL_THREADS, 1)
    pool2d_backward_max(const T* __restrict__ dy, const Index* __restrict__ index, T* __restrict__ dx, Shape shape) {
  const Element at(shape.H, shape.W, shape.C);
  if (!at.inside) return;
  const float sum = gather_windows(shape, at, [&](long long output, const Window&, const Window&, int tap) {
    return static_cast<int>(index[output]) == tap ? to_float(dy[output]) : 0.0f;
  });
  dx[at.index] = from_float<T>(sum);
}

template <class T, class Shape>
__global__ void __launch_bounds__(POOL_THREADS, 1)
    pool2d_backward_avg(const T* __restrict__ dy, T* __restrict__ dx, Shape shape) {
  const Element at(shape.H, shape.W, shape.C);
  if (!at.inside) return;
  const float sum = gather_windows(shape, at, [&](long long output, const Window& rows, const Window& columns, int) {
    return to_float(dy[output]) / divisor(shape, rows, columns);
  });
  dx[at.index] = from_float<T>(sum);
}
