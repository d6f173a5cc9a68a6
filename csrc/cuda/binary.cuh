// Elementwise arithmetic: y = op(x), y = a op b with broadcasting, and casts between dtypes; computed in float32.
//
// Traffic: 4 bytes an operand and element in float32. BroadcastShape has merged what can be merged, so operands of
// equal shape arrive as (1, 1, 1, n) and spend no division on their index.
#pragma once
#include "../shapes.h"
#include "elementwise.cuh"

struct Neg {
  static __device__ float apply(float x) { return -x; }
};
struct Exp {
  static __device__ float apply(float x) { return expf(x); }
};
struct Log {
  static __device__ float apply(float x) { return logf(x); }
};
struct Sqrt {
  static __device__ float apply(float x) { return sqrtf(x); }
};

struct Add {
  static __device__ float apply(float a, float b) { return a + b; }
};
struct Sub {
  static __device__ float apply(float a, float b) { return a - b; }
};
struct Mul {
  static __device__ float apply(float a, float b) { return a * b; }
};
struct Div {
  static __device__ float apply(float a, float b) { return a / b; }
};
struct Pow {
  static __device__ float apply(float a, float b) { return powf(a, b); }
};
struct Equal {
  static __device__ float apply(float a, float b) { return a == b ? 1.0f : 0.0f; }
};

template <class T, class Op>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1) unary(const T* x, T* y, long long count) {
  for_each_element(count, [=](long long i) { y[i] = from_float<T>(Op::apply(to_float(x[i]))); });
}

template <class T, class Op, class Shape>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1) binary(const T* a, const T* b, T* y, Shape shape) {
  const long long rows = static_cast<long long>(shape.d0) * shape.d1 * shape.d2;
  for_each_element(rows * shape.d3, [=](long long i) {
    long long at_a, at_b;
    if (rows == 1) {
      at_a = i * shape.a3, at_b = i * shape.b3;
    } else {
      const int i3 = i % shape.d3, i2 = i / shape.d3 % shape.d2;
      const long long outer = i / shape.d3 / shape.d2;  // i0*d1 + i1
      const long long i1 = outer % shape.d1, i0 = outer / shape.d1;
      at_a =
          i0 * shape.a0 + i1 * shape.a1 + static_cast<long long>(i2) * shape.a2 + static_cast<long long>(i3) * shape.a3;
      at_b =
          i0 * shape.b0 + i1 * shape.b1 + static_cast<long long>(i2) * shape.b2 + static_cast<long long>(i3) * shape.b3;
    }
    y[i] = from_float<T>(Op::apply(to_float(a[at_a]), to_float(b[at_b])));
  });
}

template <class From, class To>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1) cast(const From* x, To* y, long long count) {
  for_each_element(count, [=](long long i) { y[i] = from_float<To>(to_float(x[i])); });
}
