// The core of rung `implicit_gemm_mma`: one block multiplies an a-tile by a b-tile, c (BM, BN) = a (BM, k) @ b (BN,
// k)^T, on tensor cores. Both tiles wait in shared memory in their own type, STAGES steps of BK deep; each warp keeps a
// corner of WM x WN sums in registers, as fragments of 16 x 8.
//
//   per step of BK: one barrier, the copies of step + STAGES - 1 are issued (cp.async: they need no register and nobody
//   waits for them but this step's turn), ldmatrix brings fragments, mma multiplies. A warp of 64 x 32 reads 96 rows of
//   fragments for 64 * 32 products: 21 multiply-adds for each element of shared memory.
//
// In shared memory a tile is lines of 16-byte chunks as they lie in global memory: of BK elements of one row where the
// operand runs along k, of ROWS elements of one k where it does not (ldmatrix then transposes). A chunk's place in its
// line is XORed with the line's number, so that the eight rows that ldmatrix reads at once, and the eight chunks that
// eight threads write at once, lie in different banks.
//
// What is multiplied: __half and __nv_bfloat16 as they are; float as Rounded::tf32, whose operands keep 10 bits of
// significand, or as Rounded::tf32_3x, whose operands are the sum of two such numbers (all three products but that of
// both small parts): about float32's accuracy at a third of the rate. Products are added in float32, in the order of k.
#pragma once
#include "fragments_out.cuh"
#include "platform.cuh"
#include "ptx.cuh"
#include "tile_moments.cuh"

enum class Rounded { no, tf32, tf32_3x };

template <int BM_, int BN_, int BK_, int WARPS_M_, int WARPS_N_, int STAGES_>
struct MmaTile {
  static constexpr int BM = BM_, BN = BN_, BK = BK_, STAGES = STAGES_;
  static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, WARPS = WARPS_M * WARPS_N, THREADS = 32 * WARPS;
  static constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N;  // a warp's corner
  static constexpr int FM = WM / 16, FN = WN / 8;             // fragments of it
  static_assert(FM * 16 * WARPS_M == BM && FN * 8 * WARPS_N == BN && FN % 2 == 0, "fragments cover the tile");
  static_assert(THREADS >= BN, "a thread for the moments of each column");
  static_assert(STAGES >= 2, "a step is multiplied while another arrives");

  template <class T>
  union Shared {
    struct {
      T a[STAGES][BM * BK];
      T b[STAGES][BN * BK];
    } in;
    struct {
      FragmentRows<WN> rows[WARPS];
      TileMoments<WARPS_M, BN> moments;
    } out;
  };
};

// Where an operand's tile of ROWS x BK elements lies: lines of CHUNKS chunks
template <class T, bool ALONG_K, int ROWS, int BK>
struct SwizzledTile {
  static constexpr int CHUNK = 16 / sizeof(T);      // elements
  static constexpr int LINE = ALONG_K ? BK : ROWS;  // elements of a line
  static constexpr int LINES = ALONG_K ? ROWS : BK;
  static constexpr int CHUNKS = LINE / CHUNK;
  static_assert(LINE % CHUNK == 0 && (CHUNKS & (CHUNKS - 1)) == 0, "a line is a power of two of chunks");

  // the offset in elements of a line's chunk
  __device__ static int chunk(int line, int chunk) {
    if constexpr (sizeof(T) == 4 && !ALONG_K) return line * LINE + (chunk ^ (line % 4 * 2 % CHUNKS)) * CHUNK;
    constexpr int SHARED_LINES = CHUNKS < 8 ? 8 / CHUNKS : 1;  // lines that 128 bytes, all banks, hold
    return line * LINE + (chunk ^ (line / SHARED_LINES % (CHUNKS < 8 ? CHUNKS : 8))) * CHUNK;
  }
  __device__ static int element(int line, int column) { return chunk(line, column / CHUNK) + column % CHUNK; }
};

// One operand's way from global to shared memory. VECTOR elements at a time, which must be neighbours in memory and
// exist together: their number divides the length of what lies side by side (channels of a group) and the addresses.
template <class T, class Operand, int ROWS, int BK, int THREADS, int VECTOR>
struct MmaStage {
  using Layout = SwizzledTile<T, Operand::ALONG_K, ROWS, BK>;
  static constexpr int PARTS = Layout::LINE / VECTOR;              // copies of a line
  static constexpr int COPIES = Layout::LINES * PARTS / THREADS;   // of a thread
  static constexpr bool BY_LINE = Operand::ALONG_K && COPIES > 4;  // a thread stays in one line: fewer rows known
  static constexpr int ACROSS = BY_LINE ? Layout::LINES : PARTS;   // threads side by side
  static constexpr int STEP = THREADS / ACROSS;                    // distance of a thread's copies
  static constexpr int ROWS_KEPT = Operand::ALONG_K && !BY_LINE ? COPIES : 1;
  static_assert(Layout::LINES * PARTS % THREADS == 0 && THREADS % ACROSS == 0, "every thread copies equally often");
  static_assert(Layout::CHUNK % VECTOR == 0, "a copy lies in one chunk");

