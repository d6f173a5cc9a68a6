// conv2d, rung `winograd`: 3x3 filters without stride, dilation and groups by F(2x2, 3x3) in float32. A tile of 2 x 2
// outputs takes 16 products a channel instead of 36:
//
//   y = A^T [ sum over channels of (G w G^T) * (B^T d B) ] A      d: the 4 x 4 inputs under the tile
//
// so for each of 16 frequencies there is a product of matrices, tiles by channels by filters. backward_input is the
// same with dy for x and filters turned by 180 degrees, whose two axes of channels have changed places.
//
//   conv2d_winograd_filters   G w G^T, once, in the order in which blocks read them: (K/64, C/8, frequency, 8, 64)
//   conv2d_*_winograd         the rest: a block makes 32 tiles of 64 filters
//
//   per step of 8 channels: a thread loads the 4 x 4 inputs of one tile and channel, transforms them and stores 16
//   numbers; the block stores as many filters. A warp multiplies two frequencies, 32 tiles by 64 filters: 8 x 8 sums of
//   each a thread, 64 multiply-adds for four float4 of shared memory. The next step's numbers are under way meanwhile.
//
// The sums of a tile lie in 8 warps. They meet in shared memory, 8 tiles at a time, where a thread takes the 16 of one
// tile and filter back to 2 x 2 outputs.
//
// Banks: a line of inputs has 32 + 4 floats, so that the 4 tiles by 8 channels which a warp stores, 4c + tile, lie in
// 32 of them. Everything else is 128 bytes in a row for a quarter of a warp, or one float4 for all of it.
#pragma once
#include "../../shapes.h"
#include "../epilogue.cuh"
#include "../platform.cuh"

constexpr int WINOGRAD_THREADS = 256;
constexpr int WINOGRAD_TILES = 32, WINOGRAD_FILTERS = 64, WINOGRAD_CHANNELS = 8;  // of a block, of a step
constexpr int WINOGRAD_STEP = 16 * WINOGRAD_CHANNELS * WINOGRAD_FILTERS;          // floats of transformed filters
constexpr int WINOGRAD_ROUNDS = 4;                                                // in which sums are handed out

struct WinogradTile {
  long long output;   // in y, of its first pixel and channel 0
  int rows, columns;  // of it that exist: 0, 1 or 2
};

struct WinogradShared {
  union {
    struct {
      float inputs[16][WINOGRAD_CHANNELS][WINOGRAD_TILES + 4];
      float filters[16][WINOGRAD_CHANNELS][WINOGRAD_FILTERS];
    } in;
    float sums[16][WINOGRAD_TILES / WINOGRAD_ROUNDS][WINOGRAD_FILTERS];
  };
  WinogradTile tile[WINOGRAD_TILES];
};

struct WinogradFilterShared {
  float filters[16][WINOGRAD_CHANNELS][WINOGRAD_FILTERS + 4];
};

// What a pass reads, x (N, H, W, C), and makes, y (N, P, Q, K)
struct WinogradPass {
  int N, H, W, C, P, Q, K, pad_h, pad_w;

  template <class Shape>
  __device__ static WinogradPass forward(const Shape& s) {
    return {s.N, s.H, s.W, s.C, s.P, s.Q, s.K, s.pad_h, s.pad_w};
  }
  template <class Shape>
  __device__ static WinogradPass backward_input(const Shape& s) {
    return {s.N, s.P, s.Q, s.K, s.H, s.W, s.C, 2 - s.pad_h, 2 - s.pad_w};
  }
};

