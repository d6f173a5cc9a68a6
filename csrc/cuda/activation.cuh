// Activations over any shape, x and y (count,); y may be x, dx may be dy. docs/semantics.md defines them; `saved` is
// what ACTIVATION_SAVES of the contract names, x or y; parameter is the slope of LeakyRelu and the scale of Elu.
//
// Traffic: forward reads and writes 4 bytes an element in float32, backward reads 8 and writes 4; nothing else counts,
// so the place to save is the epilogue of the convolution before, which spares a whole pass.
#pragma once
#include "elementwise.cuh"

// 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow
__device__ inline float logistic(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}
// P(X <= x) of the normal distribution
__device__ inline float normal_distribution(float x) {
  return 0.5f * erfcf(x * -0.707106781187f);
}
// past 20 the logistic function of the argument below is 0 or 1; x^3 does not overflow before; NaN stays
__device__ inline float within_gelu(float x) {
  return x < -20.0f ? -20.0f : x > 20.0f ? 20.0f : x;
}
// 2 sqrt(2 / pi) (x + 0.044715 x^3): 0.5 (1 + tanh(z)) is the logistic function of 2 z
__device__ inline float gelu_argument(float x) {
  x = within_gelu(x);
  return x * (1.59576912161f + 0.0713548162726f * (x * x));
}
// min(max(x, 0), 6), where a NaN fails both comparisons and stays
__device__ inline float from_0_to_6(float x) {
  return x <= 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
}

struct Identity {
  static __device__ float forward(float x, float) { return x; }
  static __device__ float backward(float, float dy, float) { return dy; }
};

struct Relu {  // saves y; 0 where x <= 0, a NaN fails the comparison and stays; derivative 0 at 0
  static __device__ float forward(float x, float) { return x <= 0.0f ? 0.0f : x; }
  static __device__ float backward(float y, float dy, float) { return y <= 0.0f ? 0.0f : dy; }
};

struct Relu6 {  // saves y
  static __device__ float forward(float x, float) { return from_0_to_6(x); }
  static __device__ float backward(float y, float dy, float) { return y > 0.0f && y < 6.0f ? dy : 0.0f; }
};

struct LeakyRelu {  // saves y, whose sign is x's; x where the slope is negative
  static __device__ float forward(float x, float slope) { return x > 0.0f ? x : x * slope; }
  static __device__ float backward(float y, float dy, float slope) { return y > 0.0f ? dy : dy * slope; }
};

struct Silu {  // saves x
  static __device__ float forward(float x, float) { return x * logistic(x); }
  static __device__ float backward(float x, float dy, float) {
    const float y = logistic(x);
    return dy * (y * (1.0f + x * (1.0f - y)));
  }
};

struct Gelu {  // saves x
  static __device__ float forward(float x, float) { return x * normal_distribution(x); }
  static __device__ float backward(float x, float dy, float) {
    const float density = 0.398942280401f * expf(-0.5f * x * x);  // 1 / sqrt(2 pi)
    return dy * (normal_distribution(x) + x * density);
  }
};

struct GeluTanh {  // saves x
  static __device__ float forward(float x, float) { return x * logistic(gelu_argument(x)); }
  static __device__ float backward(float x, float dy, float) {
    const float inside = within_gelu(x), y = logistic(gelu_argument(x));
    return dy * (y + x * (y * (1.0f - y)) * (1.59576912161f + 0.214064448818f * (inside * inside)));
  }
};

struct Sigmoid {  // saves y
  static __device__ float forward(float x, float) { return logistic(x); }
  static __device__ float backward(float y, float dy, float) { return dy * (y * (1.0f - y)); }
};

struct Tanh {  // saves y
  static __device__ float forward(float x, float) { return tanhf(x); }
  static __device__ float backward(float y, float dy, float) { return dy * (1.0f - y * y); }
};

struct Hardswish {  // saves x
  static __device__ float forward(float x, float) { return x * (from_0_to_6(x + 3.0f) / 6.0f); }
  static __device__ float backward(float x, float dy, float) {
    return x >= 3.0f ? dy : x <= -3.0f ? 0.0f : dy * (x / 3.0f + 0.5f);
  }
};

struct Hardsigmoid {  // saves y
  static __device__ float forward(float x, float) { return from_0_to_6(x + 3.0f) / 6.0f; }
  static __device__ float backward(float y, float dy, float) { return y > 0.0f && y < 1.0f ? dy / 6.0f : 0.0f; }
};

struct Elu {  // saves y; backward, the scale is at least 0
  static __device__ float forward(float x, float scale) { return x > 0.0f ? x : scale * expm1f(x); }
  static __device__ float backward(float y, float dy, float scale) { return y > 0.0f ? dy : dy * (y + scale); }
};

template <class T, class Kind>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1)
    activation_forward(const T* x, T* y, long long count, float parameter) {
  map(x, y, count, [=](float value) { return Kind::forward(value, parameter); });
}

template <class T, class Kind>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1)
    activation_backward(const T* saved, const T* dy, T* dx, long long count, float parameter) {
  map(saved, dy, dx, count, [=](float value, float slope) { return Kind::backward(value, slope, parameter); });
}
