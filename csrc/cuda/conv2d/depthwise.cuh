// conv2d, rung `depthwise`: one input channel a group (groups == C), float32 sums of float32, float16 and bfloat16.
// Filter k works on channel k / multiplier, multiplier = K / C.
//
// Neighbouring threads have neighbouring channels, VECTOR each: 16 bytes where channels and addresses are multiples of
// that (then multiplier is 1), else 4 bytes or one element. Forward and backward_input: a thread adds a strip of LENGTH
// outputs in registers; an input is loaded once for all taps of a row (sliding_window.cuh), the rows of a block meet in
// L1. TAPS and STRIDE are S and stride_w where they are known to the compiler and dilation_w is 1; both are 0 for any.
// backward_weight: a thread adds TAPS taps of a filter's row over many pixels, the block its threads in shared memory,
// and a second kernel the blocks, as in tiled.cuh: the same bits every time.
//
// Roofline: 2 R S flops for each output over the bytes of an input and an output at stride 1: 2.25 flops a byte for 3x3
// in float32, 4.5 in float16: bound by memory, from about 7x7 on by arithmetic.
#pragma once
#include "../../shapes.h"
#include "sliding_window.cuh"

constexpr int DEPTHWISE_THREADS = 256;  // two blocks a multiprocessor: up to 128 registers a thread

template <class T, class Shape, int VECTOR, int TAPS, int STRIDE>
__global__ void __launch_bounds__(DEPTHWISE_THREADS, 2)
    conv2d_forward_depthwise(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, const T* bias,
                             const T* scale, const T* shift, const T* residual, int relu, Shape shape) {
  DYN_SMEM(T, shared);
  constexpr bool KNOWN = TAPS != 0;
  constexpr int UNROLLED = KNOWN ? 2 : 1;  // phases
  const int S = KNOWN ? TAPS : shape.S;
  const Axis axis(KNOWN ? STRIDE : shape.stride_w, KNOWN ? 1 : shape.dilation_w);
  const Strip<VECTOR> strip(shape.N * shape.P, shape.Q, shape.K, axis.spacing);
  const StagedFilters<T, VECTOR> filters(shared, w, shape.R, S);
  const int n = strip.line / shape.P, p = strip.line % shape.P;
  const int c = VECTOR == 1 ? strip.channel / (shape.K / shape.C) : strip.channel;
  const T* image = x + static_cast<long long>(n) * shape.H * shape.W * shape.C + c;

  float sum[strip.LENGTH][VECTOR] = {};
  for (int top = 0; top < shape.R; top += filters.rows) {
    filters.stage(top, strip.channel, 1, strip.channel < shape.K);
#pragma unroll 1
    for (int row = 0; strip.inside && row < filters.rows && top + row < shape.R; row++) {
      const int h = p * shape.stride_h - shape.pad_h + (top + row) * shape.dilation_h;
      if (!within(h, shape.H)) continue;
      const T* line = image + static_cast<long long>(h) * shape.W * shape.C;
#pragma unroll UNROLLED
      for (int phase = 0; phase < axis.phases && phase < S; phase++) {
        const int begin = strip.first * axis.stride - shape.pad_w + phase * axis.dilation;
        const auto load = [&](int position, float (&values)[VECTOR]) {
          const int column = begin + position * axis.spacing * axis.stride;
          load_run(line + static_cast<long long>(column) * shape.C, within(column, shape.W), values);
        };
        const int taps = (shape.S - phase + axis.phases - 1) / axis.phases;
        const int rest = (S - phase + axis.phases - 1) / axis.phases % strip.LENGTH;
        slide(sum, taps, rest, load, filters.at(row, phase), axis.phases * filters.channels);
      }
    }
  }
  if (!strip.inside) return;
  const Epilogue<T> of_channel{bias, scale, shift, nullptr, 0}, of_element{nullptr, nullptr, nullptr, residual, relu};
  of_channel.apply_channels(sum, strip.channel, shape.K);
  const long long start = static_cast<long long>(strip.line) * shape.Q * shape.K + strip.channel;
#pragma unroll
  for (int i = 0; i < strip.LENGTH; i++) {
    const int q = strip.first + i * strip.step;
    if (q < shape.Q) of_element.store_run(y, sum[i], strip.channel, start + static_cast<long long>(q) * shape.K);
  }
}

