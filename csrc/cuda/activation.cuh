// Activations over any shape, x and y (count,); y may be x, dx may be dy.
//
// Traffic: forward reads and writes 4 bytes an element in float32, backward reads 8 and writes 4; nothing else counts,
// so the place to save is the epilogue of the convolution before, which spares a whole pass.
#pragma once
#include "elementwise.cuh"

struct Identity {
  static __device__ float forward(float x) { return x; }
  static __device__ float backward(float, float dy) { return dy; }
};

struct Relu {  // saves y; 0 where x <= 0, a NaN fails the comparison and stays; derivative 0 at 0
  static __device__ float forward(float x) { return x <= 0.0f ? 0.0f : x; }
  static __device__ float backward(float y, float dy) { return y <= 0.0f ? 0.0f : dy; }
};

template <class T, class Kind>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1) activation_forward(const T* x, T* y, long long count) {
  for_each_element(count, [=](long long i) { y[i] = from_float<T>(Kind::forward(to_float(x[i]))); });
}

template <class T, class Kind>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1)
    activation_backward(const T* saved, const T* dy, T* dx, long long count) {
  for_each_element(count,
                   [=](long long i) { dx[i] = from_float<T>(Kind::backward(to_float(saved[i]), to_float(dy[i]))); });
}