// One axis of the transforms, from `in` to `out`, STRIDE apart
template <int STRIDE>
__device__ __forceinline__ void transform_inputs(const float* in, float* out) {
  out[0 * STRIDE] = in[0 * STRIDE] - in[2 * STRIDE];
  out[1 * STRIDE] = in[1 * STRIDE] + in[2 * STRIDE];
  out[2 * STRIDE] = in[2 * STRIDE] - in[1 * STRIDE];
  out[3 * STRIDE] = in[1 * STRIDE] - in[3 * STRIDE];
}
template <int STRIDE>
__device__ __forceinline__ void transform_filter(const float* in, float* out) {
  const float ends = 0.5f * (in[0 * STRIDE] + in[2 * STRIDE]), middle = 0.5f * in[1 * STRIDE];
  out[0 * STRIDE] = in[0 * STRIDE];
  out[1 * STRIDE] = ends + middle;
  out[2 * STRIDE] = ends - middle;
  out[3 * STRIDE] = in[2 * STRIDE];
}
template <int STRIDE>
__device__ __forceinline__ void transform_sums(const float* in, float* out) {
  out[0 * STRIDE] = in[0 * STRIDE] + in[1 * STRIDE] + in[2 * STRIDE];
  out[1 * STRIDE] = in[1 * STRIDE] - in[2 * STRIDE] - in[3 * STRIDE];
}

// to: (K/64, C/8, 16, 8, 64) of the pass, zeros past K and C. TURNED: of backward_input. A block makes one step's.
template <bool TURNED, class Shape>
__global__ void __launch_bounds__(WINOGRAD_THREADS, 1)
    conv2d_winograd_filters(const float* __restrict__ w, float* __restrict__ to, Shape shape) {
  DYN_SMEM(WinogradFilterShared, shared);
  const int C = TURNED ? shape.K : shape.C, K = TURNED ? shape.C : shape.K;
  const int steps = (C + WINOGRAD_CHANNELS - 1) / WINOGRAD_CHANNELS;
  const int first_c = static_cast<int>(blockIdx.x) % steps * WINOGRAD_CHANNELS;
  const int first_k = static_cast<int>(blockIdx.x) / steps * WINOGRAD_FILTERS;
  for (int i = threadIdx.x; i < WINOGRAD_CHANNELS * WINOGRAD_FILTERS; i += WINOGRAD_THREADS) {
    // neighbours in memory are neighbours among threads
    const int c = TURNED ? i / WINOGRAD_FILTERS : i % WINOGRAD_CHANNELS;
    const int k = TURNED ? i % WINOGRAD_FILTERS : i / WINOGRAD_CHANNELS;
    const bool inside = first_c + c < C && first_k + k < K;
    float taps[3][3], half[4][3], whole[4][4];
#pragma unroll
    for (int r = 0; r < 3; r++)
#pragma unroll
      for (int s = 0; s < 3; s++) {
        const long long filter = TURNED ? first_c + c : first_k + k;  // of w
        const long long tap = filter * 9 + (TURNED ? (2 - r) * 3 + 2 - s : r * 3 + s);
        taps[r][s] = inside ? w[tap * shape.C + (TURNED ? first_k + k : first_c + c)] : 0.0f;
      }
#pragma unroll
    for (int s = 0; s < 3; s++) transform_filter<3>(&taps[0][s], &half[0][s]);
#pragma unroll
    for (int r = 0; r < 4; r++) transform_filter<1>(half[r], whole[r]);
#pragma unroll
    for (int f = 0; f < 16; f++) shared->filters[f][c][k] = whole[f / 4][f % 4];
  }
  __syncthreads();
  float* const step = to + blockIdx.x * static_cast<long long>(WINOGRAD_STEP);
  for (int i = threadIdx.x * 4; i < WINOGRAD_STEP; i += WINOGRAD_THREADS * 4)
    *reinterpret_cast<Run<float, 4>*>(step + i) = *reinterpret_cast<const Run<float, 4>*>(
        &shared->filters[i / (WINOGRAD_CHANNELS * WINOGRAD_FILTERS)][i / WINOGRAD_FILTERS % WINOGRAD_CHANNELS]
                        [i % WINOGRAD_FILTERS]);
}

// The inputs of one tile and one channel of each step, and this thread's share of the filters
struct WinogradLoads {
  static constexpr int FILTERS = WINOGRAD_STEP / 4 / WINOGRAD_THREADS;  // float4
  const float* corner;  // of the tile's first input, which may lie outside; of this step's channel
  const float* filters;
  long long line;   // floats from an input to the one below
  int pixel;        // floats from an input to its neighbour
  int channels;     // left from this thread's on
  unsigned inside;  // bit 4i + j: input (i, j) lies in the image
  float input[4][4];
  Run<float, 4> filter[FILTERS];

