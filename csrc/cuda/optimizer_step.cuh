// Optimizer steps, in place, over up to TENSORS parameters in one launch; the contract has the formulas.
//
// The table of pointers travels by value in the kernel's arguments: no copy to the device, and a captured graph keeps
// it. A block takes ELEMENTS_PER_BLOCK neighbours of one parameter; it finds which one by the table's first blocks.
// Parameter, gradient and states are moved in runs of as many elements, 16 bytes of the widest of them.
// hyper lies on the device, so that a captured graph sees a new learning rate and new bias corrections.
// Traffic in float32: sgd reads parameter, gradient and velocity and writes parameter and velocity, 20 bytes an
// element; adam has two states, 28 bytes.
#pragma once
#include "run.cuh"

constexpr int STEP_THREADS = 256;
constexpr int ELEMENTS_PER_BLOCK = 2048;  // 8 a thread

template <int TENSORS>
struct StepTable {
  void* parameter[TENSORS];
  const void* gradient[TENSORS];
  void* first[TENSORS];   // velocity, null without momentum; first moment
  void* second[TENSORS];  // second moment
  long long count[TENSORS];
  int first_block[TENSORS];
  int tensors, unused;
};
static_assert(sizeof(StepTable<2>) == 2 * 44 + 8, "as packed by cnnengine/backends/_kernels.py");

// The elements [begin, end) of the block's parameter
struct StepShare {
  int tensor;  // the last whose first block is not past this one
  long long begin, end;

  template <class Table>
  __device__ explicit StepShare(const Table& table) {
    int after = table.tensors;
    tensor = 0;
    while (after - tensor > 1) {
      const int middle = (tensor + after) / 2;
      (table.first_block[middle] <= static_cast<int>(blockIdx.x) ? tensor : after) = middle;
    }
    begin = (blockIdx.x - table.first_block[tensor]) * static_cast<long long>(ELEMENTS_PER_BLOCK);
    const long long stop = begin + ELEMENTS_PER_BLOCK;
    end = stop < table.count[tensor] ? stop : table.count[tensor];
  }
};

// hyper: learning rate, momentum, weight decay, nesterov (0 or 1), gradient scale
// g = gradient * scale + decay * p;  v = momentum * v + g;  p -= lr * (nesterov ? g + momentum * v : v)
template <class T, class State, int TENSORS>
__global__ void __launch_bounds__(STEP_THREADS, 1) sgd(const float* hyper, StepTable<TENSORS> table) {
  constexpr int LENGTH = AT_ONCE<T, State>;
  const StepShare share(table);
  T* parameter = static_cast<T*>(table.parameter[share.tensor]);
  const T* gradient = static_cast<const T*>(table.gradient[share.tensor]);
  State* velocity = static_cast<State*>(table.first[share.tensor]);
  const bool aligned =
      aligned_for_runs<LENGTH>(parameter) && aligned_for_runs<LENGTH>(gradient) && aligned_for_runs<LENGTH>(velocity);
  const float lr = hyper[0], momentum = hyper[1], decay = hyper[2], nesterov = hyper[3], scale = hyper[4];
  for (long long i = share.begin + threadIdx.x * LENGTH; i < share.end; i += STEP_THREADS * LENGTH) {
    const long long left = share.end - i;
    Run<T, LENGTH> p, g;
    Run<State, LENGTH> v;
    load_some(parameter + i, left, aligned, p);
    load_some(gradient + i, left, aligned, g);
    if (velocity) load_some(velocity + i, left, aligned, v);
#pragma unroll
    for (int k = 0; k < LENGTH; k++) {
      const float before = to_float(p.value[k]);
      float change = to_float(g.value[k]) * scale + decay * before;
      if (velocity) {
        const float moved = momentum * to_float(v.value[k]) + change;
        v.value[k] = from_float<State>(moved);
        change = nesterov != 0.0f ? change + momentum * moved : moved;
      }
      p.value[k] = from_float<T>(before - lr * change);
    }
    if (velocity) store_some(velocity + i, left, aligned, v);
    store_some(parameter + i, left, aligned, p);
  }
}

// hyper: lr / (1 - beta1^t), beta1, 1 - beta1, beta2, 1 - beta2, 1 / sqrt(1 - beta2^t), epsilon, weight decay, what is
// kept of p, gradient scale
// g = gradient * scale + decay * p;  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g * g
// p = kept * p - hyper[0] * m / (sqrt(v) * hyper[5] + epsilon)
template <class T, class State, int TENSORS>
__global__ void __launch_bounds__(STEP_THREADS, 1) adam(const float* hyper, StepTable<TENSORS> table) {
  constexpr int LENGTH = AT_ONCE<T, State>;
  const StepShare share(table);
  T* parameter = static_cast<T*>(table.parameter[share.tensor]);
  const T* gradient = static_cast<const T*>(table.gradient[share.tensor]);
  State* first = static_cast<State*>(table.first[share.tensor]);
  State* second = static_cast<State*>(table.second[share.tensor]);
  const bool aligned = aligned_for_runs<LENGTH>(parameter) && aligned_for_runs<LENGTH>(gradient) &&
                       aligned_for_runs<LENGTH>(first) && aligned_for_runs<LENGTH>(second);
  const float rate = hyper[0], beta1 = hyper[1], rest1 = hyper[2], beta2 = hyper[3], rest2 = hyper[4];
  const float correction = hyper[5], epsilon = hyper[6], decay = hyper[7], kept = hyper[8], scale = hyper[9];
  for (long long i = share.begin + threadIdx.x * LENGTH; i < share.end; i += STEP_THREADS * LENGTH) {
    const long long left = share.end - i;
    Run<T, LENGTH> p, g;
    Run<State, LENGTH> m, v;
    load_some(parameter + i, left, aligned, p);
    load_some(gradient + i, left, aligned, g);
    load_some(first + i, left, aligned, m);
    load_some(second + i, left, aligned, v);
#pragma unroll
    for (int k = 0; k < LENGTH; k++) {
      const float before = to_float(p.value[k]);
      const float change = to_float(g.value[k]) * scale + decay * before;
      const float mean = beta1 * to_float(m.value[k]) + rest1 * change;
      const float square = beta2 * to_float(v.value[k]) + rest2 * change * change;
      m.value[k] = from_float<State>(mean);
      v.value[k] = from_float<State>(square);
      p.value[k] = from_float<T>(kept * before - rate * mean / (sqrtf(square) * correction + epsilon));
    }
    store_some(first + i, left, aligned, m);
    store_some(second + i, left, aligned, v);
    store_some(parameter + i, left, aligned, p);
  }
}
