// Elementwise arithmetic: y = op(x), y = a op b with broadcasting, and casts between dtypes; computed in float32.
//
// Traffic: 4 bytes an operand and element in float32. BroadcastShape has merged what can be merged, so operands of
// equal shape arrive as (1, 1, 1, n) and spend no division on their index; along d3 an operand is contiguous or one
// value. Where rows of d3 are whole runs an index is computed once a run, else for each element.
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
  map(x, y, count, [](float value) { return Op::apply(value); });
}

// Where element i of the result finds its operands
struct Operands {
  long long a, b;

  template <class Shape>
  __device__ Operands(const Shape& shape, long long i) {
    const Divided row(i, shape.d3), middle(row.quotient, shape.d2), outer(middle.quotient, shape.d1);
    a = outer.quotient * shape.a0 + static_cast<long long>(outer.remainder) * shape.a1 +
        static_cast<long long>(middle.remainder) * shape.a2 + static_cast<long long>(row.remainder) * shape.a3;
    b = outer.quotient * shape.b0 + static_cast<long long>(outer.remainder) * shape.b1 +
        static_cast<long long>(middle.remainder) * shape.b2 + static_cast<long long>(row.remainder) * shape.b3;
  }
};

// `count` neighbours of an operand, or its one value for all
template <class T, int LENGTH>
__device__ inline void load_operand(const T* from, bool repeated, long long count, Run<T, LENGTH>& run) {
  if (!repeated) {
    load_some(from, count, aligned_for_runs<LENGTH>(from), run);
  } else {
    const T value = *from;
#pragma unroll
    for (int v = 0; v < LENGTH; v++) run.value[v] = value;
  }
}

template <class T, class Op, class Shape>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1) binary(const T* a, const T* b, T* y, Shape shape) {
  constexpr int LENGTH = AT_ONCE<T>;
  const long long rows = static_cast<long long>(shape.d0) * shape.d1 * shape.d2, count = rows * shape.d3;
  if (rows > 1 && shape.d3 % LENGTH != 0) {
    for_each_element<LENGTH>(count, [=](long long i) {
      const Operands at(shape, i);
      y[i] = from_float<T>(Op::apply(to_float(a[at.a]), to_float(b[at.b])));
    });
    return;
  }
  const long long start = run_start<LENGTH, 1>(0), left = count - start;
  if (left <= 0) return;
  const Operands at(shape, start);
  Run<T, LENGTH> held_a, held_b, result;
  load_operand(a + at.a, shape.a3 == 0, left, held_a);
  load_operand(b + at.b, shape.b3 == 0, left, held_b);
#pragma unroll
  for (int v = 0; v < LENGTH; v++)
    result.value[v] = from_float<T>(Op::apply(to_float(held_a.value[v]), to_float(held_b.value[v])));
  store_some(y + start, left, aligned_for_runs<LENGTH>(y), result);
}

template <class From, class To>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1) cast(const From* x, To* y, long long count) {
  map(x, y, count, [](float value) { return value; });
}
