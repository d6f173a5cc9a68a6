// conv2d, rung `direct`: one thread an output element, channels of neighbouring threads are neighbours in memory.
// Sums run in the order r, s, channel (backward_weight: n, p, q), as in conv2d/tiled.cuh.
#pragma once
#include "../../shapes.h"
#include "../epilogue.cuh"
#include "../line.cuh"
#include "../platform.cuh"

constexpr int DIRECT_THREADS = 256;  // no shared memory, few registers: any multiple of 32 fills an SM

template <class T, class Shape>
__global__ void __launch_bounds__(DIRECT_THREADS, 1)
    conv2d_forward_direct(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, const T* bias,
                          const T* scale, const T* shift, const T* residual, int relu, Shape shape) {
  const Place at(shape.Q * shape.K);  // in y (N*P, Q*K)
  if (!at.inside) return;
  const int n = at.line / shape.P, p = at.line % shape.P, q = at.column / shape.K, k = at.column % shape.K;
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;

  const T* image = x + static_cast<long long>(n) * shape.H * shape.W * shape.C + k / Kg * Cg;
  const T* filter = w + static_cast<long long>(k) * shape.R * shape.S * Cg;
  float sum = 0.0f;
  for (int r = 0; r < shape.R; r++) {
    const int h = p * shape.stride_h - shape.pad_h + r * shape.dilation_h;
    if (h < 0 || h >= shape.H) continue;
    for (int s = 0; s < shape.S; s++) {
      const int column = q * shape.stride_w - shape.pad_w + s * shape.dilation_w;
      if (column < 0 || column >= shape.W) continue;
      const T* pixel = image + (static_cast<long long>(h) * shape.W + column) * shape.C;
      const T* tap = filter + (static_cast<long long>(r) * shape.S + s) * Cg;
      for (int c = 0; c < Cg; c++) sum += to_float(pixel[c]) * to_float(tap[c]);
    }
  }
  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  y[at.index] = epilogue(sum, k, at.index);
}

template <class T, class Shape>
__global__ void __launch_bounds__(DIRECT_THREADS, 1)
    conv2d_backward_input_direct(const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx, Shape shape) {
  const Place at(shape.W * shape.C);  // in dx (N*H, W*C)
  if (!at.inside) return;
  const int n = at.line / shape.H, h = at.line % shape.H, column = at.column / shape.C, channel = at.column % shape.C;
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int group = channel / Cg, c = channel % Cg;

  const long long filter = static_cast<long long>(shape.R) * shape.S * Cg;  // elements of one
  const T* image = dy + static_cast<long long>(n) * shape.P * shape.Q * shape.K + group * Kg;
  const T* weights = w + group * Kg * filter + c;
  float sum = 0.0f;
  for (int r = 0; r < shape.R; r++) {
    const int reach_h = h + shape.pad_h - r * shape.dilation_h, p = reach_h / shape.stride_h;
    if (reach_h < 0 || p >= shape.P || p * shape.stride_h != reach_h) continue;
    for (int s = 0; s < shape.S; s++) {
      const int reach_w = column + shape.pad_w - s * shape.dilation_w, q = reach_w / shape.stride_w;
      if (reach_w < 0 || q >= shape.Q || q * shape.stride_w != reach_w) continue;
      const T* pixel = image + (static_cast<long long>(p) * shape.Q + q) * shape.K;
      const T* tap = weights + (static_cast<long long>(r) * shape.S + s) * Cg;
      for (int k = 0; k < Kg; k++) sum += to_float(pixel[k]) * to_float(tap[k * filter]);
    }
  }
  dx[at.index] = from_float<T>(sum);
}

template <class T, class Shape>
__global__ void __launch_bounds__(DIRECT_THREADS, 1)
    conv2d_backward_weight_direct(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dw, Shape shape) {
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const Place at(shape.S * Cg);  // in dw (K*R, S*Cg)
  if (!at.inside) return;
  const int k = at.line / shape.R, r = at.line % shape.R, s = at.column / Cg, c = at.column % Cg;
  const int channel = k / Kg * Cg + c;

  float sum = 0.0f;
  for (int n = 0; n < shape.N; n++) {
    for (int p = 0; p < shape.P; p++) {
      const int h = p * shape.stride_h - shape.pad_h + r * shape.dilation_h;
      if (h < 0 || h >= shape.H) continue;
      const T* line = x + (static_cast<long long>(n) * shape.H + h) * shape.W * shape.C + channel;
      const T* gradient = dy + (static_cast<long long>(n) * shape.P + p) * shape.Q * shape.K + k;
      for (int q = 0; q < shape.Q; q++) {
        const int column = q * shape.stride_w - shape.pad_w + s * shape.dilation_w;
        if (column < 0 || column >= shape.W) continue;
        sum += to_float(gradient[static_cast<long long>(q) * shape.K]) *
               to_float(line[static_cast<long long>(column) * shape.C]);
      }
    }
  }
  dw[at.index] = from_float<T>(sum);
}
