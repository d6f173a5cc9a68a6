// One vector type for every kernel: `vec` is V floats, `veci` V int32, `vecu` V uint32, `vecl` V / 2 uint64.
// Arithmetic, comparisons and `mask ? a : b` are the compiler's vector extensions, and a * b + c becomes one fused
// instruction where there is one; only what these cannot say is written per instruction set, in simd_*.h. Included
// once, inside the namespace of one instruction set.

#if defined(__AVX512F__)
constexpr int V = 16;
#elif defined(__AVX2__)
constexpr int V = 8;
#else
constexpr int V = 4;
#endif

typedef float vec __attribute__((vector_size(4 * V)));
typedef int veci __attribute__((vector_size(4 * V)));
typedef u32 vecu __attribute__((vector_size(4 * V)));
typedef u64 vecl __attribute__((vector_size(4 * V)));
typedef float vec_unaligned __attribute__((vector_size(4 * V), aligned(4), may_alias));

inline vec load(const float* p) {
  return *reinterpret_cast<const vec_unaligned*>(p);
}
inline void store(float* p, vec a) {
  *reinterpret_cast<vec_unaligned*>(p) = a;
}
inline vec broadcast(float a) {
  return a - vec{};
}  // a - 0 keeps the sign of zero, 0 + a would not
inline vec blend(veci mask, vec a, vec b) {
  return mask ? a : b;
}
inline vec relu(vec a) {
  return blend(a <= 0, vec{}, a);
}  // NaN is not <= 0 and stays

#if defined(__AVX512F__)
#include "simd_avx512.h"
#elif defined(__AVX2__)
#include "simd_avx2.h"
#else
#include "simd_generic.h"
#endif

// The first n lanes, any n >= 1: whole vectors take the short way.
inline vec load_first(const float* p, int n) {
  return n >= V ? load(p) : load_part(p, n);
}
inline void store_first(float* p, vec a, int n) {
  if (n >= V) {
    store(p, a);
  } else {
    store_part(p, a, n);
  }
}

// An output larger than this is written with store_stream where its rows are aligned: it would leave the caches before
// it is read again, and a plain store reads the line first. A work item that streams ends with stream_fence.
constexpr i64 STREAM_BYTES = 8 << 20;

inline bool is_aligned(const void* p) {
  return reinterpret_cast<u64>(p) % sizeof(vec) == 0;
}

// Asks for the cache line of p, into the first or the second level; any address will do.
inline void prefetch_l1(const void* p) {
  __builtin_prefetch(p, 0, 3);
}
inline void prefetch_to_write(const void* p) {
  __builtin_prefetch(p, 1, 3);
}
inline void prefetch_l2(const void* p) {
  __builtin_prefetch(p, 0, 2);
}

// A number that is known when a kernel is compiled
template <int N>
struct Constant {
  static constexpr int value = N;
  constexpr operator i64() const { return N; }
};

template <class T>
constexpr T least(T a, T b) {
  return a < b ? a : b;
}
template <class T>
constexpr T most(T a, T b) {
  return a > b ? a : b;
}
inline i64 blocks(i64 n, i64 size) {
  return (n + size - 1) / size;
}

struct LaneNumbers {
  veci lanes{};
  constexpr LaneNumbers() {
    for (int i = 0; i < V; i++) lanes[i] = i;
  }
};
#define LANE_NUMBERS (LaneNumbers().lanes)  // 0, 1, 2, ...

// Lane i of the result is lane lanes[i] of a, or lane lanes[i] - V of b.
inline vec shuffle(vec a, vec b, veci lanes) {
#if defined(__clang__)
  vec result;
  for (int i = 0; i < V; i++) result[i] = lanes[i] < V ? a[lanes[i]] : b[lanes[i] - V];
  return result;
#else
  return __builtin_shuffle(a, b, lanes);
#endif
}

inline float sum(vec a) {
  for (int d = V / 2; d > 0; d /= 2) a += shuffle(a, a, LANE_NUMBERS ^ d);
  return a[0];
}

// The step of a transposition that exchanges squares of D x D: the upper right of (a, b) with the lower left.
template <int D>
inline void exchange(vec& a, vec& b) {
  veci upper{}, lower{};
  for (int i = 0; i < V; i++) {
    upper[i] = i & D ? V + i - D : i;
    lower[i] = i & D ? V + i : i + D;
  }
  const vec kept = shuffle(a, b, upper);
  b = shuffle(a, b, lower);
  a = kept;
}

template <int D>
inline void transpose_squares(vec (&rows)[V]) {
#pragma GCC unroll 16
  for (int i = 0; i < V; i++)
    if (!(i & D)) exchange<D>(rows[i], rows[i + D]);
  if constexpr (D > 1) transpose_squares<D / 2>(rows);
}

// out[j][i] = in[i][j] for i < rows (0 for the others of V) and j < lanes, at most V each; of out's rows the first
// `stored` floats are written. The loops are unrolled, so that the square stays in the registers.
inline void transpose_square(const float* in, i64 in_pitch, int rows, int lanes, float* out, i64 out_pitch,
                             int stored = V) {
  vec square[V];
#pragma GCC unroll 16
  for (int i = 0; i < V; i++) square[i] = i < rows ? load_first(in + i * in_pitch, lanes) : vec{};
  transpose_squares<V / 2>(square);
#pragma GCC unroll 16
  for (int i = 0; i < V; i++)
    if (i < lanes) store_first(out + i * out_pitch, square[i], stored);
}

// out[j * out_pitch + i] = in[i * in_pitch + j] for i < V (0 for i >= rows) and j < n.
inline void transpose_into(const float* in, i64 in_pitch, int rows, i64 n, float* out, i64 out_pitch) {
  for (i64 j = 0; j < n; j += V)
    transpose_square(in + j, in_pitch, rows, static_cast<int>(least<i64>(V, n - j)), out + j * out_pitch, out_pitch);
}

// Runs body(item) for every item in [0, items): see run_items. `work` is the cost of all items.
template <class F>
inline void parallel(i64 items, i64 work, const F& body) {
  cnn::run_items(
      items, work, [](void* context, i64 item) { (*static_cast<const F*>(context))(item); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Splits [0, n) into pieces of `size` and runs body(begin, end) for each. `cost` is the work of one element.
template <class F>
inline void parallel_pieces(i64 n, i64 size, i64 cost, const F& body) {
  parallel(blocks(n, size), n * cost, [&](i64 i) { body(i * size, least(n, (i + 1) * size)); });
}

template <class T>
inline T* scratch(cnn::Purpose purpose, i64 count) {
  return static_cast<T*>(cnn::scratch(purpose, static_cast<size_t>(count) * sizeof(T)));
}
