// The walk of kernels with one thread an output, over an array (lines, width): a block takes blockDim.x neighbours of
// one line, or of blockDim.y lines, so that a thread's place is found in 32-bit arithmetic although the array may have
// more than 2^31 elements. These kernels, as all of ours, ask for at least 1 block a multiprocessor in their launch
// bounds: left to itself the assembler spills registers to memory to make room for more blocks.
#pragma once
#include "platform.cuh"

struct Place {
  int line, column;
  long long index;  // line * width + column
  bool inside;

  __device__ explicit Place(int width) : Place(width, 0x7fffffff) {}

  __device__ Place(int width, int lines) {
    const int tiles = (width + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x);
    line = static_cast<int>(blockIdx.x) / tiles * static_cast<int>(blockDim.y) + static_cast<int>(threadIdx.y);
    column = (static_cast<int>(blockIdx.x) % tiles) * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    index = static_cast<long long>(line) * width + column;
    inside = column < width && line < lines;
  }
};
