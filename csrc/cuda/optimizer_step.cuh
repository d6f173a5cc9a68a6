// Optimizer steps, in place, over up to TENSORS parameters in one launch.
//
// The table of pointers travels by value in the kernel's arguments: no copy to the device, and a captured graph keeps
// it. A block takes ELEMENTS_PER_BLOCK neighbours of one parameter; it finds which one by the table's first blocks.
// hyper lies on the device, so that a captured graph sees a new learning rate.
// Traffic of sgd in float32: reads parameter, gradient and velocity, writes parameter and velocity: 20 bytes an
// element.
#pragma once
#include "platform.cuh"

constexpr int STEP_THREADS = 256;
constexpr int ELEMENTS_PER_BLOCK = 2048;  // 8 a thread
constexpr int TENSORS = 64;               // a table of 64 * 36 + 8 = 2312 of the 4096 bytes that arguments may have

struct StepTable {
  void* parameter[TENSORS];
  const void* gradient[TENSORS];
  void* velocity[TENSORS];  // null without momentum
  long long count[TENSORS];
  int first_block[TENSORS];
  int tensors, unused;
};
static_assert(sizeof(StepTable) == TENSORS * 36 + 8, "as packed by cnnengine/backends/_kernels.py");

// hyper: learning rate, momentum, weight decay, nesterov (0 or 1), gradient scale
// g = gradient * scale + decay * p;  v = momentum * v + g;  p -= lr * (nesterov ? g + momentum * v : v)
template <class T, class State>
__global__ void __launch_bounds__(STEP_THREADS, 1) sgd(const float* hyper, StepTable table) {
  int tensor = 0;  // the last whose first block is not past this one
  for (int i = 1; i < table.tensors; i++)
    if (table.first_block[i] <= static_cast<int>(blockIdx.x)) tensor = i;
  T* parameter = static_cast<T*>(table.parameter[tensor]);
  const T* gradient = static_cast<const T*>(table.gradient[tensor]);
  State* velocity = static_cast<State*>(table.velocity[tensor]);
  const float lr = hyper[0], momentum = hyper[1], decay = hyper[2], nesterov = hyper[3], scale = hyper[4];

  const long long first = (blockIdx.x - table.first_block[tensor]) * static_cast<long long>(ELEMENTS_PER_BLOCK);
  const long long stop = first + ELEMENTS_PER_BLOCK, end = stop < table.count[tensor] ? stop : table.count[tensor];
  for (long long i = first + threadIdx.x; i < end; i += blockDim.x) {
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
