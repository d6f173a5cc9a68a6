// conv2d, rung `grouped` on tensor cores: float16 and bfloat16, groups of GROUP = 8, 16 or 32 channels and as many
// filters, forward and backward_input. A block makes a rectangle of output pixels of one image, of as many groups as
// have 64 channels, and keeps in shared memory all that they need:
//
//   inputs    every pixel under the rectangle once, 128 bytes of channels each, by cp.async; all taps read them there.
//             An implicit GEMM copies a pixel anew for each tap.
//   weights   of the block's filters, a line each
//
// A warp takes 32 pixels and all 64 outputs. An mma adds 8 or 16 channels of one group under one tap for 8 filters of
// this group, so that no number meets another group's: a NaN stays in its group. A rectangle's pixels are numbered row
// by row, m, and need not be 16 wide: ldmatrix takes any addresses.
//
// Banks: chunk c of 16 bytes of an input lies at c ^ key, key = (row / scale) * width + column / scale for inputs
// `scale` apart. Pixel m meets under a tap the input of key m + what belongs to the tap: eight neighbours differ, under
// every tap, stride and dilation. A line of weights has an odd number of chunks.
//
// backward_input: each phase of a stride is a convolution of its own over dy, with the taps that meet it (phases.cuh).
//
// backward_weight: a block adds the products of a range of rectangles, x and dy beside each other in shared memory. An
// mma adds 16 pixels for 8 filters and two units, a unit being 8 channels of the group under one tap: what runs along
// the sum are pixels, and of x and of dy both what lies past the outputs is 0. A second kernel adds the blocks.
#pragma once
#include "../../shapes.h"
#include "../epilogue.cuh"
#include "../fragments_out.cuh"
#include "../ptx.cuh"
#include "sliding_window.cuh"

constexpr int GROUPED_MMA_CHANNELS = 64;  // at most, of a block's inputs and outputs: 128 bytes
constexpr int GROUPED_MMA_PIXELS = 128;   // at most, of its rectangle

// Which inputs an output meets along one axis: output i and tap t in [0, count) meet i * scale + least + t * step. The
// tap is number first + t * skip of the filter, or of backward_input, where inputs run the other way, with t from the
// end.
struct GroupedAxis {
  int count, scale, least, step, first, skip;
  int outputs, begin, stride;  // output i is pixel begin + i * stride

  __device__ static GroupedAxis forward(int taps, int stride, int dilation, int pad, int outputs) {
    return {taps, stride, -pad, dilation, 0, 1, outputs, 0, 1};
  }
  __device__ static GroupedAxis backward_input(int taps, int stride, int dilation, int pad, int pixels, int phase) {
    const Axis axis(stride, dilation);
    const int first = axis.first_tap(phase + pad, taps), count = (taps - first + axis.phases - 1) / axis.phases;
    const int nearest = (phase + pad - first * dilation) / stride;  // exact where count > 0
    return {count,
            1,
            nearest - (count - 1) * axis.spacing,
            axis.spacing,
            first + (count - 1) * axis.phases,
            -axis.phases,
            (pixels - phase + stride - 1) / stride,
            phase,
            stride};
  }
  // inputs under `length` outputs
  __device__ int under(int length) const { return (length - 1) * scale + (count - 1) * step + 1; }
  __device__ int tap(int t) const { return first + t * skip; }
};

// Where chunk c of an input lies in its 128 bytes, as an offset in elements; and the key of the input at (row, column)
__device__ __forceinline__ int grouped_chunk(int chunk, int key) {
  return (chunk ^ key % 8) * 8;
}
__device__ __forceinline__ int grouped_key(const GroupedAxis& h, const GroupedAxis& v, int row, int column, int width) {
  return row / h.scale * width + column / v.scale;
}

// What a warp multiplies at once: 32 pixels by 8 outputs, 16 channels of the sum or 8
template <bool WIDE>
struct GroupedFragment {
  static constexpr int CHUNKS = WIDE ? 2 : 1;
  uint32_t a[2][2 * CHUNKS], b[CHUNKS];

