// conv2d, rung `tiled`: implicit GEMM over tile.cuh. Per group, with Cg = C/groups and Kg = K/groups:
//
//                     rows of a          rows of b             reduction, fastest last
//   forward           pixels (n, p, q)   k in [0, Kg)          (r, s, c)
//   backward_input    pixels (n, h, w)   c in [0, Cg)          (r, s, k)
//   backward_weight   k in [0, Kg)       taps (r, s, c)        (n, p, q)
//
// Blocks are numbered along x alone (y and z end at 65535), b's tiles fastest: blocks that read the same pixels run
// close in time and meet in L2. backward_weight has few tiles and a long reduction, so it is split into `splits` ranges
// of pixels whose partial sums go to a workspace (splits, K, R, S, Cg) and are added in order by a second kernel: no
// atomics, the same bits every time. backward_input spends a zero on each tap that the stride skips: at stride 2 three
// of four, which four parity sub-convolutions would save.
#pragma once
#include "../../shapes.h"
#include "../epilogue.cuh"
#include "../platform.cuh"
#include "../tile.cuh"

// x as rows (n, p, q) by (r, s, c)
template <class T, class Shape>
struct PatchLoader {
  static constexpr bool ALONG_K = true;
  struct Row {
    const T* image;  // x at (n, 0, 0, first channel of the group)
    int h, w;        // of tap (0, 0)
    bool inside;
  };
  struct Tap {
    int h, w, c;  // from tap (0, 0)
    bool inside;
  };
  const T* x;
  const Shape& shape;
  int Cg, group;

  __device__ Row row(long long i) const {
    const int q = i % shape.Q;
    const long long line = i / shape.Q;  // n*P + p
    const int p = line % shape.P, n = line / shape.P;
    const T* image = x + static_cast<long long>(n) * shape.H * shape.W * shape.C + group * Cg;
    return {image, p * shape.stride_h - shape.pad_h, q * shape.stride_w - shape.pad_w, n < shape.N};
  }
  __device__ Tap tap(long long k) const {
    const int position = static_cast<int>(k) / Cg, c = static_cast<int>(k) % Cg;  // position = r*S + s
    const int r = position / shape.S, s = position % shape.S;
    return {r * shape.dilation_h, s * shape.dilation_w, c, r < shape.R};
  }
  __device__ float load(const Row& row, const Tap& tap) const {
    const int h = row.h + tap.h, w = row.w + tap.w;
    if (!row.inside || !tap.inside || h < 0 || h >= shape.H || w < 0 || w >= shape.W) return 0.0f;
    return to_float(row.image[(static_cast<long long>(h) * shape.W + w) * shape.C + tap.c]);
  }
};

// w as rows k by (r, s, c)
template <class T>
struct FilterLoader {
  static constexpr bool ALONG_K = true;
  struct Row {
    const T* filter;
    bool inside;
  };
  using Tap = int;
  const T* w;  // first filter of the group
  int filters, elements;

  __device__ Row row(long long i) const { return {w + i * elements, i < filters}; }
  __device__ Tap tap(long long k) const { return static_cast<int>(k); }
  __device__ float load(const Row& row, Tap tap) const {
    return row.inside && tap < elements ? to_float(row.filter[tap]) : 0.0f;
  }
};

