// conv2d, rung `first_layer`: images of one to three channels. Copies of 2 or 6 bytes are what the implicit GEMMs are
// worst at, so x and w get channels of zeros until 4 or 2 of them fill a copy, and implicit_gemm_mma (implicit_gemm for
// float32) runs on those; what belongs to the channels added is cut off its gradients. Zeros meet zeros: no product
// tells of it.
#pragma once
#include "../elementwise.cuh"

// wide (lines, width) = narrow (lines, channels), zeros behind
template <class T>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1)
    conv2d_first_layer_pad(const T* __restrict__ narrow, T* __restrict__ wide, long long lines, int channels,
                           int width) {
  for_each_element(lines * width, [&](long long index) {
    const long long line = index / width;
    const int c = static_cast<int>(index % width);
    wide[index] = c < channels ? narrow[line * channels + c] : from_float<T>(0.0f);
  });
}

// narrow (lines, channels) = the first channels of wide (lines, width)
template <class T>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1)
    conv2d_first_layer_cut(const T* __restrict__ wide, T* __restrict__ narrow, long long lines, int channels,
                           int width) {
  for_each_element(lines * channels,
                   [&](long long index) { narrow[index] = wide[index / channels * width + index % channels]; });
}