  __device__ __forceinline__ void load_a(int i, const void* row) {
    if constexpr (WIDE) {
      ptx::ldmatrix_x4(a[i], row);
    } else {
      ptx::ldmatrix_x2(a[i], row);
    }
  }
  // rows are outputs, or where TRANSPOSED what is added
  template <bool TRANSPOSED>
  __device__ __forceinline__ void load_b(const void* row) {
    if constexpr (WIDE && TRANSPOSED) {
      ptx::ldmatrix_x2_trans(b, row);
    } else if constexpr (WIDE) {
      ptx::ldmatrix_x2(b, row);
    } else if constexpr (TRANSPOSED) {
      ptx::ldmatrix_x1_trans(b, row);
    } else {
      ptx::ldmatrix_x1(b, row);
    }
  }
  template <class T>
  __device__ __forceinline__ void add(int i, float (&sum)[4]) const {
    if constexpr (WIDE) {
      ptx::mma_m16n8k16<T>(sum, a[i], b);
    } else {
      ptx::mma_m16n8k8<T>(sum, a[i], b);
    }
  }
};

// The rectangle of a block, height by width outputs of one phase of one image, and its groups. Blocks are numbered
// groups fastest, then columns, rows, phases, images.
template <int GROUP, bool BACKWARD>
struct GroupedBlock {
  static constexpr int GROUPS = GROUPED_MMA_CHANNELS / GROUP;
  int first_channel, present;  // of x and y alike; channels that exist
  int top, left, n;
  GroupedAxis h, v;

  template <class Shape>
  __device__ GroupedBlock(const Shape& s, int height, int width) {
    const int rows = BACKWARD ? s.H : s.P, columns = BACKWARD ? s.W : s.Q;
    const int stride_h = BACKWARD ? s.stride_h : 1, stride_w = BACKWARD ? s.stride_w : 1;
    const int phases_h = stride_h < rows ? stride_h : rows, phases_w = stride_w < columns ? stride_w : columns;
    const int tiles_group = (s.groups + GROUPS - 1) / GROUPS;
    const int tiles_h = ((rows + stride_h - 1) / stride_h + height - 1) / height;
    const int tiles_w = ((columns + stride_w - 1) / stride_w + width - 1) / width;
    int block = static_cast<int>(blockIdx.x);
    const int first_group = block % tiles_group * GROUPS;
    block /= tiles_group;
    left = block % tiles_w * width;
    block /= tiles_w;
    top = block % tiles_h * height;
    block /= tiles_h;
    const int phase = block % (phases_h * phases_w);
    n = block / (phases_h * phases_w);
    first_channel = first_group * GROUP;
    present = (s.groups - first_group < GROUPS ? s.groups - first_group : GROUPS) * GROUP;
    if constexpr (BACKWARD) {
      h = GroupedAxis::backward_input(s.R, s.stride_h, s.dilation_h, s.pad_h, s.H, phase / phases_w);
      v = GroupedAxis::backward_input(s.S, s.stride_w, s.dilation_w, s.pad_w, s.W, phase % phases_w);
    } else {
      h = GroupedAxis::forward(s.R, s.stride_h, s.dilation_h, s.pad_h, s.P);
      v = GroupedAxis::forward(s.S, s.stride_w, s.dilation_w, s.pad_w, s.Q);
    }
  }
};

