// Optimizer steps, in place, over up to TENSORS parameters in one launch; the contract has the formulas.
//
// The table of pointers travels by value in the kernel's arguments: no copy to the device, and a captured graph keeps
// it. A block takes ELEMENTS_PER_BLOCK neighbours of one parameter; it finds which one by the table's first blocks.
// hyper lies on the device, so that a captured graph sees a new learning rate and new bias corrections.
// Traffic in float32: sgd reads parameter, gradient and velocity and writes parameter and velocity, 20 bytes an
// element; adam has two states, 28 bytes.
#pragma once
#include "platform.cuh"

constexpr int STEP_THREADS = 256;
constexpr int ELEMENTS_PER_BLOCK = 2048;  // 8 a thread
constexpr int TENSORS = 64;               // a table of 64 * 44 + 8 = 2824 of the 4096 bytes that arguments may have

struct StepTable {
  void* parameter[TENSORS];
  const void* gradient[TENSORS];
  void* first[TENSORS];   // velocity, null without momentum; first moment
  void* second[TENSORS];  // second moment
  long long count[TENSORS];
  int first_block[TENSORS];
  int tensors, unused;
};
static_assert(sizeof(StepTable) == TENSORS * 44 + 8, "as packed by cnnengine/backends/_kernels.py");

// The elements [begin, end) of the block's parameter
struct StepShare {
  int tensor = 0;  // the last whose first block is not past this one
  long long begin, end;

  __device__ explicit StepShare(const StepTable& table) {
    for (int i = 1; i < table.tensors; i++)
      if (table.first_block[i] <= static_cast<int>(blockIdx.x)) tensor = i;
    begin = (blockIdx.x - table.first_block[tensor]) * static_cast<long long>(ELEMENTS_PER_BLOCK);
    const long long stop = begin + ELEMENTS_PER_BLOCK;
    end = stop < table.count[tensor] ? stop : table.count[tensor];
  }
};

// hyper: learning rate, momentum, weight decay, nesterov (0 or 1), gradient scale
// g = gradient * scale + decay * p;  v = momentum * v + g;  p -= lr * (nesterov ? g + momentum * v : v)
template <class T, class State>
__global__ void __launch_bounds__(STEP_THREADS, 1) sgd(const float* hyper, StepTable table) {
  const StepShare share(table);
  T* parameter = static_cast<T*>(table.parameter[share.tensor]);
  const T* gradient = static_cast<const T*>(table.gradient[share.tensor]);
  State* velocity = static_cast<State*>(table.first[share.tensor]);
  const float lr = hyper[0], momentum = hyper[1], decay = hyper[2], nesterov = hyper[3], scale = hyper[4];
  for (long long i = share.begin + threadIdx.x; i < share.end; i += blockDim.x) {
    const float p = to_float(parameter[i]);
    float g = to_float(gradient[i]) * scale + decay * p;
    if (velocity) {
      const float v = momentum * to_float(velocity[i]) + g;
      velocity[i] = from_float<State>(v);
      g = nesterov != 0.0f ? g + momentum * v : v;
    }
    parameter[i] = from_float<T>(p - lr * g);
  }
}

// hyper: lr / (1 - beta1^t), beta1, 1 - beta1, beta2, 1 - beta2, 1 / sqrt(1 - beta2^t), epsilon, weight decay, what is
// kept of p, gradient scale
// g = gradient * scale + decay * p;  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g * g
// p = kept * p - hyper[0] * m / (sqrt(v) * hyper[5] + epsilon)
template <class T, class State>
__global__ void __launch_bounds__(STEP_THREADS, 1) adam(const float* hyper, StepTable table) {
  const StepShare share(table);
  T* parameter = static_cast<T*>(table.parameter[share.tensor]);
  const T* gradient = static_cast<const T*>(table.gradient[share.tensor]);
  State* first = static_cast<State*>(table.first[share.tensor]);
  State* second = static_cast<State*>(table.second[share.tensor]);
  const float rate = hyper[0], beta1 = hyper[1], rest1 = hyper[2], beta2 = hyper[3], rest2 = hyper[4];
  const float correction = hyper[5], epsilon = hyper[6], decay = hyper[7], kept = hyper[8], scale = hyper[9];
  for (long long i = share.begin + threadIdx.x; i < share.end; i += blockDim.x) {
    const float p = to_float(parameter[i]);
    const float g = to_float(gradient[i]) * scale + decay * p;
    const float m = beta1 * to_float(first[i]) + rest1 * g;
    const float v = beta2 * to_float(second[i]) + rest2 * g * g;
    first[i] = from_float<State>(m);
    second[i] = from_float<State>(v);
    parameter[i] = from_float<T>(kept * p - rate * m / (sqrtf(v) * correction + epsilon));
  }
}
