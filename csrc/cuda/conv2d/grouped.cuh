// conv2d, rung `grouped`: narrow groups of more than one channel on CUDA cores, float32 sums of float32, float16 and
// bfloat16. Where a tile of implicit_gemm would be mostly empty, with 4 filters of 64, a block takes several groups of
// the same pixels: groups that are neighbours lie side by side in memory, so that sectors are read in full.
//
// Forward and backward_input: a thread makes VECTOR channels of one group for a strip of LENGTH outputs, as in
// depthwise.cuh, with which it shares its walk (sliding_window.cuh). VECTOR channels of an input are loaded at once and
// meet VECTOR x VECTOR weights for each of LENGTH outputs: with 4, 112 multiply-adds for a float4 of inputs and four of
// weights. VECTOR is 4 where the channels and filters of a group and the addresses are multiples of that, else 1.
// Weights wait in shared memory in float32, some units at a time: a unit is a filter's row r and VECTOR channels of
// what is added. TAPS and STRIDE as in depthwise.cuh. No number meets a weight of another group, nor a zero in its
// place: a NaN stays in its group.
//
// backward_weight: a thread adds TAPS taps of VECTOR filters by VECTOR channels over many pixels, the block its threads
// in shared memory, and a second kernel the blocks, as in tiled.cuh: the same bits every time.
#pragma once
#include "../../shapes.h"
#include "sliding_window.cuh"

constexpr int GROUPED_THREADS = 128;  // three blocks a multiprocessor: up to 168 registers a thread
// outputs of a strip; addresses take registers too where neither taps nor strides are known
template <bool KNOWN>
constexpr int GROUPED_STRIP = KNOWN ? 7 : 4;

// The weights of a block's channels as [unit][tap of the row][one of VECTOR inputs][channel of the block]
template <class T, int VECTOR, bool BACKWARD>
struct GroupedFilters {
  static constexpr int BYTES = 24576;  // of the units at once
  float* staged;
  const T* w;          // (K, R, S, Cg)
  int R, S, Cg, Kg;    // of a group
  int channels;        // of the block
  int units, at_once;  // all, and those in shared memory

  __device__ GroupedFilters(float* staged, const T* w, int R, int S, int Cg, int Kg)
      : staged(staged), w(w), R(R), S(S), Cg(Cg), Kg(Kg) {
    channels = static_cast<int>(blockDim.x) * VECTOR;
    units = R * ((BACKWARD ? Kg : Cg) / VECTOR);
    const int fit = BYTES / (S * VECTOR * channels * static_cast<int>(sizeof(float)));
    at_once = fit < units ? fit : units;
  }

  // Units from `first` on, for the block's channels from `channel` on, of `end` in all. All threads call it.
  __device__ void stage(int first, int channel, int end) const {
    __syncthreads();  // nobody reads the units before these any more
    const int left = units - first, count = left < at_once ? left : at_once;
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    const int threads = blockDim.x * blockDim.y * blockDim.z;
    for (int i = thread; i < count * S * channels; i += threads) {
      const int row = i / channels, unit = first + row / S, s = row % S;  // row of channels, with VECTOR of each
      const int r = unit % R, input = unit / R * VECTOR;
      float* const to = staged + row * VECTOR * channels;
      if constexpr (BACKWARD) {  // neighbouring threads take neighbouring runs of c
        const int lane = i % static_cast<int>(blockDim.x) * VECTOR, v = i % channels / static_cast<int>(blockDim.x);
        const int c = channel + lane;
        if (c >= end) continue;
        const long long k = static_cast<long long>(c / Cg) * Kg + input + v;
        float values[VECTOR];
        load_run(w + ((k * R + r) * S + s) * Cg + c % Cg, values);
        store_run(to + v * channels + lane, values);
      } else {
        const int lane = i % channels;
        const long long k = channel + lane;
        if (k >= end) continue;
        float values[VECTOR];
        load_run(w + ((k * R + r) * S + s) * Cg + input, values);
#pragma unroll
        for (int v = 0; v < VECTOR; v++) to[v * channels + lane] = values[v];
      }
    }
    __syncthreads();
  }
  // tap s of a unit that is staged, for the thread's channels
  __device__ const float* at(int unit, int s) const {
    return staged + (unit * S + s) * VECTOR * channels + static_cast<int>(threadIdx.x) * VECTOR;
  }
};