  const Operand& operand;
  const int near, far;
  typename Operand::Row rows[ROWS_KEPT];

  __device__ MmaStage(const Operand& operand, long long first_row)
      : operand(operand), near(threadIdx.x % ACROSS), far(threadIdx.x / ACROSS) {
#pragma unroll
    for (int i = 0; i < ROWS_KEPT; i++)
      rows[i] = operand.row(first_row + (!Operand::ALONG_K ? near * VECTOR : BY_LINE ? near : far + i * STEP));
  }

  // steps from k on, to `tile`
  __device__ void copy(long long k, T* tile) const {
    if constexpr (Operand::ALONG_K && !BY_LINE) {
      const typename Operand::Tap tap = operand.tap(k + near * VECTOR);
#pragma unroll
      for (int i = 0; i < COPIES; i++)
        copy_one(tile + Layout::element(far + i * STEP, near * VECTOR), operand.at(rows[i], tap));
    } else if constexpr (BY_LINE) {
      for (int i = 0; i < COPIES; i++) {
        const int column = (far + i * STEP) * VECTOR;
        copy_one(tile + Layout::element(near, column), operand.at(rows[0], operand.tap(k + column)));
      }
    } else {
#pragma unroll
      for (int i = 0; i < COPIES; i++)
        copy_one(tile + Layout::element(far + i * STEP, near * VECTOR),
                 operand.at(rows[0], operand.tap(k + far + i * STEP)));
    }
  }

  __device__ static void copy_one(T* to, const T* from) {
    constexpr int BYTES = VECTOR * sizeof(T);
    if constexpr (BYTES >= 4) {
      ptx::cp_async<BYTES>(to, from, from != nullptr);
    } else {  // cp.async has no 2 bytes
      *to = from ? *from : from_float<T>(0.0f);
    }
  }
};

// The fragments of one operand at step kk of a tile: COUNT of 16 rows (a) or pairs of 8 (b), WORDS registers each
template <class T, bool ALONG_K, int ROWS, int BK>
struct FragmentLoader {
  using Layout = SwizzledTile<T, ALONG_K, ROWS, BK>;
  static constexpr int CHUNK = Layout::CHUNK;

  // rows first + [0, 16), k in [kk, kk + 2 * CHUNK): registers in mma's order for a (rows 0-7 and 8-15 of the first
  // half of k, then of the second); for b registers 0, 1 of the first eight columns are (0, 2), of the second (1, 3)
  __device__ static void load(const T* tile, int first, int kk, uint32_t (&r)[4]) {
    const int lane = threadIdx.x % 32;
    if constexpr (ALONG_K) {
      ptx::ldmatrix_x4(r, tile + Layout::chunk(first + lane % 16, kk / CHUNK + lane / 16));
    } else if constexpr (sizeof(T) == 2) {
      ptx::ldmatrix_x4_trans(r, tile + Layout::chunk(kk + lane / 16 * 8 + lane % 8, first / CHUNK + lane / 8 % 2));
    } else {  // ldmatrix transposes 16-bit elements only
#pragma unroll
      for (int i = 0; i < 4; i++)
        r[i] = __float_as_uint(tile[Layout::element(kk + lane % 4 + i / 2 * 4, first + lane / 4 + i % 2 * 8)]);
    }
  }
};

template <class T, Rounded ROUNDED>
struct Product {  // of 16-bit elements
  static constexpr int K = 16;
  static __device__ void add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    ptx::mma_m16n8k16<T>(d, a, b);
  }
};
template <>
struct Product<float, Rounded::tf32> {
  static constexpr int K = 8;
  static __device__ void add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    uint32_t ra[4], rb[2];
#pragma unroll
    for (int i = 0; i < 4; i++) ra[i] = ptx::to_tf32(__uint_as_float(a[i]));
#pragma unroll
    for (int i = 0; i < 2; i++) rb[i] = ptx::to_tf32(__uint_as_float(b[i]));
    ptx::mma_m16n8k8_tf32(d, ra, rb);
  }
};
template <>
struct Product<float, Rounded::tf32_3x> {
  static constexpr int K = 8;
  template <int N>
  static __device__ void split(const uint32_t (&v)[N], uint32_t (&large)[N], uint32_t (&small)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float value = __uint_as_float(v[i]);
      large[i] = ptx::to_tf32(value);
      small[i] = ptx::to_tf32(value - __uint_as_float(large[i]));
    }
  }
  static __device__ void add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    uint32_t la[4], sa[4], lb[2], sb[2];
    split(a, la, sa);
    split(b, lb, sb);
    ptx::mma_m16n8k8_tf32(d, sa, lb);
    ptx::mma_m16n8k8_tf32(d, la, sb);
    ptx::mma_m16n8k8_tf32(d, la, lb);
  }
};

// sum: of this warp's fragment (i, j), rows i * 16 + [0, 16) and columns j * 8 + [0, 8) of its corner
template <class Tile>
using MmaSums = float[Tile::FM][Tile::FN][4];

