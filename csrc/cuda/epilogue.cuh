// What follows a convolution or product on its way to memory (the contract's Epilogue), in float32:
// y = activation((value + bias) * scale + shift + residual). Absent parts are null; the branches on them are the same
// for every thread of a launch.
#pragma once
#include "platform.cuh"

template <class T>
struct Epilogue {
  const T* bias;      // (K,)
  const T* scale;     // (K,)
  const T* shift;     // (K,)
  const T* residual;  // as y
  int relu;

  // value of output channel k, which goes to y[index]
  __device__ T operator()(float value, int k, long long index) const {
    if (bias) value += to_float(bias[k]);
    if (scale) value *= to_float(scale[k]);
    if (shift) value += to_float(shift[k]);
    if (residual) value += to_float(residual[index]);
    if (relu) value = value <= 0.0f ? 0.0f : value;  // a NaN fails the comparison and stays
    return from_float<T>(value);
  }
};