// in (N, rows_in, columns_in, C) to out (N, rows_out, columns_out, C)
template <class T, class Shape, bool BACKWARD, int GROUP>
__device__ __forceinline__ void grouped_mma(const T* __restrict__ in, const T* __restrict__ w, T* __restrict__ out,
                                            const Epilogue<T>& epilogue, int height, int width, const Shape& shape,
                                            unsigned char* shared) {
  constexpr int CHANNELS = GROUPED_MMA_CHANNELS, CHUNKS = CHANNELS / 8;
  constexpr bool WIDE = GROUP >= 16;
  using Fragment = GroupedFragment<WIDE>;
  const int rows_in = BACKWARD ? shape.P : shape.H, columns_in = BACKWARD ? shape.Q : shape.W;
  const int rows_out = BACKWARD ? shape.H : shape.P, columns_out = BACKWARD ? shape.W : shape.Q;
  const GroupedBlock<GROUP, BACKWARD> block(shape, height, width);
  const GroupedAxis &h = block.h, &v = block.v;
  if (block.top >= h.outputs || block.left >= v.outputs) return;  // of a phase with fewer pixels than the first

  const int taps = shape.R * shape.S, filter_chunks = taps * (GROUP / 8), line = (filter_chunks | 1) * 8;
  T* const weights = reinterpret_cast<T*>(shared);  // (64, line)
  T* const inputs = weights + CHANNELS * line;      // (under height, under width, 64)
  const int columns = v.under(width);
  const bool any = h.count > 0 && v.count > 0;  // a phase that no tap meets is 0
  if (any) {
    const T* const filters = w + static_cast<long long>(block.first_channel) * taps * GROUP;
    for (int i = threadIdx.x; i < CHANNELS * filter_chunks; i += blockDim.x) {
      const int filter = i / filter_chunks, chunk = i % filter_chunks;
      const bool exists = filter < block.present;
      ptx::cp_async<16>(weights + filter * line + chunk * 8, filters + (exists ? i * 8 : 0), exists);
    }
    const T* const image = in + static_cast<long long>(block.n) * rows_in * columns_in * shape.C + block.first_channel;
    for (int i = threadIdx.x; i < h.under(height) * columns * CHUNKS; i += blockDim.x) {
      const int chunk = i % CHUNKS, column = i / CHUNKS % columns, row = i / CHUNKS / columns;
      const int y = block.top * h.scale + h.least + row, x = block.left * v.scale + v.least + column;
      const bool exists = within(y, rows_in) && within(x, columns_in) && chunk * 8 < block.present;
      const long long pixel = exists ? static_cast<long long>(y) * columns_in + x : 0;
      ptx::cp_async<16>(
          inputs + (row * columns + column) * CHANNELS + grouped_chunk(chunk, grouped_key(h, v, row, column, width)),
          image + pixel * shape.C + (exists ? chunk * 8 : 0), exists);
    }
  }
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  __syncthreads();

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int from[2], key[2];  // of this lane's pixel of a fragment; past the rectangle's end the first one is read
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int m = warp * 32 + i * 16 + lane % 16, pixel = m < height * width ? m : 0;
    from[i] = (pixel / width * h.scale * columns + pixel % width * v.scale) * CHANNELS;
    key[i] = pixel;
  }
  // of this lane's row of a fragment of weights: a filter, or where it is transposed a channel of the sum, a filter too
  const T* const own_weights =
      weights + lane % (BACKWARD ? 8 * Fragment::CHUNKS : 8) * line + (WIDE && !BACKWARD ? lane / 8 % 2 * 8 : 0);
  float sum[2][CHUNKS][4];
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < CHUNKS; j++)
#pragma unroll
      for (int u = 0; u < 4; u++) sum[i][j][u] = 0.0f;

  for (int t = 0; any && t < h.count; t++)
