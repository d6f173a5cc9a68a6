// The operands of a convolution as matrices, found element by element while a tile is loaded: the matrix of patches is
// never built. Per group, with Cg = C/groups and Kg = K/groups:
//
//                     rows of a          rows of b             reduction, fastest last
//   forward           pixels (n, p, q)   k in [0, Kg)          (r, s, c)
//   backward_input    pixels (n, h, w)   c in [0, Cg)          (r, s, k)          or by phases (phases.cuh)
//   backward_weight   k in [0, Kg)       taps (r, s, c)        (n, p, q)
//
// An operand has
//   Row row(long long i)          what is known of its row i, which may lie outside it
//   Tap tap(long long k)          what is known of position k of the reduction, which may lie outside it
//   const T* at(Row, Tap)         where the element lies; null where it does not exist, which counts as 0
//   ALONG_K                       neighbours in k are neighbours in memory (else neighbours in i are)
// and, where implicit_gemm walks along its reduction without dividing,
//   Position position(long long k)              where position k is
//   Position after(Position, int steps)         the position `steps` further on
//   Tap tap_of(Position)
#pragma once
#include "../../shapes.h"
#include "../platform.cuh"

constexpr int NOWHERE = -2147483647 - 1;  // of a row outside: no tap leads from it into an image

// whether `from` + `by` lies in [0, size)
__device__ inline bool within(int from, int by, int size) {
  return static_cast<unsigned>(from) + static_cast<unsigned>(by) < static_cast<unsigned>(size);
}

// Where position k of a reduction over (r, s, channel) is
struct TapPosition {
  int r, s, channel;

  __device__ static TapPosition of(int k, int columns, int channels) {
    const int position = k / channels;  // r*columns + s
    return {position / columns, position % columns, k % channels};
  }
  __device__ TapPosition after(int steps, int columns, int channels) const {
    TapPosition next = *this;
    next.channel += steps;
    while (next.channel >= channels) {
      next.channel -= channels;
      if (++next.s == columns) next.s = 0, next.r++;
    }
    return next;
  }
};

// x as rows (n, p, q) by (r, s, c)
template <class T, class Shape>
struct Patches {
  static constexpr bool ALONG_K = true;
  struct Row {
    long long offset;  // of tap (0, 0) and the group's first channel, in x; may point into the padding
    int h, w;          // of tap (0, 0); h is NOWHERE of a row outside
  };
  struct Tap {
    long long offset;  // from tap (0, 0)
    int h, w;
    bool inside;
  };
  using Position = TapPosition;
  const T* x;
  const Shape& shape;
  int Cg, group;

  __device__ Row row(long long i) const {
    const int q = i % shape.Q;
    const long long line = i / shape.Q;  // n*P + p
    const int p = line % shape.P, n = line / shape.P;
    const int h = p * shape.stride_h - shape.pad_h, w = q * shape.stride_w - shape.pad_w;
    const long long pixel = (static_cast<long long>(n) * shape.H + h) * shape.W + w;
    return {pixel * shape.C + group * Cg, n < shape.N ? h : NOWHERE, w};
  }
  __device__ Position position(long long k) const { return TapPosition::of(static_cast<int>(k), shape.S, Cg); }
  __device__ Position after(const Position& at, int steps) const { return at.after(steps, shape.S, Cg); }
  __device__ Tap tap_of(const Position& at) const {
    const int h = at.r * shape.dilation_h, w = at.s * shape.dilation_w;
    return {(static_cast<long long>(h) * shape.W + w) * shape.C + at.channel, h, w, at.r < shape.R};
  }
  __device__ Tap tap(long long k) const { return tap_of(position(k)); }
  __device__ const T* at(const Row& row, const Tap& tap) const {
    if (!tap.inside || !within(row.h, tap.h, shape.H) || !within(row.w, tap.w, shape.W)) return nullptr;
    return x + (row.offset + tap.offset);
  }
};

// w as rows k by (r, s, c)
template <class T>
struct Filters {
  static constexpr bool ALONG_K = true;
  using Row = const T*;  // the filter, or null
  using Tap = int;
  using Position = int;
  const T* w;  // first filter of the group
  int filters, elements;

