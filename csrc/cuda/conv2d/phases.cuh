// backward_input of any stride as dense products. Input pixel h, whose place in the padded input is h + pad_h, is
// reached by tap r from output p where
//
//   p*stride_h + r*dilation_h = h + pad_h
//
// so only taps with r*dilation_h = h + pad_h modulo stride_h reach it: the same ones for all h of one residue, at equal
// distances from each other, and from neighbouring h of that residue they lead to neighbouring p. These pixels are a
// phase: a convolution without stride of their own few taps, where no product is spent on a zero. Stride 1 is one phase
// of all taps; at stride 2 a 3x3 filter has phases of 1, 2, 2 and 4 taps. A phase that no tap reaches is 0.
//
//   PhasePatches   dy as rows (n, i, j), the phase's pixels   by (t, u, k), the phase's taps (t, u)
//   PhaseFilters   w as rows c in [0, Cg)                     by (t, u, k)
#pragma once
#include "operands.cuh"

// One axis of a phase: rows first + i*stride, and the taps tap + t*step that reach them, from output base + i - t*reach
struct PhaseAxis {
  int first, rows;
  int tap, step, taps;
  int base, reach;

  __device__ PhaseAxis(int first, int size, int stride, int pad, int dilation, int filter)
      : first(first), rows((size - first - 1) / stride + 1), tap(0), step(1) {
    while (tap < filter && (first + pad - tap * dilation) % stride != 0) tap++;
    while (step < filter && step * dilation % stride != 0) step++;
    taps = tap < filter ? (filter - tap - 1) / step + 1 : 0;
    base = (first + pad - tap * dilation) / stride;
    reach = step * dilation / stride;
  }
};

struct Phase {
  PhaseAxis h, w;

  // phase `number` in [0, count(shape)) has the pixels from (number / columns, number % columns) on
  template <class Shape>
  __device__ Phase(const Shape& shape, int number)
      : h(number / columns(shape), shape.H, shape.stride_h, shape.pad_h, shape.dilation_h, shape.R),
        w(number % columns(shape), shape.W, shape.stride_w, shape.pad_w, shape.dilation_w, shape.S) {}

  template <class Shape>
  __device__ static int columns(const Shape& shape) {
    return shape.stride_w < shape.W ? shape.stride_w : shape.W;
  }
  template <class Shape>
  __device__ static int count(const Shape& shape) {
    return (shape.stride_h < shape.H ? shape.stride_h : shape.H) * columns(shape);
  }
  // of the first phase, which has the most
  template <class Shape>
  __device__ static long long most_pixels(const Shape& shape) {
    return static_cast<long long>(shape.N) * ((shape.H - 1) / shape.stride_h + 1) *
           ((shape.W - 1) / shape.stride_w + 1);
  }

  template <class Shape>
  __device__ long long pixels(const Shape& shape) const {
    return static_cast<long long>(shape.N) * h.rows * w.rows;
  }
  __device__ int taps() const { return h.taps * w.taps; }
  // pixel i of the phase, as its number in x
  template <class Shape>
  __device__ long long pixel(const Shape& shape, long long i) const {
    const long long line = i / w.rows;  // n*h.rows + row
    const int column = w.first + static_cast<int>(i % w.rows) * shape.stride_w;
    const int row = h.first + static_cast<int>(line % h.rows) * shape.stride_h;
    return (line / h.rows * shape.H + row) * shape.W + column;
  }
};

// Where a block's tile of BM pixels by BN channels lies. Blocks are numbered by group, tile of pixels, phase and tile
// of channels, the last fastest: phases of the same pixels read the same dy at about the same time, and blocks with
// many taps run beside blocks with few.
struct PhaseBlock {
  long long pixel;  // of the phase; from its number of pixels on there is nothing to do
  int c, group;
  Phase phase;

  template <int BM, int BN, class Shape>
  __device__ static PhaseBlock of(const Shape& shape, unsigned block) {
    const int tiles_c = (shape.C / shape.groups + BN - 1) / BN, phases = Phase::count(shape);
    const int tiles_pixels = (Phase::most_pixels(shape) + BM - 1) / BM;  // fewer than there are blocks
    const int line = block / tiles_c / phases;
    return {static_cast<long long>(line % tiles_pixels) * BM, static_cast<int>(block % tiles_c) * BN,
            line / tiles_pixels, Phase(shape, block / tiles_c % phases)};
  }
};

template <class T, class Shape>
struct PhasePatches {
  static constexpr bool ALONG_K = true;
  struct Row {
    long long offset;  // of the output that the first tap comes from and the group's first channel, in dy; may miss it
    int p, q;          // of that output; p is NOWHERE of a row outside
  };
  struct Tap {
    long long offset;  // from the first tap
    int p, q;          // from the first tap, 0 or less
    bool inside;
  };
  using Position = TapPosition;  // of the phase's taps
  const T* dy;
  const Shape& shape;
  const Phase& phase;
  int Kg, group;

  __device__ Row row(long long i) const {
    const long long line = i / phase.w.rows;
    const int q = phase.w.base + static_cast<int>(i % phase.w.rows);
    const int p = phase.h.base + static_cast<int>(line % phase.h.rows), n = line / phase.h.rows;
    const long long pixel = (static_cast<long long>(n) * shape.P + p) * shape.Q + q;
    return {pixel * shape.K + group * Kg, n < shape.N ? p : NOWHERE, q};
  }
  __device__ Position position(long long i) const { return TapPosition::of(static_cast<int>(i), phase.w.taps, Kg); }
  __device__ Position after(const Position& at, int steps) const { return at.after(steps, phase.w.taps, Kg); }
  __device__ Tap tap_of(const Position& at) const {
    const int p = -at.r * phase.h.reach, q = -at.s * phase.w.reach;
    return {(static_cast<long long>(p) * shape.Q + q) * shape.K + at.channel, p, q, at.r < phase.h.taps};
  }
  __device__ Tap tap(long long i) const { return tap_of(position(i)); }
  __device__ const T* at(const Row& row, const Tap& tap) const {
    if (!tap.inside || !within(row.p, tap.p, shape.P) || !within(row.q, tap.q, shape.Q)) return nullptr;
    return dy + (row.offset + tap.offset);
  }
};

template <class T, class Shape>
struct PhaseFilters {
  static constexpr bool ALONG_K = false;  // c is the last axis of w
  using Row = const T*;                   // the group's w at k = 0, the first tap and c, or null
  struct Tap {
    long long offset;  // from k = 0 and the first tap
    bool inside;
  };
  using Position = TapPosition;
  const T* w;  // first filter of the group
  const Shape& shape;
  const Phase& phase;
  int Cg, Kg;

  __device__ Row row(long long i) const {
    return i < Cg ? w + ((static_cast<long long>(phase.h.tap) * shape.S + phase.w.tap) * Cg + i) : nullptr;
  }
  __device__ Position position(long long i) const { return TapPosition::of(static_cast<int>(i), phase.w.taps, Kg); }
  __device__ Position after(const Position& at, int steps) const { return at.after(steps, phase.w.taps, Kg); }
  __device__ Tap tap_of(const Position& at) const {
    const long long filter = static_cast<long long>(at.channel) * shape.R + at.r * phase.h.step;
    return {(filter * shape.S + at.s * phase.w.step) * Cg, at.r < phase.h.taps};
  }
  __device__ Tap tap(long long i) const { return tap_of(position(i)); }
  __device__ const T* at(Row row, const Tap& tap) const { return row && tap.inside ? row + tap.offset : nullptr; }
};