// The pixels of a strip meet the same taps, every phases-th: no product is spent on zeros that a stride would put
// between the elements of dy. One tap further they meet the element of dy before, so the strip runs backwards: sum[i]
// is pixel LENGTH - 1 - i.
template <class T, class Shape, int VECTOR, int TAPS, int STRIDE>
__global__ void __launch_bounds__(DEPTHWISE_THREADS, 2)
    conv2d_backward_input_depthwise(const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx,
                                    Shape shape) {
  DYN_SMEM(T, shared);
  constexpr bool KNOWN = TAPS != 0;
  const int S = KNOWN ? TAPS : shape.S;
  const Axis axis(KNOWN ? STRIDE : shape.stride_w, KNOWN ? 1 : shape.dilation_w);
  const Axis axis_h(shape.stride_h, shape.dilation_h);
  const Strip<VECTOR> strip(shape.N * shape.H, shape.W, shape.C, axis.spacing * axis.stride);
  const StagedFilters<T, VECTOR> filters(shared, w, shape.R, S);
  const int n = strip.line / shape.H, h = strip.line % shape.H;
  const int multiplier = VECTOR == 1 ? shape.K / shape.C : 1;

  const int first_s = axis.first_tap(strip.first + shape.pad_w, S);
  const int last_pixel = strip.first + (strip.LENGTH - 1) * strip.step;
  const int end = (last_pixel + shape.pad_w - first_s * axis.dilation) / axis.stride;  // the q whose tap first_s it is
  const int taps = (shape.S - first_s + axis.phases - 1) / axis.phases;
  const int first_r = axis_h.first_tap(h + shape.pad_h, shape.R);

  float sum[strip.LENGTH][VECTOR] = {};
  for (int i = 0; i < multiplier; i++) {
    const long long k = static_cast<long long>(strip.channel) * multiplier + i;
    int r = first_r;
    for (int top = 0; top < shape.R; top += filters.rows) {
      filters.stage(top, k, multiplier, strip.channel < shape.C);
#pragma unroll 1
      for (; strip.inside && taps > 0 && r < shape.R && r < top + filters.rows; r += axis_h.phases) {
        const int reach = h + shape.pad_h - r * shape.dilation_h, p = reach / shape.stride_h;
        if (reach < 0 || p >= shape.P) continue;
        const T* line = dy + (static_cast<long long>(n) * shape.P + p) * shape.Q * shape.K + k;
        const auto load = [&](int position, float (&values)[VECTOR]) {
          const int q = end - position * axis.spacing;
          load_run(line + static_cast<long long>(q) * shape.K, within(q, shape.Q), values);
        };
        const auto add = [&](int most) {  // taps, where the compiler knows how many
          slide(sum, taps, most % strip.LENGTH, load, filters.at(r - top, first_s), axis.phases * filters.channels);
        };
        if constexpr (STRIDE == 0) {
          add(taps);
        } else if (STRIDE == 1 || first_s == 0) {
          add((TAPS + STRIDE - 1) / STRIDE);
        } else {
          add(TAPS / STRIDE);
        }
      }
    }
  }
  if (!strip.inside) return;
  T* line = dx + (static_cast<long long>(n) * shape.H + h) * shape.W * shape.C + strip.channel;
#pragma unroll
  for (int i = 0; i < strip.LENGTH; i++) {
    const int pixel = last_pixel - i * strip.step;
    if (pixel < shape.W) store_run(line + static_cast<long long>(pixel) * shape.C, sum[i]);
  }
}