  __device__ Row row(long long i) const { return i < filters ? w + i * elements : nullptr; }
  __device__ Position position(long long k) const { return static_cast<int>(k); }
  __device__ Position after(Position at, int steps) const { return at + steps; }
  __device__ Tap tap_of(Position at) const { return at; }
  __device__ Tap tap(long long k) const { return static_cast<int>(k); }
  __device__ const T* at(Row row, Tap tap) const { return row && tap < elements ? row + tap : nullptr; }
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

// dy as rows k by pixels (n, p, q) of a range
template <class T>
struct Gradients {
  static constexpr bool ALONG_K = false;  // k is the last axis of dy
  using Row = const T*;                   // at the range's first pixel, or null
  using Tap = int;
  using Position = int;
  const T* dy;  // the range's first pixel, first channel of the group
  int Kg, K;
  int pixels;  // of the range

  __device__ Row row(long long i) const { return i < Kg ? dy + i : nullptr; }
  __device__ Position position(long long pixel) const { return static_cast<int>(pixel); }
  __device__ Position after(Position pixel, int steps) const { return pixel + steps; }
  __device__ Tap tap_of(Position pixel) const { return pixel; }
  __device__ Tap tap(long long pixel) const { return static_cast<int>(pixel); }
  __device__ const T* at(Row row, Tap pixel) const {
    return row && pixel < pixels ? row + static_cast<long long>(pixel) * K : nullptr;
  }
};

// x as rows (r, s, c) by pixels (n, p, q) of a range. What lies past the range is not masked: dy is 0 there, and a
// range that is not the last ends with a step.
template <class T, class Shape>
struct TransposedPatches {
  static constexpr bool ALONG_K = false;  // c is the last axis of x
  struct Row {
    int h, w, c;  // of the pixel (0, 0), channel within x; h is NOWHERE of a row outside
  };
  struct Tap {
    long long line;  // n*H
    int h, w;        // p*stride_h, q*stride_w
    bool inside;
  };
  struct Position {
    int n, p, q;
  };
  const T* x;
  const Shape& shape;
  int Cg, group;
  long long first;  // pixel of the range

  __device__ Row row(long long i) const {
    const TapPosition at = TapPosition::of(static_cast<int>(i), shape.S, Cg);
    const int h = at.r * shape.dilation_h - shape.pad_h, w = at.s * shape.dilation_w - shape.pad_w;
    return {at.r < shape.R ? h : NOWHERE, w, group * Cg + at.channel};
  }
  __device__ Position position(long long i) const {
    const long long line = (first + i) / shape.Q;  // n*P + p
    const int q = (first + i) % shape.Q;
    return {static_cast<int>(line / shape.P), static_cast<int>(line % shape.P), q};
  }
  __device__ Position after(const Position& at, int steps) const {
    Position next = at;
    next.q += steps;
    while (next.q >= shape.Q) {
      next.q -= shape.Q;
      if (++next.p == shape.P) next.p = 0, next.n++;
    }
    return next;
  }
  __device__ Tap tap_of(const Position& at) const {
    return {static_cast<long long>(at.n) * shape.H, at.p * shape.stride_h, at.q * shape.stride_w, at.n < shape.N};
  }
  __device__ Tap tap(long long i) const { return tap_of(position(i)); }
  __device__ const T* at(const Row& row, const Tap& tap) const {
    if (!tap.inside || !within(row.h, tap.h, shape.H) || !within(row.w, tap.w, shape.W)) return nullptr;
    return x + (((tap.line + row.h + tap.h) * shape.W + row.w + tap.w) * shape.C + row.c);
  }
};

// What a block of backward_weight makes: a tile of a group's dw from filter k and element `tap` of (R, S, Cg) on,
// summed over a split of the pixels. Blocks are numbered tiles of taps first, then of filters, groups, splits.
struct SplitBlock {
  int k, tap, group, split;

  template <class Tile>
  static __device__ SplitBlock of(int groups, int filters, int elements) {
    const int block = static_cast<int>(blockIdx.x), taps = (elements + Tile::BN - 1) / Tile::BN;
    const int rows = (filters + Tile::BM - 1) / Tile::BM, line = block / taps / rows;
    return {block / taps % rows * Tile::BM, block % taps * Tile::BN, line % groups, line / groups};
  }

  // of the pixels from `first` on
  template <class Shape>
  static __device__ int pixels(const Shape& shape, long long first, long long range) {
    const long long all = static_cast<long long>(shape.N) * shape.P * shape.Q;
    return static_cast<int>(first + range < all ? range : all - first);
  }
};
