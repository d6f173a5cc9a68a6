// The core of every `tiled` rung: one block multiplies an a-tile by a b-tile, c (BM, BN) = a (BM, k) @ b (BN, k)^T,
// both staged in shared memory as float32, and each thread keeps a TM x TN corner of c in registers.
//
//   per step of BK: BK * (BM + BN) elements are loaded once and used BM * BN * BK times, so a 64 x 64 tile reads each
//   element from global memory 64 times less often than `direct`; from shared memory a thread reads TM + TN floats for
//   TM * TN multiply-adds: 8 for 16 with 4 x 4, 16 for 64 with 8 x 8.
//
// The two shared buffers alternate: the next step's elements travel from global memory to registers while this step is
// multiplied, and one barrier a step separates readers and writers. Every element of c adds its products in the order
// of k, whatever the tile: results do not depend on the tile chosen.
//
// Operands tell where an element lies, as in conv2d/operands.cuh; threads follow its neighbours in memory.
#pragma once
#include "platform.cuh"

template <int BM_, int BN_, int BK_, int TM_, int TN_>
struct Tile {
  static constexpr int BM = BM_, BN = BN_, BK = BK_, TM = TM_, TN = TN_;
  static constexpr int COLUMNS = BN / TN;                                   // threads along n
  static constexpr int THREADS = (BM / TM) * COLUMNS;                       // 64/4 * 64/4 = 256
  static constexpr int BLOCKS = THREADS == 64 ? 6 : TM * TN == 16 ? 2 : 1;  // whose registers fit a multiprocessor
  static constexpr int PAD = 4;  // keeps rows 16-byte aligned and off each other's banks
  static_assert(BM % TM == 0 && BN % TN == 0, "threads cover the tile exactly");
  static_assert(TM % 4 == 0 && TN % 4 == 0, "fragments are read as float4");
  static_assert(THREADS % 32 == 0, "whole warps");

  struct Shared {
    float a[2][BK][BM + PAD];
    float b[2][BK][BN + PAD];
  };
};

// One operand's way from global memory through registers to shared memory.
template <class Operand, int ROWS, int BK, int THREADS, int WIDTH>
struct Stage {
  static constexpr int LOADS = ROWS * BK / THREADS;
  static constexpr int NEIGHBOURS = Operand::ALONG_K ? BK : ROWS;  // threads side by side in memory
  static constexpr int STEP = THREADS / NEIGHBOURS;                // distance of a thread's loads along the other axis
  static_assert(ROWS * BK % THREADS == 0 && THREADS % NEIGHBOURS == 0, "every thread loads equally often");
  static constexpr int KEPT = Operand::ALONG_K ? LOADS : 1;

  const Operand& operand;
  const int near, far;  // near in [0, NEIGHBOURS), far in [0, STEP)
  typename Operand::Row rows[KEPT];
  float held[LOADS];

  __device__ Stage(const Operand& operand, long long first_row)
      : operand(operand), near(threadIdx.x % NEIGHBOURS), far(threadIdx.x / NEIGHBOURS) {
#pragma unroll
    for (int i = 0; i < KEPT; i++) rows[i] = operand.row(first_row + (Operand::ALONG_K ? far + i * STEP : near));
  }

  template <class T>
  __device__ static float value(const T* element) {
    return element ? to_float(*element) : 0.0f;
  }

  __device__ void fetch(long long k) {
    if constexpr (Operand::ALONG_K) {
      const typename Operand::Tap tap = operand.tap(k + near);
#pragma unroll
      for (int i = 0; i < LOADS; i++) held[i] = value(operand.at(rows[i], tap));
    } else {
#pragma unroll
      for (int i = 0; i < LOADS; i++) held[i] = value(operand.at(rows[0], operand.tap(k + far + i * STEP)));
    }
  }

  __device__ void store(float (&shared)[BK][WIDTH]) const {
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      if constexpr (Operand::ALONG_K) {
        shared[near][far + i * STEP] = held[i];
      } else {
        shared[far + i * STEP][near] = held[i];
      }
    }
  }
};

template <int COUNT>
__device__ inline void read_fragment(const float* shared, float (&fragment)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(shared + i);
    fragment[i] = four.x, fragment[i + 1] = four.y, fragment[i + 2] = four.z, fragment[i + 3] = four.w;
  }
}

// sum (TM, TN) of this thread: rows first_a + (threadIdx.x / COLUMNS) * TM + [0, TM), columns first_b +
// (threadIdx.x % COLUMNS) * TN + [0, TN), over k in [0, end); the operands give null from their own end on, so a last
// partial step needs no care, except that a split must not read into the next one: end % BK == 0 or it is the last
template <class T, class OperandA, class OperandB>
__device__ inline void multiply_tile(typename T::Shared& shared, const OperandA& a, const OperandB& b,
                                     long long first_a, long long first_b, int end, float (&sum)[T::TM][T::TN]) {
  Stage<OperandA, T::BM, T::BK, T::THREADS, T::BM + T::PAD> stage_a(a, first_a);
  Stage<OperandB, T::BN, T::BK, T::THREADS, T::BN + T::PAD> stage_b(b, first_b);
  const int row = threadIdx.x / T::COLUMNS * T::TM, column = threadIdx.x % T::COLUMNS * T::TN;
#pragma unroll
  for (int i = 0; i < T::TM; i++)
#pragma unroll
    for (int j = 0; j < T::TN; j++) sum[i][j] = 0.0f;

  stage_a.fetch(0);
  stage_b.fetch(0);
  stage_a.store(shared.a[0]);
  stage_b.store(shared.b[0]);
  __syncthreads();
  int current = 0;
  for (int k = 0; k < end; k += T::BK, current ^= 1) {
    const bool more = k + T::BK < end;
    if (more) {
      stage_a.fetch(k + T::BK);
      stage_b.fetch(k + T::BK);
    }
#pragma unroll 4  // enough to hide shared memory's latency; all of BK compiles four times longer
    for (int kk = 0; kk < T::BK; kk++) {
      float fragment_a[T::TM], fragment_b[T::TN];
      read_fragment(&shared.a[current][kk][row], fragment_a);
      read_fragment(&shared.b[current][kk][column], fragment_b);
#pragma unroll
      for (int i = 0; i < T::TM; i++)
#pragma unroll
        for (int j = 0; j < T::TN; j++) sum[i][j] += fragment_a[i] * fragment_b[j];
    }
    if (more) {  // the other buffer was last read before the previous barrier
      stage_a.store(shared.a[current ^ 1]);
      stage_b.store(shared.b[current ^ 1]);
      __syncthreads();
    }
  }
}