  // the next step's numbers, to registers
  __device__ __forceinline__ void fetch() {
    const unsigned exist = channels > 0 ? inside : 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
        input[i][j] = exist >> (4 * i + j) & 1 ? corner[i * line + static_cast<long long>(j) * pixel] : 0.0f;
#pragma unroll
    for (int i = 0; i < FILTERS; i++)
      filter[i] = *reinterpret_cast<const Run<float, 4>*>(filters + (i * WINOGRAD_THREADS + threadIdx.x) * 4);
    corner += WINOGRAD_CHANNELS, channels -= WINOGRAD_CHANNELS, filters += WINOGRAD_STEP;
  }

  __device__ __forceinline__ void store(WinogradShared* shared) const {
    const int tile = threadIdx.x / WINOGRAD_CHANNELS, c = threadIdx.x % WINOGRAD_CHANNELS;
    float half[4][4], whole[4][4];
#pragma unroll
    for (int j = 0; j < 4; j++) transform_inputs<4>(&input[0][j], &half[0][j]);
#pragma unroll
    for (int i = 0; i < 4; i++) transform_inputs<1>(half[i], whole[i]);
#pragma unroll
    for (int f = 0; f < 16; f++) shared->in.inputs[f][c][tile] = whole[f / 4][f % 4];
    float* const to = &shared->in.filters[0][0][0];
#pragma unroll
    for (int i = 0; i < FILTERS; i++)
      *reinterpret_cast<Run<float, 4>*>(to + (i * WINOGRAD_THREADS + threadIdx.x) * 4) = filter[i];
  }
};