// sum over k in [0, end) of rows first_a + ..., columns first_b + ...; operands give null from their own end on, and a
// split must not read into the next one: end % BK == 0 or it is the last
template <class Tile, class T, Rounded ROUNDED, int VECTOR, class OperandA, class OperandB>
__device__ inline void multiply_mma_tile(typename Tile::template Shared<T>& shared, const OperandA& a,
                                         const OperandB& b, long long first_a, long long first_b, int end,
                                         MmaSums<Tile>& sum) {
  using P = Product<T, ROUNDED>;
  const MmaStage<T, OperandA, Tile::BM, Tile::BK, Tile::THREADS, VECTOR> stage_a(a, first_a);
  const MmaStage<T, OperandB, Tile::BN, Tile::BK, Tile::THREADS, VECTOR> stage_b(b, first_b);
  using LoadA = FragmentLoader<T, OperandA::ALONG_K, Tile::BM, Tile::BK>;
  using LoadB = FragmentLoader<T, OperandB::ALONG_K, Tile::BN, Tile::BK>;
  const int warp = threadIdx.x / 32;
  const int row = warp / Tile::WARPS_N * Tile::WM, column = warp % Tile::WARPS_N * Tile::WN;
#pragma unroll
  for (int i = 0; i < Tile::FM; i++)
#pragma unroll
    for (int j = 0; j < Tile::FN; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) sum[i][j][v] = 0.0f;

  const auto issue = [&](int k, int stage) {  // a group is committed even where nothing is left to copy
    if (k < end) {
      stage_a.copy(k, shared.in.a[stage]);
      stage_b.copy(k, shared.in.b[stage]);
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int s = 0; s < Tile::STAGES - 1; s++) issue(s * Tile::BK, s);
  int stage = 0;
  for (int k = 0; k < end; k += Tile::BK, stage = stage + 1 == Tile::STAGES ? 0 : stage + 1) {
    ptx::cp_async_wait<Tile::STAGES - 2>();
    __syncthreads();  // all copies of this step have arrived, and the stage before it is no longer read
    issue(k + (Tile::STAGES - 1) * Tile::BK, stage == 0 ? Tile::STAGES - 1 : stage - 1);
#pragma unroll
    for (int kk = 0; kk < Tile::BK; kk += P::K) {
      uint32_t fragment_a[Tile::FM][4], fragment_b[Tile::FN / 2][4];
#pragma unroll
      for (int i = 0; i < Tile::FM; i++) LoadA::load(shared.in.a[stage], row + i * 16, kk, fragment_a[i]);
#pragma unroll
      for (int j = 0; j < Tile::FN / 2; j++) LoadB::load(shared.in.b[stage], column + j * 16, kk, fragment_b[j]);
#pragma unroll
      for (int i = 0; i < Tile::FM; i++)
#pragma unroll
        for (int j = 0; j < Tile::FN; j++) {
          const uint32_t pair[2] = {fragment_b[j / 2][j % 2], fragment_b[j / 2][j % 2 + 2]};
          P::add(sum[i][j], fragment_a[i], pair);
        }
    }
  }
  ptx::cp_async_wait<0>();
  __syncthreads();  // from here on shared memory is free
}

// Hands the sums out in runs of VECTOR neighbouring columns: write(row, column, values), within the tile
template <class Tile, int VECTOR, class T, class Write>
__device__ inline void store_mma_tile(typename Tile::template Shared<T>& shared, const MmaSums<Tile>& sum,
                                      const Write& write) {
  const int warp = threadIdx.x / 32;
  const int row = warp / Tile::WARPS_N * Tile::WM, column = warp % Tile::WARPS_N * Tile::WN;
#pragma unroll
  for (int i = 0; i < Tile::FM; i++)
    hand_out_fragments<VECTOR>(
        shared.out.rows[warp], [&](int j, int v) { return sum[i][j][v]; },
        [&](int r, int c, const float (&values)[VECTOR]) { write(row + i * 16 + r, column + c, values); });
}

// Whole blocks, behind store_mma_tile: `columns` are the values that this lane was handed, and that exist; of column c
// to[c] becomes the mean and to[next + c] the sum of squares about it, for the first `count` columns of the tile
template <class Tile, class T, int VECTOR>
__device__ inline void store_mma_moments(typename Tile::template Shared<T>& shared, ColumnMoments<T, VECTOR>& columns,
                                         float* to, int next, int count) {
  constexpr int RUNS = Tile::WN / VECTOR;
  static_assert(32 % RUNS == 0, "a lane is always handed the same columns");
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, c = threadIdx.x;
  columns.template join<RUNS>();
  if (lane < RUNS)
    columns.write(shared.out.moments, warp / Tile::WARPS_N, warp % Tile::WARPS_N * Tile::WN + lane * VECTOR);
  __syncthreads();
  if (c < Tile::BN && c < count) store_tile_moments(shared.out.moments, c, to + c, next);
}
