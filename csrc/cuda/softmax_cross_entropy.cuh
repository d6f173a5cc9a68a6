// Softmax and cross-entropy: x (M, C), labels (M,) in [0, C), loss (M,), probability (M, C).
//
// One warp a row, whose lanes walk the row; the row's largest is subtracted before the exponential, so that none
// overflows. Backward is elementwise. Traffic: forward reads x three times (twice from L1) and writes once.
#pragma once
#include "elementwise.cuh"

constexpr int ROWS_PER_BLOCK = 4;  // warps of a block
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ inline float warp_max(float value) {  // a NaN wins
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(ALL_LANES, value, step);
    value = value > other || value != value ? value : other;
  }
  return value;
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, step);
  return value;
}

// block (32, ROWS_PER_BLOCK)
template <class T>
__global__ void __launch_bounds__(32 * ROWS_PER_BLOCK, 1)
    softmax_cross_entropy_forward(const T* __restrict__ x, const long long* __restrict__ labels, T* __restrict__ loss,
                                  T* __restrict__ probability, int M, int C) {
  const int row = blockIdx.x * ROWS_PER_BLOCK + threadIdx.y, lane = threadIdx.x;
  if (row >= M) return;  // whole warps
  const T* logits = x + static_cast<long long>(row) * C;

  float largest = to_float(logits[lane < C ? lane : 0]);
  for (int c = lane + 32; c < C; c += 32) {
    const float value = to_float(logits[c]);
    largest = largest > value || largest != largest ? largest : value;
  }
  largest = warp_max(largest);
  float sum = 0.0f;
  for (int c = lane; c < C; c += 32) sum += expf(to_float(logits[c]) - largest);
  sum = warp_sum(sum);
  for (int c = lane; c < C; c += 32)
    probability[static_cast<long long>(row) * C + c] = from_float<T>(expf(to_float(logits[c]) - largest) / sum);
  if (lane == 0) {  // a label out of range, which only the CPU can refuse, gives NaN instead of a stray read
    const long long label = labels[row];
    const float chosen = label >= 0 && label < C ? to_float(logits[label]) : nanf("");
    loss[row] = from_float<T>(logf(sum) - (chosen - largest));
  }
}

// dx = (probability - onehot) * dloss[:, None]
template <class T>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1)
    softmax_cross_entropy_backward(const T* probability, const long long* labels, const T* dloss, T* dx, int M, int C) {
  for_each_element(static_cast<long long>(M) * C, [=](long long i) {
    const long long row = i / C;
    const float onehot = i - row * C == labels[row] ? 1.0f : 0.0f;
    dx[i] = from_float<T>((to_float(probability[i]) - onehot) * to_float(dloss[row]));
  });
}