#pragma unroll 1
    for (int u = 0; u < v.count; u++) {
      const int row = t * h.step, column = u * v.step, beside = grouped_key(h, v, row, column, width);
      const T* const tap_inputs = inputs + (row * columns + column) * CHANNELS;
      const T* const tap_weights = own_weights + (h.tap(t) * shape.S + v.tap(u)) * GROUP;
#pragma unroll
      for (int c = 0; c < GROUP / 8; c += Fragment::CHUNKS) {
        Fragment fragment;
#pragma unroll
        for (int j = 0; j < CHUNKS; j++) {  // outputs 8j to 8j + 7, of this group:
          const int group = j / (GROUP / 8), member = j % (GROUP / 8);
          if (member == 0) {
            const int chunk = group * (GROUP / 8) + c + (WIDE ? lane / 16 : 0);
#pragma unroll
            for (int i = 0; i < 2; i++)
              fragment.load_a(i, tap_inputs + from[i] + grouped_chunk(chunk, key[i] + beside));
          }
          fragment.template load_b<BACKWARD>(
              tap_weights + (BACKWARD ? (group * GROUP + c * 8) * line + member * 8 : j * 8 * line + c * 8));
#pragma unroll
          for (int i = 0; i < 2; i++) fragment.template add<T>(i, sum[i][j]);
        }
      }
    }
  __syncthreads();  // from here on shared memory is free

  using Rows = FragmentRows<CHANNELS>;
  Rows& rows = reinterpret_cast<Rows*>(shared)[warp];
#pragma unroll
  for (int i = 0; i < 2; i++)
    hand_out_fragments<8>(
        rows, [&](int j, int u) { return sum[i][j][u]; },
        [&](int r, int c, const float (&values)[8]) {
          const int m = warp * 32 + i * 16 + r, p = block.top + m / width, q = block.left + m % width;
          if (m >= height * width || p >= h.outputs || q >= v.outputs || c >= block.present) return;
          const long long y = static_cast<long long>(block.n) * rows_out + h.begin + p * h.stride;
          const int channel = block.first_channel + c;
          epilogue.store_run(out, values, channel, (y * columns_out + v.begin + q * v.stride) * shape.C + channel);
        });
}

template <class T, class Shape, int GROUP>
__global__ void __launch_bounds__(GROUPED_MMA_PIXELS, 3)
    conv2d_forward_grouped_mma(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, const T* bias,
                               const T* scale, const T* shift, const T* residual, int relu, int height, int width,
                               Shape shape) {
  DYN_SMEM(unsigned char, shared);
  const Epilogue<T> epilogue{bias, scale, shift, residual, relu};
  grouped_mma<T, Shape, false, GROUP>(x, w, y, epilogue, height, width, shape, shared);
}

template <class T, class Shape, int GROUP>
__global__ void __launch_bounds__(GROUPED_MMA_PIXELS, 3)
    conv2d_backward_input_grouped_mma(const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx, int height,
                                      int width, Shape shape) {
  DYN_SMEM(unsigned char, shared);
  const Epilogue<T> none{nullptr, nullptr, nullptr, nullptr, 0};
  grouped_mma<T, Shape, true, GROUP>(dy, w, dx, none, height, width, shape, shared);
}

constexpr int GROUPED_MMA_TAPS = 9;  // most of a block of backward_weight

// How the sums of a block's groups, GROUPED_MMA_TAPS taps each, are shared among its warps: a warp has PAIRS of
// units by FILTERS fragments of 8 filters, of GROUPS groups; BLOCKS shall fit a multiprocessor's registers
template <int GROUP>
struct GroupedWeightTile;
template <>
struct GroupedWeightTile<8> {
  static constexpr int WARPS = 4, GROUPS = 2, PAIRS = (GROUPED_MMA_TAPS + 1) / 2, FILTERS = 1, BLOCKS = 3;
};
template <>
struct GroupedWeightTile<16> {
  static constexpr int WARPS = 4, GROUPS = 1, PAIRS = GROUPED_MMA_TAPS, FILTERS = 2, BLOCKS = 2;
};
template <>
struct GroupedWeightTile<32> {
  static constexpr int WARPS = 8, GROUPS = 1, PAIRS = 2 * GROUPED_MMA_TAPS, FILTERS = 1, BLOCKS = 1;
};

