// The core of rung `implicit_gemm`: one block multiplies an a-tile by a b-tile, c (BM, BN) = a (BM, k) @ b (BN, k)^T,
// on CUDA cores: exact float32 products and sums, whatever the type in memory.
//
//   per step of BK: VECTOR neighbours at a time travel from global memory to registers while the step before is
//   multiplied, then to the other of two shared buffers; one barrier a step. A thread keeps GM x GN groups of 4 x 4
//   sums: with 2 x 2 groups it reads 16 floats of shared memory, four float4, for 64 multiply-adds.
//
// Every element of c adds its products in the order of k, whatever the tile: results do not depend on the tile chosen.
//
// Shared memory holds both tiles as [k][row] in float32. A line is ROWS + 4 floats long and ROWS a multiple of 32, so
// element (k, row) lies in bank (4k + row) % 32, and no access meets itself in a bank:
//
// Fragments are read as float4, by eight threads at a time. A warp is 4 x 8 threads: eight neighbours along n read
// eight neighbouring float4 of b, 128 bytes, and one and the same float4 of a.
//
// Stores of an operand along rows: neighbouring threads store neighbouring float4 or floats of one line.
//
// Stores of an operand along k, transposed, element v of each thread at once:
//   VECTOR 4   two threads share a row, k = 4u + v with u = 0, 1: bank 16u + 4v + row, with 16 neighbouring rows a warp
//   VECTOR 1   eight threads share a row, k = 0 to 7: bank 4k + row, with 4 neighbouring rows a warp
// which are all 32 banks, since the rows of a warp begin at a multiple of their number.
#pragma once
#include "epilogue.cuh"
#include "platform.cuh"
#include "tile_moments.cuh"

template <int BM_, int BN_, int BK_, int GM_, int GN_>
struct SimtTile {
  static constexpr int BM = BM_, BN = BN_, BK = BK_, GM = GM_, GN = GN_;
  static constexpr int TM = 4 * GM;                              // rows of a thread
  static constexpr int ROWS = BM / TM, COLUMNS = BN / (4 * GN);  // of threads
  static constexpr int THREADS = ROWS * COLUMNS;
  // on a multiprocessor: 256 threads of 128 registers, 128 threads of 168 or, where they have 32 sums, 128
  static constexpr int BLOCKS = THREADS == 256 ? 2 : GM * GN == 4 ? 3 : 4;
  static constexpr int PAD = 4;
  static constexpr int BLOCK_BYTES = 128;  // for a kernel's Block
  static_assert(ROWS * TM == BM && COLUMNS * 4 * GN == BN, "threads cover the tile exactly");
  static_assert(ROWS % 4 == 0 && COLUMNS % 8 == 0, "warps of 4 x 8 threads cover the block");
  static_assert(THREADS >= BN, "a thread for the moments of each column");
  static_assert(BM % 32 == 0 && BN % 32 == 0 && BK == 8, "what is said of banks above");

  struct Buffers {
    float a[2][BK][BM + PAD];
    float b[2][BK][BN + PAD];
  };
  template <class Block>
  struct Shared {
    union {
      Buffers tile;
      TileMoments<ROWS / 4, BN> moments;  // afterwards
    };
    Block block;  // where the block's tile lies
    static_assert(sizeof(Block) <= BLOCK_BYTES, "a launch asks for no more");
  };

  // row and column of this thread's first group; group (i, j) is i * BM / GM rows below and j * BN / GN columns right
  __device__ static int row() { return (threadIdx.x / 32 / (COLUMNS / 8) * 4 + threadIdx.x % 32 / 8) * 4; }
  __device__ static int column() { return (threadIdx.x / 32 % (COLUMNS / 8) * 8 + threadIdx.x % 8) * 4; }
  // row i of a thread's TM rows, and first of the four columns of group j
  __device__ static int row(int i) { return row() + i / 4 * (BM / GM) + i % 4; }
  __device__ static int column(int j) { return column() + j * (BN / GN); }
};

// sum[j][i] of a thread: row i % 4 of row group i / 4, the four columns of column group j
template <class Tile>
using SimtSums = float[Tile::GN][Tile::TM][4];

// One operand's way from global memory through registers to shared memory, VECTOR elements at a time, which must be
// neighbours in memory and exist together, at an address that is a multiple of their size.
template <class T, class Operand, int ROWS, int BK, int THREADS, int VECTOR>
struct SimtStage {
  static constexpr bool ALONG_K = Operand::ALONG_K;
  static constexpr int RUNS = (ALONG_K ? BK : ROWS) / VECTOR;  // side by side in memory
  static constexpr int LOADS = ROWS * BK / VECTOR / THREADS;   // of a thread
  static constexpr int STEP = THREADS / RUNS;                  // distance of a thread's loads along the other axis
  static constexpr int KEPT = ALONG_K ? LOADS : 1;
  static_assert(ROWS * BK % (VECTOR * THREADS) == 0 && THREADS % RUNS == 0, "every thread loads equally often");
  static_assert(VECTOR == 1 || VECTOR == 4, "what is stored to shared memory at once");

  const Operand& operand;
  const int near, far;
  typename Operand::Row rows[KEPT];
  typename Operand::Position position;
  Run<T, VECTOR> held[LOADS];

  __device__ SimtStage(const Operand& operand, long long first_row)
      : operand(operand),
        near(threadIdx.x % RUNS * VECTOR),
        far(threadIdx.x / RUNS),
        position(operand.position(ALONG_K ? near : far)) {
#pragma unroll
    for (int i = 0; i < KEPT; i++) rows[i] = operand.row(first_row + (ALONG_K ? far + i * STEP : near));
  }

