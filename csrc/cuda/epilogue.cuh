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
    return finish(value, index);
  }

  // The parts that belong to a channel, for a thread's corner of a tile with channels k + [0, TN) as columns, read once
  // for all TM rows; channels from `end` on do not exist.
  template <int TM, int TN>
  __device__ void apply_channels(float (&value)[TM][TN], int k, int end) const {
#pragma unroll
    for (int j = 0; j < TN; j++) {
      const bool inside = k + j < end;
      const float b = bias && inside ? to_float(bias[k + j]) : 0.0f;
      const float factor = scale && inside ? to_float(scale[k + j]) : 1.0f;
      const float offset = shift && inside ? to_float(shift[k + j]) : 0.0f;
#pragma unroll
      for (int i = 0; i < TM; i++) value[i][j] = (value[i][j] + b) * factor + offset;
    }
  }

  // what is left for an element, which goes to y[index]
  __device__ T finish(float value, long long index) const {
    if (residual) value += to_float(residual[index]);
    if (relu) value = value <= 0.0f ? 0.0f : value;  // a NaN fails the comparison and stays
    return from_float<T>(value);
  }
};