// Rectangles are numbered columns, rows, images; a block adds `range` of them. partial: (splits, K, R, S, GROUP), or
// null where there is one split, which writes dw.
template <class T, class Shape, int GROUP>
__global__ void __launch_bounds__(32 * GroupedWeightTile<GROUP>::WARPS, GroupedWeightTile<GROUP>::BLOCKS)
    conv2d_backward_weight_grouped_mma(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dw,
                                       float* __restrict__ partial, long long range, int height, int width,
                                       Shape shape) {
  DYN_SMEM(T, shared);  // 64 zeros, dy (pixels, 64), x (under height, under width, 64)
  using Tile = GroupedWeightTile<GROUP>;
  constexpr int CHANNELS = GROUPED_MMA_CHANNELS, CHUNKS = CHANNELS / 8, TAPS = GROUPED_MMA_TAPS;
  const int taps = shape.R * shape.S;
  const int tiles_group = (shape.C + CHANNELS - 1) / CHANNELS, tiles_tap = (taps + TAPS - 1) / TAPS;
  const int first_channel = static_cast<int>(blockIdx.x) % tiles_group * CHANNELS;
  const int first_tap = static_cast<int>(blockIdx.x) / tiles_group % tiles_tap * TAPS;
  const int split = static_cast<int>(blockIdx.x) / tiles_group / tiles_tap;
  const int present = shape.C - first_channel < CHANNELS ? shape.C - first_channel : CHANNELS;
  const GroupedAxis h = GroupedAxis::forward(shape.R, shape.stride_h, shape.dilation_h, shape.pad_h, shape.P);
  const GroupedAxis v = GroupedAxis::forward(shape.S, shape.stride_w, shape.dilation_w, shape.pad_w, shape.Q);
  const int columns = v.under(width), steps = (height * width + 15) / 16;
  T* const zeros = shared;
  T* const gradients = zeros + CHANNELS;
  T* const inputs = gradients + steps * 16 * CHANNELS;

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_group = GROUP == 32 ? warp / 4 : warp * Tile::GROUPS;
  const int first_filter = GROUP == 32 ? warp % 4 : 0;  // fragment
  const int second = lane / 8 % 2;                      // whether this lane's rows are the second unit of a pair
  int offset[Tile::PAIRS], key[Tile::PAIRS];            // of the tap of this lane's unit
#pragma unroll
  for (int i = 0; i < Tile::PAIRS; i++) {
    const int own = GROUP == 8 ? 2 * i + second : GROUP == 16 ? i : i / 2;
    const int tap = first_tap + own < taps ? first_tap + own : 0;  // sums of one that does not exist are not stored
    const int row = tap / shape.S * h.step, column = tap % shape.S * v.step;
    offset[i] = (row * columns + column) * CHANNELS;
    key[i] = grouped_key(h, v, row, column, width);
  }
  float sum[Tile::GROUPS][Tile::PAIRS][Tile::FILTERS][4];
#pragma unroll
  for (int g = 0; g < Tile::GROUPS; g++)
#pragma unroll
    for (int i = 0; i < Tile::PAIRS; i++)
#pragma unroll
      for (int j = 0; j < Tile::FILTERS; j++)
#pragma unroll
        for (int u = 0; u < 4; u++) sum[g][i][j][u] = 0.0f;

  if (threadIdx.x < CHUNKS) ptx::cp_async<16>(zeros + threadIdx.x * 8, x, false);
  const int tiles_h = (shape.P + height - 1) / height, tiles_w = (shape.Q + width - 1) / width;
  const long long all = static_cast<long long>(shape.N) * tiles_h * tiles_w, begin = split * range;
  const long long end = begin + range < all ? begin + range : all;
#pragma unroll 1
  for (long long item = begin; item < end; item++) {
    const int left = static_cast<int>(item % tiles_w) * width;
    const int top = static_cast<int>(item / tiles_w % tiles_h) * height, n = static_cast<int>(item / tiles_w / tiles_h);
    const auto exists = [&](int m) {  // output m of the rectangle
      return m < height * width && top + m / width < shape.P && left + m % width < shape.Q;
    };
    if (item > begin) __syncthreads();  // nobody reads the rectangle before any more
    for (int i = threadIdx.x; i < steps * 16 * CHUNKS; i += blockDim.x) {
      const int chunk = i % CHUNKS, m = i / CHUNKS;
      const bool inside = exists(m) && chunk * 8 < present;
      const long long pixel = (static_cast<long long>(n) * shape.P + top + m / width) * shape.Q + left + m % width;
      ptx::cp_async<16>(gradients + m * CHANNELS + grouped_chunk(chunk, m),
                        inside ? dy + pixel * shape.K + first_channel + chunk * 8 : dy, inside);
    }
    for (int i = threadIdx.x; i < h.under(height) * columns * CHUNKS; i += blockDim.x) {
      const int chunk = i % CHUNKS, column = i / CHUNKS % columns, row = i / CHUNKS / columns;
      const int y = top * h.scale + h.least + row, z = left * v.scale + v.least + column;
      const bool inside = within(y, shape.H) && within(z, shape.W) && chunk * 8 < present;
      const long long pixel = (static_cast<long long>(n) * shape.H + y) * shape.W + z;
      ptx::cp_async<16>(
          inputs + (row * columns + column) * CHANNELS + grouped_chunk(chunk, grouped_key(h, v, row, column, width)),
          inside ? x + pixel * shape.C + first_channel + chunk * 8 : x, inside);
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();

#pragma unroll 1
    for (int step = 0; step < steps; step++) {
      const int m = step * 16 + lane / 16 * 8 + lane % 8;  // this lane's pixel of a
      const bool real = exists(m);
      const T* const from = real ? inputs + (m / width * h.scale * columns + m % width * v.scale) * CHANNELS : zeros;
      const int row = step * 16 + lane % 16;  // and of b
#pragma unroll
      for (int g = 0; g < Tile::GROUPS; g++) {
        const int group_chunk = (first_group + g) * (GROUP / 8);
        uint32_t b[Tile::FILTERS][2];
#pragma unroll
        for (int j = 0; j < Tile::FILTERS; j++)
          ptx::ldmatrix_x2_trans(b[j], gradients + row * CHANNELS + grouped_chunk(group_chunk + first_filter + j, row));
#pragma unroll
        for (int i = 0; i < Tile::PAIRS; i++) {
          const int chunk = group_chunk + (GROUP == 8 ? 0 : GROUP == 16 ? second : i % 2 * 2 + second);
          uint32_t a[4];
          ptx::ldmatrix_x4_trans(a, from + (real ? offset[i] : 0) + grouped_chunk(chunk, m + key[i]));
#pragma unroll
          for (int j = 0; j < Tile::FILTERS; j++) ptx::mma_m16n8k16<T>(sum[g][i][j], a, b[j]);
        }
      }
    }
  }
  ptx::cp_async_wait<0>();

#pragma unroll
  for (int g = 0; g < Tile::GROUPS; g++)
#pragma unroll
    for (int i = 0; i < Tile::PAIRS; i++)
#pragma unroll
      for (int j = 0; j < Tile::FILTERS; j++)
#pragma unroll
        for (int u = 0; u < 4; u++) {  // row lane / 4 of unit u / 2, column lane % 4 * 2 + u % 2
          const int tap = first_tap + (GROUP == 8 ? 2 * i + u / 2 : GROUP == 16 ? i : i / 2);
          const int c = (GROUP == 8 ? 0 : GROUP == 16 ? u / 2 : i % 2 * 2 + u / 2) * 8 + lane / 4;
          const int of_block = (first_group + g) * GROUP + (first_filter + j) * 8 + lane % 4 * 2 + u % 2;
          const bool of_another = GROUP == 8 && 2 * i + u / 2 >= TAPS;
          if (of_another || tap >= taps || of_block >= present) continue;
          const long long index = (static_cast<long long>(first_channel + of_block) * taps + tap) * GROUP + c;
          if (partial) {
            partial[split * (static_cast<long long>(shape.K) * taps * GROUP) + index] = sum[g][i][j][u];
          } else {
            dw[index] = from_float<T>(sum[g][i][j][u]);
          }
        }
}