// filters: conv2d_winograd_filters'
__device__ __forceinline__ void winograd(const float* __restrict__ x, const float* __restrict__ filters,
                                         float* __restrict__ y, const Epilogue<float>& epilogue,
                                         const WinogradPass& pass, WinogradShared* shared) {
  const int tiles_p = (pass.P + 1) / 2, tiles_q = (pass.Q + 1) / 2;
  const int blocks_k = (pass.K + WINOGRAD_FILTERS - 1) / WINOGRAD_FILTERS;
  const int steps = (pass.C + WINOGRAD_CHANNELS - 1) / WINOGRAD_CHANNELS;
  const int block_k = static_cast<int>(blockIdx.x) % blocks_k, first_k = block_k * WINOGRAD_FILTERS;
  const int c = threadIdx.x % WINOGRAD_CHANNELS, own = threadIdx.x / WINOGRAD_CHANNELS;  // tile that it loads

  WinogradLoads loads;
  {
    const long long tile = static_cast<long long>(blockIdx.x / blocks_k) * WINOGRAD_TILES + own;
    const long long row = tile / tiles_q;  // of tiles, n * tiles_p + p / 2
    const int q = static_cast<int>(tile % tiles_q) * 2, p = static_cast<int>(row % tiles_p) * 2;
    const long long n = row / tiles_p;
    const int h = p - pass.pad_h, left = q - pass.pad_w;
    loads.line = static_cast<long long>(pass.W) * pass.C, loads.pixel = pass.C;
    loads.corner = x + (((n * pass.H + h) * pass.W + left) * pass.C + c);
    loads.channels = n < pass.N ? pass.C - c : 0;
    loads.filters = filters + static_cast<long long>(block_k) * steps * WINOGRAD_STEP;
    loads.inside = 0;
#pragma unroll
    for (int i = 0; i < 16; i++) {
      const bool in_h = static_cast<unsigned>(h + i / 4) < static_cast<unsigned>(pass.H);
      const bool in_w = static_cast<unsigned>(left + i % 4) < static_cast<unsigned>(pass.W);
      if (in_h && in_w) loads.inside |= 1u << i;
    }
    if (c == 0) {
      const int rows = n < pass.N ? (p + 1 < pass.P ? 2 : 1) : 0;
      shared->tile[own] = {((n * pass.P + p) * pass.Q + q) * pass.K, rows, q + 1 < pass.Q ? 2 : 1};
    }
  }

  const int lane = threadIdx.x % 32, f = threadIdx.x / 32 * 2;  // its first frequency
  const int lane_k = lane % 8 * 4, lane_tile = lane / 8 * 4;
  float sum[2][8][8];  // of two frequencies, tiles lane_tile + i/4*16 + i%4, filters lane_k + j/4*32 + j%4
#pragma unroll
  for (int g = 0; g < 2; g++)
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
      for (int j = 0; j < 8; j++) sum[g][i][j] = 0.0f;

  loads.fetch();
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    loads.store(shared);
    __syncthreads();
    if (step + 1 < steps) loads.fetch();
#pragma unroll
    for (int g = 0; g < 2; g++)
#pragma unroll
      for (int k = 0; k < WINOGRAD_CHANNELS; k++) {
        Run<float, 4> a[2], b[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
          a[i] = *reinterpret_cast<const Run<float, 4>*>(&shared->in.inputs[f + g][k][lane_tile + i * 16]);
          b[i] = *reinterpret_cast<const Run<float, 4>*>(&shared->in.filters[f + g][k][lane_k + i * 32]);
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
          for (int j = 0; j < 8; j++) sum[g][i][j] += a[i / 4].value[i % 4] * b[j / 4].value[j % 4];
      }
    __syncthreads();
  }

  const int k = threadIdx.x % WINOGRAD_FILTERS;  // that it makes outputs of
  const Epilogue<float> of_channel{epilogue.bias, epilogue.scale, epilogue.shift, nullptr, 0};
#pragma unroll
  for (int round = 0; round < WINOGRAD_ROUNDS; round++) {
    if (round > 0) __syncthreads();
#pragma unroll
    for (int g = 0; g < 2; g++)
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
          Run<float, 4> run;
#pragma unroll
          for (int v = 0; v < 4; v++) run.value[v] = sum[g][i * 4 + round][j * 4 + v];
          *reinterpret_cast<Run<float, 4>*>(&shared->sums[f + g][i * 4 + lane / 8][lane_k + j * 32]) = run;
        }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int slot = threadIdx.x / WINOGRAD_FILTERS + i * 4;  // tile slot%4*4 + i*16 + round
      const WinogradTile tile = shared->tile[slot % 4 * 4 + i * 16 + round];
      float m[4][4], half[2][4], out[4][1];
#pragma unroll
      for (int g = 0; g < 16; g++) m[g / 4][g % 4] = shared->sums[g][slot][k];
#pragma unroll
      for (int j = 0; j < 4; j++) transform_sums<4>(&m[0][j], &half[0][j]);
#pragma unroll
      for (int j = 0; j < 2; j++) transform_sums<1>(half[j], &out[2 * j][0]);
      of_channel.apply_channels(out, first_k + k, pass.K);
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (first_k + k < pass.K && j / 2 < tile.rows && j % 2 < tile.columns) {
          const long long index = tile.output + (static_cast<long long>(j / 2) * pass.Q + j % 2) * pass.K + first_k + k;
          y[index] = epilogue.finish(out[j][0], index);
        }
    }
  }
}

template <class Shape>
__global__ void __launch_bounds__(WINOGRAD_THREADS, 1)
    conv2d_forward_winograd(const float* __restrict__ x, const float* __restrict__ filters, float* __restrict__ y,
                            const float* bias, const float* scale, const float* shift, const float* residual, int relu,
                            Shape shape) {
  DYN_SMEM(WinogradShared, shared);
  const Epilogue<float> epilogue{bias, scale, shift, residual, relu};
  winograd(x, filters, y, epilogue, WinogradPass::forward(shape), shared);
}

template <class Shape>
__global__ void __launch_bounds__(WINOGRAD_THREADS, 1)
    conv2d_backward_input_winograd(const float* __restrict__ dy, const float* __restrict__ filters,
                                   float* __restrict__ dx, Shape shape) {
  DYN_SMEM(WinogradShared, shared);
  const Epilogue<float> none{nullptr, nullptr, nullptr, nullptr, 0};
  winograd(dy, filters, dx, none, WinogradPass::backward_input(shape), shared);
}
