// Depthwise convolution along one line: which taps and pixels meet, the strip of outputs that a thread keeps in
// registers, and the window of inputs that slides over it.
//
// With common = gcd(stride, dilation), phases = stride / common, spacing = dilation / common: taps s, s + phases,
// s + 2 phases, ... meet inputs that lie spacing * stride apart, and the outputs of one tap and one input each lie
// spacing apart. So a strip is outputs (backward_input: pixels of dx) at that distance, and one tap further every
// output of it wants the input that its neighbour had: of LENGTH inputs one is new. At dilation 1 outputs of a strip
// are neighbours; at stride 1 there is one phase.
#pragma once
#include "../epilogue.cuh"
#include "../platform.cuh"
#include "../run.cuh"

// Whether i lies in [0, size)
__device__ __forceinline__ bool within(int i, int size) {
  return static_cast<unsigned>(i) < static_cast<unsigned>(size);
}

struct Axis {
  int stride, dilation, phases, spacing;

  __device__ Axis(int stride, int dilation) : stride(stride), dilation(dilation) {
    int common = stride, rest = dilation;
    while (rest != 0) {
      const int next = common % rest;
      common = rest, rest = next;
    }
    phases = stride / common, spacing = dilation / common;
  }

  // The first of `taps` that meets position `reach` of the padded input, reach = output * stride + tap * dilation for
  // some output; every phases-th from it on does. `taps` where none does.
  __device__ int first_tap(int reach, int taps) const {
    int tap = 0;
    while (tap < taps && (reach - tap * dilation) % stride != 0) tap++;
    return tap;
  }
};

// Where a thread works in an array (lines, width, channels): channels channel + [0, VECTOR) of the pixels
// first + i * step, i in [0, LENGTH), of a line. A block has blockDim.x times VECTOR channels, blockDim.y strips and
// blockDim.z lines; blocks are numbered along x alone, channels fastest: they meet in L2.
template <int VECTOR, int LENGTH_ = 0>
struct Strip {
  // LENGTH * VECTOR sums and as many inputs in registers; LENGTH_ where it is given
  static constexpr int LENGTH = LENGTH_ != 0 ? LENGTH_ : VECTOR >= 4 ? (VECTOR == 8 ? 3 : 4) : 8;
  int channel, line, first, step;
  bool inside;

  __device__ Strip(int lines, int width, int channels, int step) : step(step) {
    const int block_channels = static_cast<int>(blockDim.x) * VECTOR, strips = static_cast<int>(blockDim.y);
    const int tiles_channel = (channels + block_channels - 1) / block_channels;
    const int offsets = step < width ? step : width;  // strips that begin at 0, 1, ... interleave
    const int most = (width + step - 1) / step;       // pixels from an offset on
    const int along = (most + LENGTH - 1) / LENGTH;   // strips from an offset on
    const int tiles_strip = (along + strips - 1) / strips;
    int block = static_cast<int>(blockIdx.x);
    channel = block % tiles_channel * block_channels + static_cast<int>(threadIdx.x) * VECTOR;
    block /= tiles_channel;
    const int offset = block % offsets;
    block /= offsets;
    const int strip = block % tiles_strip * strips + static_cast<int>(threadIdx.y);
    const long long far = static_cast<long long>(block / tiles_strip) * blockDim.z + threadIdx.z;
    line = static_cast<int>(far);
    first = offset + strip * LENGTH * step;
    inside = channel < channels && strip < along && far < lines;  // channels is a multiple of VECTOR
  }
};

// sum[i] += weight of tap j * input at position i + j, for j in [0, taps). load(position, values) brings an input,
// weights + j * step is tap j's run. The window is a ring, position p in window[p % LENGTH]: a new input takes the
// place of the one that no tap wants any more. Whole turns of the ring have no branch, so that their loads start
// together.
template <class T, int LENGTH, int VECTOR, class Load>
__device__ __forceinline__ void slide(float (&sum)[LENGTH][VECTOR], int taps, int rest, const Load& load,
                                      const T* weights, int step) {
  float window[LENGTH][VECTOR];
#pragma unroll
  for (int i = 0; i < LENGTH - 1; i++) load(i, window[i]);
  const auto turn = [&](int first, int count) {  // taps first + [0, count), first is a multiple of LENGTH
#pragma unroll
    for (int j = 0; j < LENGTH; j++) {
      if (j >= count) return;
      load(first + j + LENGTH - 1, window[(j + LENGTH - 1) % LENGTH]);
      float weight[VECTOR];
      load_run(weights + (first + j) * step, weight);
#pragma unroll
      for (int i = 0; i < LENGTH; i++)
#pragma unroll
        for (int v = 0; v < VECTOR; v++) sum[i][v] += window[(i + j) % LENGTH][v] * weight[v];
    }
  };
  int first = 0;
#pragma unroll 1
  for (; first + LENGTH <= taps; first += LENGTH) turn(first, LENGTH);
  turn(first, rest);
}

// The filters of a block's channels, staged in shared memory some rows at a time as [tap][channel of the block]
template <class T, int VECTOR>
struct StagedFilters {
  static constexpr int BYTES = 16384;  // of the rows at once; a row of one run of channels has no more
  T* staged;
  const T* w;    // (K, taps)
  int taps, S;   // of a filter, of a row
  int channels;  // of the block
  int rows;      // at once

  __device__ StagedFilters(T* staged, const T* w, int R, int S) : staged(staged), w(w), taps(R * S), S(S) {
    channels = static_cast<int>(blockDim.x) * VECTOR;
    const int fit = BYTES / (S * channels * static_cast<int>(sizeof(T)));
    rows = fit < R ? fit : R;
  }

  // Rows from `top` on, of filters first + v * distance for the thread's channels v that exist. All threads call it.
  __device__ void stage(int top, long long first, int distance, bool exist) const {
    __syncthreads();  // nobody reads the rows before these any more
    const int begin = top * S, left = taps - begin, count = left < rows * S ? left : rows * S;
    const int at = static_cast<int>(threadIdx.z * blockDim.y + threadIdx.y), side = blockDim.y * blockDim.z;
    for (int tap = at; exist && tap < count; tap += side) {
      Run<T, VECTOR> run;
#pragma unroll
      for (int v = 0; v < VECTOR; v++) run.value[v] = w[(first + v * distance) * taps + begin + tap];
      *reinterpret_cast<Run<T, VECTOR>*>(staged + tap * channels + threadIdx.x * VECTOR) = run;
    }
    __syncthreads();
  }
  // tap s of row r for the thread's channels, r - top of the rows staged; the next tap lies `channels` further
  __device__ const T* at(int row, int s) const { return staged + (row * S + s) * channels + threadIdx.x * VECTOR; }
};

// Taps that a thread adds: row r, s = first + j * phases, j in [0, TAPS); of a filter there are `count` such parts
template <int TAPS>
struct FilterPart {
  int r, first, count;

  template <class Shape>
  __device__ FilterPart(const Shape& shape, const Axis& axis, int part) {
    const int phases = axis.phases < shape.S ? axis.phases : shape.S;
    const int most = (shape.S + axis.phases - 1) / axis.phases, chunks = (most + TAPS - 1) / TAPS;  // of a phase
    count = shape.R * phases * chunks;
    r = part / chunks / phases;
    first = part / chunks % phases + part % chunks * TAPS * axis.phases;
  }
};

constexpr int RUN_LENGTH = 16;  // at most: outputs of a line that a window of x slides over, in backward_weight