  // the next step's elements, to registers
  __device__ void fetch() {
    typename Operand::Tap tap = operand.tap_of(position);
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      if (!ALONG_K && i > 0) {
        position = operand.after(position, STEP);
        tap = operand.tap_of(position);
      }
      const T* from = operand.at(rows[ALONG_K ? i : 0], tap);
      if (from) {
        held[i] = *reinterpret_cast<const Run<T, VECTOR>*>(from);
      } else {
#pragma unroll
        for (int v = 0; v < VECTOR; v++) held[i].value[v] = from_float<T>(0.0f);
      }
    }
    position = operand.after(position, ALONG_K ? BK : STEP);
  }

  __device__ void store(float (&shared)[BK][ROWS + 4]) const {
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      if constexpr (ALONG_K) {
#pragma unroll
        for (int v = 0; v < VECTOR; v++) shared[near + v][far + i * STEP] = to_float(held[i].value[v]);
      } else {
        Run<float, VECTOR> run;
#pragma unroll
        for (int v = 0; v < VECTOR; v++) run.value[v] = to_float(held[i].value[v]);
        *reinterpret_cast<Run<float, VECTOR>*>(&shared[far + i * STEP][near]) = run;
      }
    }
  }
};

// sum over k in [0, end) of rows first_a + ..., columns first_b + ...; the operands give null from their own end on,
// and a split must not read into the next one: end % BK == 0 or it is the last. Without products, 0.
template <class Tile, class T, int VECTOR, class OperandA, class OperandB>
__device__ inline void multiply_simt_tile(typename Tile::Buffers& shared, const OperandA& a, const OperandB& b,
                                          long long first_a, long long first_b, int end, SimtSums<Tile>& sum) {
  constexpr int GM = Tile::GM, GN = Tile::GN, TM = Tile::TM;
#pragma unroll
  for (int j = 0; j < GN; j++)
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
      for (int v = 0; v < 4; v++) sum[j][i][v] = 0.0f;
  if (end == 0) return;

  SimtStage<T, OperandA, Tile::BM, Tile::BK, Tile::THREADS, VECTOR> stage_a(a, first_a);
  SimtStage<T, OperandB, Tile::BN, Tile::BK, Tile::THREADS, VECTOR> stage_b(b, first_b);
  const int row = Tile::row(), column = Tile::column();
  stage_a.fetch();
  stage_b.fetch();
  stage_a.store(shared.a[0]);
  stage_b.store(shared.b[0]);
  __syncthreads();
  int current = 0;
  for (int k = 0; k < end; k += Tile::BK, current ^= 1) {
    const bool more = k + Tile::BK < end;
    if (more) {
      stage_a.fetch();
      stage_b.fetch();
    }
#pragma unroll 2  // all of BK reads fragments so early that 64 sums do not fit 128 registers
    for (int kk = 0; kk < Tile::BK; kk++) {
      Run<float, 4> fragment_a[GM], fragment_b[GN];
#pragma unroll
      for (int i = 0; i < GM; i++)
        fragment_a[i] = *reinterpret_cast<const Run<float, 4>*>(&shared.a[current][kk][row + i * (Tile::BM / GM)]);
#pragma unroll
      for (int j = 0; j < GN; j++)
        fragment_b[j] = *reinterpret_cast<const Run<float, 4>*>(&shared.b[current][kk][column + j * (Tile::BN / GN)]);
#pragma unroll
      for (int j = 0; j < GN; j++)
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
          for (int v = 0; v < 4; v++) sum[j][i][v] += fragment_a[i / 4].value[i % 4] * fragment_b[j].value[v];
    }
    if (more) {  // the other buffer was last read before the previous barrier
      stage_a.store(shared.a[current ^ 1]);
      stage_b.store(shared.b[current ^ 1]);
      __syncthreads();
    }
  }
}

// Hands the sums out in runs of VECTOR neighbouring columns: write(row, column, values), within the tile
template <class Tile, int VECTOR, class Write>
__device__ inline void store_simt_tile(const SimtSums<Tile>& sum, const Write& write) {
#pragma unroll
  for (int i = 0; i < Tile::TM; i++) {
#pragma unroll
    for (int j = 0; j < Tile::GN; j++) {
#pragma unroll
      for (int v = 0; v < 4; v += VECTOR) {
        float values[VECTOR];
#pragma unroll
        for (int u = 0; u < VECTOR; u++) values[u] = sum[j][i][v + u];
        write(Tile::row(i), Tile::column(j) + v, values);
      }
    }
  }
}

// Whole blocks: the moments of the sums, as they will be rounded to T, of the tile's first `rows` rows; of column c
// to[c] becomes the mean and to[next + c] the sum of squares about it, for the first `count` columns of the tile
template <class Tile, class T, class Moments>
__device__ inline void store_simt_moments(Moments& moments, const SimtSums<Tile>& sum, long long rows, float* to,
                                          int next, int count) {
  __syncthreads();  // the operands' tiles, which lie where the moments will, are no longer read
#pragma unroll
  for (int j = 0; j < Tile::GN; j++) {
    ColumnMoments<T, 4> columns;
#pragma unroll
    for (int i = 0; i < Tile::TM; i++) {
      Run<T, 4> rounded;
#pragma unroll
      for (int v = 0; v < 4; v++) rounded.value[v] = from_float<T>(sum[j][i][v]);
      if (Tile::row(i) < rows) columns.add(rounded);
    }
    columns.template join<8>();
    if (threadIdx.x % 32 < 8) columns.write(moments, threadIdx.x / 32 / (Tile::COLUMNS / 8), Tile::column(j));
  }
  __syncthreads();
  const int c = threadIdx.x;
  if (c < Tile::BN && c < count) store_tile_moments(moments, c, to + c, next);
}
