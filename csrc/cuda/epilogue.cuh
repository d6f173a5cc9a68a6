// What follows a convolution or product on its way to memory (the contract's Epilogue), in float32:
// y = activation((value + bias) * scale + shift + residual). Absent parts are null; the branches on them are the same
// for every thread of a launch.
#pragma once
#include "platform.cuh"
#include "run.cuh"

template <class T>
struct Epilogue {
  const T* bias;      // (K,)
  const T* scale;     // (K,)
  const T* shift;     // (K,)
  const T* residual;  // as y
  int relu;

  // value of output channel k, which goes to y[index]
  __device__ T operator()(float value, int k, long long index) const { return finish(channel(value, k), index); }

  // what belongs to the channel
  __device__ float channel(float value, int k) const {
    if (bias) value += to_float(bias[k]);
    if (scale) value *= to_float(scale[k]);
    if (shift) value += to_float(shift[k]);
    return value;
  }

  // values of channels k + [0, LENGTH), which go to y[index + [0, LENGTH)]; what was stored
  template <int LENGTH>
  __device__ Run<T, LENGTH> store_run(T* y, const float (&values)[LENGTH], int k, long long index) const {
    float with_channel[1][LENGTH];
#pragma unroll
    for (int v = 0; v < LENGTH; v++) with_channel[0][v] = values[v];
    apply_channel_run(with_channel, k);
    return finish_run(y, with_channel[0], index);
  }

  // What belongs to the channels k + [0, LENGTH) of ROWS outputs each. The arrays are read a run at a time: they begin
  // at, and k is, a multiple of LENGTH.
  template <int ROWS, int LENGTH>
  __device__ void apply_channel_run(float (&value)[ROWS][LENGTH], int k) const {
    const auto each = [&](const T* array, auto&& change) {
      if (!array) return;
      const Run<T, LENGTH> run = *reinterpret_cast<const Run<T, LENGTH>*>(array + k);
#pragma unroll
      for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int v = 0; v < LENGTH; v++) change(value[i][v], to_float(run.value[v]));
    };
    each(bias, [](float& a, float b) { a += b; });
    each(scale, [](float& a, float b) { a *= b; });
    each(shift, [](float& a, float b) { a += b; });
  }

  // what is left for values that go to y[index + [0, LENGTH)]
  template <int LENGTH>
  __device__ Run<T, LENGTH> finish_run(T* y, const float (&values)[LENGTH], long long index) const {
    float finished[LENGTH];
    Run<T, LENGTH> added;
    if (residual) added = *reinterpret_cast<const Run<T, LENGTH>*>(residual + index);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) {
      finished[v] = values[v];
      if (residual) finished[v] += to_float(added.value[v]);
      finished[v] = activate(finished[v]);
    }
    return ::store_run(y + index, finished);
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
    return from_float<T>(activate(value));
  }

  __device__ float activate(float value) const {
    return relu && value <= 0.0f ? 0.0f : value;  // a NaN fails the comparison and stays
  }
};
