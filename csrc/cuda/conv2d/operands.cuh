// The operands of a convolution as matrices, found element by element while a tile is loaded: the matrix of patches is
// never built. Per group, with Cg = C/groups and Kg = K/groups:
//
//                     rows of a          rows of b             reduction, fastest last
//   forward           pixels (n, p, q)   k in [0, Kg)          (r, s, c)
//   backward_input    pixels (n, h, w)   c in [0, Cg)          (r, s, k)
//   backward_weight   k in [0, Kg)       taps (r, s, c)        (n, p, q)
//
// An operand has
//   Row row(long long i)          what is known of its row i, which may lie outside it
//   Tap tap(long long k)          what is known of position k of the reduction, which may lie outside it
//   const T* at(Row, Tap)         where the element lies; null where it does not exist, which counts as 0
//   ALONG_K                       neighbours in k are neighbours in memory (else neighbours in i are)
#pragma once
#include "../../shapes.h"
#include "../platform.cuh"

// x as rows (n, p, q) by (r, s, c)
template <class T, class Shape>
struct Patches {
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
  __device__ const T* at(const Row& row, const Tap& tap) const {
    const int h = row.h + tap.h, w = row.w + tap.w;
    if (!row.inside || !tap.inside || h < 0 || h >= shape.H || w < 0 || w >= shape.W) return nullptr;
    return row.image + (static_cast<long long>(h) * shape.W + w) * shape.C + tap.c;
  }
};

// w as rows k by (r, s, c)
template <class T>
struct Filters {
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
  __device__ const T* at(const Row& row, Tap tap) const {
    return row.inside && tap < elements ? row.filter + tap : nullptr;
  }
};

// dy as rows (n, h, w) by (r, s, k)
template <class T, class Shape>
struct GradientPatches {
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
  __device__ const T* at(const Row& row, const Tap& tap) const {
    const int reach_h = row.h - tap.h, reach_w = row.w - tap.w;
    if (!row.inside || !tap.inside || reach_h < 0 || reach_w < 0) return nullptr;
    const int p = reach_h / shape.stride_h, q = reach_w / shape.stride_w;
    if (p * shape.stride_h != reach_h || q * shape.stride_w != reach_w || p >= shape.P || q >= shape.Q) return nullptr;
    return row.image + (static_cast<long long>(p) * shape.Q + q) * shape.K + tap.k;
  }
};

// w as rows c by (r, s, k)
template <class T>
struct TransposedFilters {
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
  __device__ const T* at(Row row, const Tap& tap) const {
    return row < Cg && tap.inside ? tap.channels + row : nullptr;
  }
};

// dy as rows k by (n, p, q)
template <class T>
struct Gradients {
  static constexpr bool ALONG_K = false;  // k is the last axis of dy
  using Row = int;
  using Tap = long long;
  const T* dy;  // first channel of the group
  int Kg, K;
  long long end;  // of the block's range of pixels

  __device__ Row row(long long i) const { return static_cast<int>(i); }
  __device__ Tap tap(long long pixel) const { return pixel; }
  __device__ const T* at(Row row, Tap pixel) const { return row < Kg && pixel < end ? dy + pixel * K + row : nullptr; }
};

// x as rows (r, s, c) by (n, p, q)
template <class T, class Shape>
struct TransposedPatches {
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
  __device__ const T* at(const Row& row, const Tap& tap) const {
    const int h = row.h + tap.h, w = row.w + tap.w;
    if (!row.inside || !tap.inside || h < 0 || h >= shape.H || w < 0 || w >= shape.W) return nullptr;
    return tap.image + (static_cast<long long>(h) * shape.W + w) * shape.C + row.c;
  }
};