// sum[i] += inputs at position i + j times the weights of tap j, for j in [0, taps); the window is slide's. Tap j's
// weights lie `step` after those before, those of the next input `line`.
template <int LENGTH, int VECTOR, class Load>
__device__ __forceinline__ void slide_group(float (&sum)[LENGTH][VECTOR], int taps, int rest, const Load& load,
                                            const float* weights, int step, int line) {
  float window[LENGTH][VECTOR];
#pragma unroll
  for (int i = 0; i < LENGTH - 1; i++) load(i, window[i]);
  const auto turn = [&](int first, int count) {
#pragma unroll
    for (int j = 0; j < LENGTH; j++) {
      if (j >= count) return;
      load(first + j + LENGTH - 1, window[(j + LENGTH - 1) % LENGTH]);
#pragma unroll
      for (int u = 0; u < VECTOR; u++) {
        float weight[VECTOR];
        load_run(weights + (first + j) * step + u * line, weight);
#pragma unroll
        for (int i = 0; i < LENGTH; i++)
#pragma unroll
          for (int v = 0; v < VECTOR; v++) sum[i][v] += window[(i + j) % LENGTH][u] * weight[v];
      }
    }
  };
  int first = 0;
#pragma unroll 1
  for (; first + LENGTH <= taps; first += LENGTH) turn(first, LENGTH);
  turn(first, rest);
}