template <class T, class Shape, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    conv2d_forward_tiled(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, const T* bias,
                         const T* scale, const T* shift, const T* residual, int relu, Shape shape) {
  DYN_SMEM(typename Tile::Shared, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int reduction = shape.R * shape.S * Cg;
  const long long pixels = static_cast<long long>(shape.N) * shape.P * shape.Q;
  const int tiles_k = (Kg + Tile::BN - 1) / Tile::BN;
  const long long tiles_pixels = (pixels + Tile::BM - 1) / Tile::BM;
  const long long first_pixel = blockIdx.x / tiles_k % tiles_pixels * Tile::BM;
  const int first_k = blockIdx.x % tiles_k * Tile::BN;
  const int group = blockIdx.x / tiles_k / tiles_pixels;

  const PatchLoader<T, Shape> patches{x, shape, Cg, group};
  const FilterLoader<T> filters{w + static_cast<long long>(group) * Kg * reduction, Kg, reduction};
  float sum[Tile::TM][Tile::TN];
  multiply_tile<Tile>(*shared, patches, filters, first_pixel, first_k, 0, reduction, sum);

  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  const long long pixel = first_pixel + threadIdx.x / Tile::COLUMNS * Tile::TM;
  const int k = first_k + threadIdx.x % Tile::COLUMNS * Tile::TN;  // within the group
  epilogue.apply_channels(sum, group * Kg + k, (group + 1) * Kg);
#pragma unroll
  for (int i = 0; i < Tile::TM; i++) {
    const long long index = (pixel + i) * shape.K + group * Kg + k;
#pragma unroll
    for (int j = 0; j < Tile::TN; j++)
      if (pixel + i < pixels && k + j < Kg) y[index + j] = epilogue.finish(sum[i][j], index + j);
  }
}

// dy as rows (n, h, w) by (r, s, k)
template <class T, class Shape>
struct GradientPatchLoader {
  static constexpr bool ALONG_K = true;
  struct Row {
    const T* image;  // dy at (n, 0, 0, first channel of the group)
    int h, w;        // of the input pixel, in the padded input
    bool inside;
  };
  struct Tap {
    int h, w, k;  // r*dilation_h, s*dilation_w
    bool inside;
  };
  const T* dy;
  const Shape& shape;
  int Kg, group;

  __device__ Row row(long long i) const {
    const int w = i % shape.W;
    const long long line = i / shape.W;  // n*H + h
    const int h = line % shape.H, n = line / shape.H;
    const T* image = dy + static_cast<long long>(n) * shape.P * shape.Q * shape.K + group * Kg;
    return {image, h + shape.pad_h, w + shape.pad_w, n < shape.N};
  }
  __device__ Tap tap(long long i) const {
    const int position = static_cast<int>(i) / Kg, k = static_cast<int>(i) % Kg;  // position = r*S + s
    const int r = position / shape.S, s = position % shape.S;
    return {r * shape.dilation_h, s * shape.dilation_w, k, r < shape.R};
  }
  __device__ float load(const Row& row, const Tap& tap) const {
    const int reach_h = row.h - tap.h, reach_w = row.w - tap.w;
    if (!row.inside || !tap.inside || reach_h < 0 || reach_w < 0) return 0.0f;
    const int p = reach_h / shape.stride_h, q = reach_w / shape.stride_w;
    if (p * shape.stride_h != reach_h || q * shape.stride_w != reach_w || p >= shape.P || q >= shape.Q) return 0.0f;
    return to_float(row.image[(static_cast<long long>(p) * shape.Q + q) * shape.K + tap.k]);
  }
};

// w as rows c by (r, s, k)
template <class T>
struct TransposedFilterLoader {
  static constexpr bool ALONG_K = false;  // c is the last axis of w
  using Row = int;
  struct Tap {
    const T* channels;  // w at (k, r, s, 0)
    bool inside;
  };
  const T* w;            // first filter of the group
  int Cg, Kg, elements;  // elements of a filter = R*S*Cg

  __device__ Row row(long long i) const { return static_cast<int>(i); }
  __device__ Tap tap(long long i) const {
    const int position = static_cast<int>(i) / Kg, k = static_cast<int>(i) % Kg;
    const long long offset = static_cast<long long>(position) * Cg;
    return {w + static_cast<long long>(k) * elements + offset, offset < elements};
  }
  __device__ float load(Row row, const Tap& tap) const {
    return row < Cg && tap.inside ? to_float(tap.channels[row]) : 0.0f;
  }
};

template <class T, class Shape, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    conv2d_backward_input_tiled(const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx, Shape shape) {
  DYN_SMEM(typename Tile::Shared, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int elements = shape.R * shape.S * Cg, reduction = shape.R * shape.S * Kg;
  const long long pixels = static_cast<long long>(shape.N) * shape.H * shape.W;
  const int tiles_c = (Cg + Tile::BN - 1) / Tile::BN;
  const long long tiles_pixels = (pixels + Tile::BM - 1) / Tile::BM;
  const long long first_pixel = blockIdx.x / tiles_c % tiles_pixels * Tile::BM;
  const int first_c = blockIdx.x % tiles_c * Tile::BN;
  const int group = blockIdx.x / tiles_c / tiles_pixels;

  const GradientPatchLoader<T, Shape> patches{dy, shape, Kg, group};
  const TransposedFilterLoader<T> filters{w + static_cast<long long>(group) * Kg * elements, Cg, Kg, elements};
  float sum[Tile::TM][Tile::TN];
  multiply_tile<Tile>(*shared, patches, filters, first_pixel, first_c, 0, reduction, sum);

  const long long pixel = first_pixel + threadIdx.x / Tile::COLUMNS * Tile::TM;
  const int c = first_c + threadIdx.x % Tile::COLUMNS * Tile::TN;
#pragma unroll
  for (int i = 0; i < Tile::TM; i++)
#pragma unroll
    for (int j = 0; j < Tile::TN; j++)
      if (pixel + i < pixels && c + j < Cg) dx[(pixel + i) * shape.C + group * Cg + c + j] = from_float<T>(sum[i][j]);
}

// dy as rows k by (n, p, q)
template <class T>
struct GradientLoader {
  static constexpr bool ALONG_K = false;  // k is the last axis of dy
  using Row = int;
  using Tap = long long;
  const T* dy;  // first channel of the group
  int Kg, K;
  long long end;  // of the block's range of pixels

  __device__ Row row(long long i) const { return static_cast<int>(i); }
  __device__ Tap tap(long long pixel) const { return pixel; }
  __device__ float load(Row row, Tap pixel) const {
    return row < Kg && pixel < end ? to_float(dy[pixel * K + row]) : 0.0f;
  }
};

// x as rows (r, s, c) by (n, p, q)
template <class T, class Shape>
struct TransposedPatchLoader {
  static constexpr bool ALONG_K = false;  // c is the last axis of x
  struct Row {
    int h, w, c;  // of the pixel (0, 0), channel within x
    bool inside;
  };
  struct Tap {
    const T* image;  // x at (n, 0, 0, 0)
    int h, w;        // p*stride_h, q*stride_w
    bool inside;
  };
  const T* x;
  const Shape& shape;
  int Cg, group;
  long long end;  // of the block's range of pixels

  __device__ Row row(long long i) const {
    const int position = static_cast<int>(i) / Cg, c = static_cast<int>(i) % Cg;  // position = r*S + s
    const int r = position / shape.S, s = position % shape.S;
    return {r * shape.dilation_h - shape.pad_h, s * shape.dilation_w - shape.pad_w, group * Cg + c, r < shape.R};
  }
  __device__ Tap tap(long long pixel) const {
    const int q = pixel % shape.Q;
    const long long line = pixel / shape.Q;  // n*P + p
    const int p = line % shape.P, n = line / shape.P;
    const T* image = x + static_cast<long long>(n) * shape.H * shape.W * shape.C;
    return {image, p * shape.stride_h, q * shape.stride_w, pixel < end};
  }
  __device__ float load(const Row& row, const Tap& tap) const {
    const int h = row.h + tap.h, w = row.w + tap.w;
    if (!row.inside || !tap.inside || h < 0 || h >= shape.H || w < 0 || w >= shape.W) return 0.0f;
    return to_float(tap.image[(static_cast<long long>(h) * shape.W + w) * shape.C + row.c]);
  }
};

// range: pixels a split adds; partial: (splits, K, R, S, Cg), or null where there is one split, which writes dw
template <class T, class Shape, class Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    conv2d_backward_weight_tiled(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dw,
                                 float* __restrict__ partial, long long range, Shape shape) {
  DYN_SMEM(typename Tile::Shared, shared);
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const int elements = shape.R * shape.S * Cg;  // of a filter
  const int tiles_taps = (elements + Tile::BN - 1) / Tile::BN, tiles_k = (Kg + Tile::BM - 1) / Tile::BM;
  const int first_tap = blockIdx.x % tiles_taps * Tile::BN;
  const int first_k = blockIdx.x / tiles_taps % tiles_k * Tile::BM;
  const int group = blockIdx.x / tiles_taps / tiles_k % shape.groups;
  const int split = blockIdx.x / tiles_taps / tiles_k / shape.groups;
  const long long pixels = static_cast<long long>(shape.N) * shape.P * shape.Q;
  const long long begin = split * range, end = begin + range < pixels ? begin + range : pixels;

  const GradientLoader<T> gradients{dy + group * Kg, Kg, shape.K, end};
  const TransposedPatchLoader<T, Shape> patches{x, shape, Cg, group, end};
  float sum[Tile::TM][Tile::TN];
  multiply_tile<Tile>(*shared, gradients, patches, first_k, first_tap, begin, end, sum);

  const int k = first_k + threadIdx.x / Tile::COLUMNS * Tile::TM;
  const int tap = first_tap + threadIdx.x % Tile::COLUMNS * Tile::TN;
#pragma unroll
  for (int i = 0; i < Tile::TM; i++)
#pragma unroll
    for (int j = 0; j < Tile::TN; j++)
      if (k + i < Kg && tap + j < elements) {
        const long long index = static_cast<long long>(group * Kg + k + i) * elements + tap + j;
        if (partial) {
          partial[static_cast<long long>(split) * shape.K * elements + index] = sum[i][j];
        } else {
          dw[index] = from_float<T>(sum[i][j]);
        }
      }
}

constexpr int SUM_THREADS = 256;

// dw (count,) = the sum of partial (splits, count), in order
template <class T>
__global__ void __launch_bounds__(SUM_THREADS, 1)
    conv2d_backward_weight_sum(const float* __restrict__ partial, T* __restrict__ dw, long long count, int splits) {
  const long long index = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (index >= count) return;
  float sum = 0.0f;
  for (int split = 0; split < splits; split++) sum += partial[split * count + index];
  dw[index] = from_float<T>(sum);
}