// An item is a run of outputs of a line; a block adds `range` of them, each row of its threads every blockDim.y-th.
// partial: (splits, K, R, S), or null where there is one split, which writes dw.
template <class T, class Shape, int VECTOR, int TAPS>
__global__ void __launch_bounds__(DEPTHWISE_THREADS, 2)
    conv2d_backward_weight_depthwise(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dw,
                                     float* __restrict__ partial, long long range, Shape shape) {
  DYN_SMEM(float, shared);  // [threadIdx.y][threadIdx.z][tap][channel of the block]
  const Axis axis(shape.stride_w, shape.dilation_w);
  const int channels = static_cast<int>(blockDim.x) * VECTOR, parts = FilterPart<TAPS>(shape, axis, 0).count;
  const int tiles_channel = (shape.K + channels - 1) / channels;
  const int tiles_part = (parts + static_cast<int>(blockDim.z) - 1) / static_cast<int>(blockDim.z);
  const int block_channel = static_cast<int>(blockIdx.x) % tiles_channel * channels;
  const int block_part = static_cast<int>(blockIdx.x) / tiles_channel % tiles_part * static_cast<int>(blockDim.z);
  const int split = static_cast<int>(blockIdx.x) / tiles_channel / tiles_part;
  const int k = block_channel + static_cast<int>(threadIdx.x) * VECTOR;
  const int c = VECTOR == 1 ? k / (shape.K / shape.C) : k;
  const FilterPart<TAPS> part(shape, axis, block_part + static_cast<int>(threadIdx.z));

  const int offsets = axis.spacing < shape.Q ? axis.spacing : shape.Q;
  const int most = (shape.Q + axis.spacing - 1) / axis.spacing;  // outputs from an offset on
  const int runs = (most + RUN_LENGTH - 1) / RUN_LENGTH, length = (most + runs - 1) / runs;
  const int items = shape.N * shape.P * offsets * runs;
  const int begin_item = static_cast<int>(split * range);
  const int end_item = begin_item + range < items ? static_cast<int>(begin_item + range) : items;
  const bool busy = k < shape.K && part.r < shape.R;

  float sum[TAPS][VECTOR] = {};
#pragma unroll 1
  for (int item = begin_item + static_cast<int>(threadIdx.y); busy && item < end_item; item += blockDim.y) {
    const int run = item % (offsets * runs), line = item / (offsets * runs);
    const int n = line / shape.P, p = line % shape.P;
    const int h = p * shape.stride_h - shape.pad_h + part.r * shape.dilation_h;
    if (!within(h, shape.H)) continue;
    const int first = run % offsets + run / offsets * length * axis.spacing;
    const int left = (shape.Q - first + axis.spacing - 1) / axis.spacing, count = left < length ? left : length;
    const int begin = first * axis.stride - shape.pad_w + part.first * axis.dilation;
    const T* inputs = x + (static_cast<long long>(n) * shape.H + h) * shape.W * shape.C + c;
    const T* gradients = dy + (static_cast<long long>(line) * shape.Q + first) * shape.K + k;

    // Output i and tap j meet the input at position i + j, which lies in window[(i + j) % TAPS]
    float window[TAPS][VECTOR];
    const auto load = [&](int position, float (&values)[VECTOR]) {
      const int column = begin + position * axis.spacing * axis.stride;
      load_run(inputs + static_cast<long long>(column) * shape.C, within(column, shape.W), values);
    };
    const auto add = [&](int from, int outputs) {  // at most TAPS, `from` is a multiple of TAPS
#pragma unroll
      for (int i = 0; i < TAPS; i++) {
        if (i >= outputs) return;
        load(from + i + TAPS - 1, window[(i + TAPS - 1) % TAPS]);
        float gradient[VECTOR];
        load_run(gradients + static_cast<long long>((from + i) * axis.spacing) * shape.K, gradient);
#pragma unroll
        for (int j = 0; j < TAPS; j++)
#pragma unroll
          for (int v = 0; v < VECTOR; v++) sum[j][v] += window[(i + j) % TAPS][v] * gradient[v];
      }
    };
#pragma unroll
    for (int j = 0; j < TAPS - 1; j++) load(j, window[j]);
    int from = 0;
#pragma unroll 1
    for (; from + TAPS <= count; from += TAPS) add(from, TAPS);
    add(from, count - from);
  }

  const int row = static_cast<int>(blockDim.z) * TAPS * channels;  // sums of the threads of a threadIdx.y
#pragma unroll
  for (int j = 0; j < TAPS; j++)
#pragma unroll
    for (int v = 0; v < VECTOR; v++)
      shared[threadIdx.y * row + (threadIdx.z * TAPS + j) * channels + threadIdx.x * VECTOR + v] = sum[j][v];
  __syncthreads();
  const int at = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  for (int i = at; i < row; i += blockDim.x * blockDim.y * blockDim.z) {
    const int filter = block_channel + i % channels;
    const FilterPart<TAPS> of(shape, axis, block_part + i / channels / TAPS);
    const int s = of.first + i / channels % TAPS * axis.phases;
    if (filter >= shape.K || of.r >= shape.R || s >= shape.S) continue;
    float total = 0.0f;
    for (int y = 0; y < static_cast<int>(blockDim.y); y++) total += shared[y * row + i];
    const long long index = (static_cast<long long>(filter) * shape.R + of.r) * shape.S + s;
    if (partial) {
      partial[static_cast<long long>(split) * shape.K * shape.R * shape.S + index] = total;
    } else {
      dw[index] = from_float<T>(total);
    }
  }
}