template <class T, class Shape, int VECTOR, int TAPS, int STRIDE>
__global__ void __launch_bounds__(GROUPED_THREADS, 3)
    conv2d_forward_grouped(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, const T* bias,
                           const T* scale, const T* shift, const T* residual, int relu, Shape shape) {
  DYN_SMEM(float, shared);
  constexpr bool KNOWN = TAPS != 0;
  constexpr int UNROLLED = KNOWN ? 2 : 1;  // phases
  const int S = KNOWN ? TAPS : shape.S, Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const Axis axis(KNOWN ? STRIDE : shape.stride_w, KNOWN ? 1 : shape.dilation_w);
  const Strip<VECTOR, GROUPED_STRIP<KNOWN>> strip(shape.N * shape.P, shape.Q, shape.K, axis.spacing);
  const GroupedFilters<T, VECTOR, false> filters(shared, w, shape.R, S, Cg, Kg);
  const int n = strip.line / shape.P, p = strip.line % shape.P;
  const int block_channel = strip.channel - static_cast<int>(threadIdx.x) * VECTOR;
  const T* image = x + static_cast<long long>(n) * shape.H * shape.W * shape.C + strip.channel / Kg * Cg;

  float sum[strip.LENGTH][VECTOR] = {};
  for (int top = 0; top < filters.units; top += filters.at_once) {
    filters.stage(top, block_channel, shape.K);
#pragma unroll 1
    for (int unit = 0; strip.inside && unit < filters.at_once && top + unit < filters.units; unit++) {
      const int r = (top + unit) % shape.R, c = (top + unit) / shape.R * VECTOR;
      const int h = p * shape.stride_h - shape.pad_h + r * shape.dilation_h;
      if (!within(h, shape.H)) continue;
      const T* line = image + static_cast<long long>(h) * shape.W * shape.C + c;
#pragma unroll UNROLLED
      for (int phase = 0; phase < axis.phases && phase < S; phase++) {
        const int begin = strip.first * axis.stride - shape.pad_w + phase * axis.dilation;
        const auto load = [&](int position, float (&values)[VECTOR]) {
          const int column = begin + position * axis.spacing * axis.stride;
          load_run(line + static_cast<long long>(column) * shape.C, within(column, shape.W), values);
        };
        const int taps = (S - phase + axis.phases - 1) / axis.phases;
        slide_group(sum, taps, taps % strip.LENGTH, load, filters.at(unit, phase),
                    axis.phases * VECTOR * filters.channels, filters.channels);
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

// Strips run backwards, as in depthwise.cuh: sum[i] is pixel LENGTH - 1 - i.
template <class T, class Shape, int VECTOR, int TAPS, int STRIDE>
__global__ void __launch_bounds__(GROUPED_THREADS, 3)
    conv2d_backward_input_grouped(const T* __restrict__ dy, const T* __restrict__ w, T* __restrict__ dx, Shape shape) {
  DYN_SMEM(float, shared);
  constexpr bool KNOWN = TAPS != 0;
  const int S = KNOWN ? TAPS : shape.S, Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const Axis axis(KNOWN ? STRIDE : shape.stride_w, KNOWN ? 1 : shape.dilation_w);
  const Strip<VECTOR, GROUPED_STRIP<KNOWN>> strip(shape.N * shape.H, shape.W, shape.C, axis.spacing * axis.stride);
  const GroupedFilters<T, VECTOR, true> filters(shared, w, shape.R, S, Cg, Kg);
  const int n = strip.line / shape.H, h = strip.line % shape.H;
  const int block_channel = strip.channel - static_cast<int>(threadIdx.x) * VECTOR;
  const T* image = dy + static_cast<long long>(n) * shape.P * shape.Q * shape.K + strip.channel / Cg * Kg;

  const int first_s = axis.first_tap(strip.first + shape.pad_w, S);
  const int last_pixel = strip.first + (strip.LENGTH - 1) * strip.step;
  const int end = (last_pixel + shape.pad_w - first_s * axis.dilation) / axis.stride;  // the q whose tap first_s it is
  const int taps = (S - first_s + axis.phases - 1) / axis.phases;

  float sum[strip.LENGTH][VECTOR] = {};
  for (int top = 0; top < filters.units; top += filters.at_once) {
    filters.stage(top, block_channel, shape.C);
#pragma unroll 1
    for (int unit = 0; strip.inside && taps > 0 && unit < filters.at_once && top + unit < filters.units; unit++) {
      const int r = (top + unit) % shape.R, k = (top + unit) / shape.R * VECTOR;
      const int reach = h + shape.pad_h - r * shape.dilation_h, p = reach / shape.stride_h;
      if (reach < 0 || p >= shape.P || p * shape.stride_h != reach) continue;
      const T* line = image + static_cast<long long>(p) * shape.Q * shape.K + k;
      const auto load = [&](int position, float (&values)[VECTOR]) {
        const int q = end - position * axis.spacing;
        load_run(line + static_cast<long long>(q) * shape.K, within(q, shape.Q), values);
      };
      const auto add = [&](int most) {  // taps, where the compiler knows how many
        slide_group(sum, most, most % strip.LENGTH, load, filters.at(unit, first_s),
                    axis.phases * VECTOR * filters.channels, filters.channels);
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
  if (!strip.inside) return;
  T* line = dx + (static_cast<long long>(n) * shape.H + h) * shape.W * shape.C + strip.channel;
#pragma unroll
  for (int i = 0; i < strip.LENGTH; i++) {
    const int pixel = last_pixel - i * strip.step;
    if (pixel < shape.W) store_run(line + static_cast<long long>(pixel) * shape.C, sum[i]);
  }
}

// A thread's VECTOR filters k and VECTOR channels c of one group; threads are numbered through the groups, filters and
// channels, channels fastest
template <int VECTOR>
struct GroupedPair {
  int k, c;     // of dy and x
  int channel;  // c within the group
  bool inside;

  __device__ GroupedPair(int pair, int groups, int Cg, int Kg) {
    const int across = Cg / VECTOR, of_group = across * (Kg / VECTOR), group = pair / of_group;
    channel = pair % across * VECTOR;
    c = group * Cg + channel;
    k = group * Kg + pair % of_group / across * VECTOR;
    inside = group < groups;
  }
};

// Items and partial as in depthwise.cuh
template <class T, class Shape, int VECTOR, int TAPS>
__global__ void __launch_bounds__(GROUPED_THREADS, 3)
    conv2d_backward_weight_grouped(const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dw,
                                   float* __restrict__ partial, long long range, Shape shape) {
  DYN_SMEM(float, shared);  // [one of VECTOR filters][one of VECTOR channels][thread], of one tap
  const int Cg = shape.C / shape.groups, Kg = shape.K / shape.groups;
  const Axis axis(shape.stride_w, shape.dilation_w);
  const int X = static_cast<int>(blockDim.x), Y = static_cast<int>(blockDim.y), Z = static_cast<int>(blockDim.z);
  const int pairs = shape.groups * (Cg / VECTOR) * (Kg / VECTOR), parts = FilterPart<TAPS>(shape, axis, 0).count;
  const int tiles_pair = (pairs + X - 1) / X, tiles_part = (parts + Z - 1) / Z;
  const int first_pair = static_cast<int>(blockIdx.x) % tiles_pair * X;
  const int first_part = static_cast<int>(blockIdx.x) / tiles_pair % tiles_part * Z;
  const int split = static_cast<int>(blockIdx.x) / tiles_pair / tiles_part;
  const GroupedPair<VECTOR> pair(first_pair + static_cast<int>(threadIdx.x), shape.groups, Cg, Kg);
  const FilterPart<TAPS> part(shape, axis, first_part + static_cast<int>(threadIdx.z));

  const int offsets = axis.spacing < shape.Q ? axis.spacing : shape.Q;
  const int most = (shape.Q + axis.spacing - 1) / axis.spacing;  // outputs from an offset on
  const int runs = (most + RUN_LENGTH - 1) / RUN_LENGTH, length = (most + runs - 1) / runs;
  const int items = shape.N * shape.P * offsets * runs;
  const int begin_item = static_cast<int>(split * range);
  const int end_item = begin_item + range < items ? static_cast<int>(begin_item + range) : items;
  const bool busy = pair.inside && part.r < shape.R;

  float sum[TAPS][VECTOR][VECTOR] = {};  // by filter, channel
#pragma unroll 1
  for (int item = begin_item + static_cast<int>(threadIdx.y); busy && item < end_item; item += Y) {
    const int run = item % (offsets * runs), line = item / (offsets * runs);
    const int n = line / shape.P, p = line % shape.P;
    const int h = p * shape.stride_h - shape.pad_h + part.r * shape.dilation_h;
    if (!within(h, shape.H)) continue;
    const int first = run % offsets + run / offsets * length * axis.spacing;
    const int left = (shape.Q - first + axis.spacing - 1) / axis.spacing, count = left < length ? left : length;
    const int begin = first * axis.stride - shape.pad_w + part.first * axis.dilation;
    const T* inputs = x + (static_cast<long long>(n) * shape.H + h) * shape.W * shape.C + pair.c;
    const T* gradients = dy + (static_cast<long long>(line) * shape.Q + first) * shape.K + pair.k;

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
          for (int u = 0; u < VECTOR; u++)
#pragma unroll
            for (int v = 0; v < VECTOR; v++) sum[j][u][v] += gradient[u] * window[(i + j) % TAPS][v];
      }
    };
#pragma unroll
    for (int j = 0; j < TAPS - 1; j++) load(j, window[j]);
    int from = 0;
#pragma unroll 1
    for (; from + TAPS <= count; from += TAPS) add(from, TAPS);
    add(from, count - from);
  }

  // a line of sums of all threads, 8 past a multiple of 32: four of them and 8 threads lie in different banks
  const int threads = X * Y * Z, line = (threads + 31) / 32 * 32 + 8;
  const int thread = static_cast<int>((threadIdx.z * Y + threadIdx.y) * X + threadIdx.x);
#pragma unroll
  for (int j = 0; j < TAPS; j++) {
    if (j > 0) __syncthreads();
#pragma unroll
    for (int u = 0; u < VECTOR; u++)
#pragma unroll
      for (int v = 0; v < VECTOR; v++) shared[(u * VECTOR + v) * line + thread] = sum[j][u][v];
    __syncthreads();
    for (int i = thread; i < VECTOR * VECTOR * Z * X; i += threads) {
      const int v = i % VECTOR, lane = i / VECTOR % X, u = i / VECTOR / X % VECTOR, z = i / VECTOR / X / VECTOR;
      const GroupedPair<VECTOR> of(first_pair + lane, shape.groups, Cg, Kg);
      const FilterPart<TAPS> at(shape, axis, first_part + z);
      const int s = at.first + j * axis.phases;
      if (!of.inside || at.r >= shape.R || s >= shape.S) continue;
      float total = 0.0f;
      for (int row = 0; row < Y; row++) total += shared[(u * VECTOR + v) * line + (z * Y + row) * X + lane];
      const long long index = ((static_cast<long long>(of.k + u) * shape.R + at.r) * shape.S + s) * Cg + of.channel + v;
      if (partial) {
        partial[split * (static_cast<long long>(shape.K) * shape.R * shape.S * Cg) + index] = total;
      } else {
        dw[index] = from_float<T>(total);
      }
    }
  }
}
