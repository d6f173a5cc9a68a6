// Softmax and cross-entropy: x (M, C), labels (M,) in [0, C), loss (M,), probability (M, C).
//
// Forward: a team of threads a row (row.cuh); the row's largest is subtracted before the exponential, so that none
// overflows. Backward is elementwise. Traffic: forward reads x once and writes the probabilities once, 8 bytes an
// element in float32; rows that no team can keep are read twice.
#pragma once
#include "elementwise.cuh"
#include "row.cuh"

struct SoftmaxShared {
  WarpResults largest, sum;
};

// exp(x - largest); nothing of a row is known yet where its largest so far is -inf
__device__ inline float power(float x, float largest) {
  return largest == minus_infinity() ? 1.0f : expf(x - largest);
}

template <class T, int LENGTH, int KEPT>
__global__ void __launch_bounds__(ROW_THREADS, 1)
    softmax_cross_entropy_forward(const T* __restrict__ x, const long long* __restrict__ labels, T* __restrict__ loss,
                                  T* __restrict__ probability, int M, int C) {
  DYN_SMEM(SoftmaxShared, shared);
  const long long row = static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y;
  const int length = row < M ? C : 0;
  const T* logits = x + row * C;

  RowPart<LENGTH, KEPT> values;
  float largest = minus_infinity(), sum = 0.0f;
  for_each_run<LENGTH, KEPT>(length, [&](int i, unsigned c) {
    load_run(logits + c, values[i]);
    const float before = largest;
#pragma unroll
    for (int v = 0; v < LENGTH; v++) largest = Larger::apply(largest, values[i][v]);
    if constexpr (KEPT == 0) {  // the sum so far is about the largest so far
      sum *= power(before, largest);
#pragma unroll
      for (int v = 0; v < LENGTH; v++) sum += power(values[i][v], largest);
    }
  });
  const float mine = largest;
  largest = over_team<Larger>(largest, shared->largest);
  if constexpr (KEPT == 0) {
    sum *= power(mine, largest);
  } else {
    for_each_run<LENGTH, KEPT>(length, [&](int i, unsigned) {
#pragma unroll
      for (int v = 0; v < LENGTH; v++) {
        values[i][v] = expf(values[i][v] - largest);
        sum += values[i][v];
      }
    });
  }
  sum = over_team<Add>(sum, shared->sum);

  const float scale = 1.0f / sum;
  for_each_run<LENGTH, KEPT>(length, [&](int i, unsigned c) {
    if constexpr (KEPT == 0) load_run(logits + c, values[i]);
#pragma unroll
    for (int v = 0; v < LENGTH; v++) values[i][v] = (KEPT == 0 ? expf(values[i][v] - largest) : values[i][v]) * scale;
    store_run(probability + row * C + c, values[i]);
  });
  if (threadIdx.x == 0 && length > 0) {  // a label out of range, which only the CPU can refuse, gives NaN
    const long long label = labels[row];
    const float chosen = label >= 0 && label < C ? to_float(logits[label]) : nanf("");
    loss[row] = from_float<T>(logf(sum) - (chosen - largest));
  }
}

// dx = (probability - onehot) * dloss[:, None]
template <class T>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1)
    softmax_cross_entropy_backward(const T* probability, const long long* labels, const T* dloss, T* dx, int M, int C) {
  constexpr int LENGTH = AT_ONCE<T>;
  const long long count = static_cast<long long>(M) * C;
  map_runs(probability, dx, count, [=](const Run<T, LENGTH>& held, long long start, Run<T, LENGTH>& result) {
    const Divided place(start, C);
    long long row = place.quotient, label = labels[row];
    int c = place.remainder;
    float factor = to_float(dloss[row]);
#pragma unroll
    for (int v = 0; v < LENGTH; v++, c++) {
      if (c == C && start + v < count) {  // the next row
        c = 0, row++;
        label = labels[row], factor = to_float(dloss[row]);
      }
      result.value[v] = from_float<T>((to_float(held.value[v]) - (c == label ? 1.0f : 0.0f)) * factor);
    }
  });
}
