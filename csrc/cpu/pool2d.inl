// Pooling over NHWC, vectors along the channels, several of them at a time. Max keeps the first of equal values in
// row-major window order and a NaN before all; padding never wins. Backward gathers: each input takes the shares of the
// windows that hold it, in order, and is written once. Bound by memory.

#include "pool2d_windows.inl"

#include "pool2d_backward.inl"
#include "pool2d_max.inl"
#include "pool2d_max_rows.inl"

template <class Index>
void max_forward(const Pool2dShape& s, const float* x, float* y, Index* index) {
  const PixelLanes lanes = pixel_lanes(s);
  if (lanes.pixels > 1) return max_forward_of_pixels(s, lanes, x, y, index);
  const bool square = s.R == s.S && !s.adaptive;
  const bool apart = s.stride_h == 2 && s.stride_w == 2 && s.dilation_h == 1 && s.dilation_w == 1;
  (square && s.R == 2                                       ? max_forward_of_windows<Index, 2, 2>
   : square && s.R == 3 && apart && s.C >= POOL_VECTORS * V ? max_forward_of_rows<Index>
   : square && s.R == 3                                     ? max_forward_of_windows<Index, 3, 3>
                                                            : max_forward_of_windows<Index, 0, 0>)(s, x, y, index);
}

void max_pool2d_forward(const Pool2dShape& s, const float* x, float* y, void* index, int index_bytes) {
  if (!index) {
    max_forward(s, x, y, static_cast<NoIndex*>(nullptr));
  } else if (index_bytes == 1) {
    max_forward(s, x, y, static_cast<u8*>(index));
  } else {
    max_forward(s, x, y, static_cast<int*>(index));
  }
}

template <int VECTORS>
inline void average_window(const PoolWindow& p, float divisor, int c, int lanes, float* y) {
  vec total[VECTORS] = {};
  for (int r = p.h.first; r < p.h.last; r++) {
    const float* at = p.x + r * p.row_step + p.w.first * p.column_step + c;
    vec line[VECTORS] = {};  // a row's sum first: shorter chains, less rounding
    for (int t = p.w.first; t < p.w.last; t++, at += p.column_step)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) line[v] += VECTORS == 1 ? load_first(at, lanes) : load(at + v * V);
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) total[v] += line[v];
  }
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) store_pooled(p.stream, y + c + v * V, total[v] / divisor, lanes);
}

void avg_pool2d_forward(const Pool2dShape& s, const float* x, float* y) {
  for_each_window(s, x, y, [=](const PoolWindow& p, i64 pixel) {
    float* out = y + pixel * s.C;
    const float divisor = divisor_of(s, p.h.size, p.w.size);
    int c = 0;
    for (; c + POOL_VECTORS * V <= s.C; c += POOL_VECTORS * V) average_window<POOL_VECTORS>(p, divisor, c, V, out);
    for (; c < s.C; c += V) average_window<1>(p, divisor, c, least(V, s.C - c), out);
  });
}

void max_pool2d_backward(const Pool2dShape& s, const float* dy, const void* index, int index_bytes, float* dx) {
  if (index_bytes == 1) {
    pool2d_backward(s, dy, static_cast<const u8*>(index), dx);
  } else {
    pool2d_backward(s, dy, static_cast<const int*>(index), dx);
  }
}

void avg_pool2d_backward(const Pool2dShape& s, const float* dy, float* dx) {
  pool2d_backward(s, dy, static_cast<const NoIndex*>(nullptr), dx);
}
