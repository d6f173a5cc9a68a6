// Arithmetic intrinsics. Each computes what CUDA's documentation defines; the approximate ones (__expf, rsqrtf) are
// computed exactly rounded or nearly so, so a kernel's error on the GPU may be a few units in the last place larger.
#pragma once

#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulator {

template <class To, class From>
inline To bits_as(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To r;
  std::memcpy(&r, &v, sizeof(r));
  return r;
}

// float to integer as the GPU does it: NaN is 0, what does not fit saturates
inline int to_int(float v) {
  if (v != v) return 0;
  if (v >= 2147483648.f) return INT_MAX;
  if (v < -2147483648.f) return INT_MIN;
  return static_cast<int>(v);
}
inline unsigned to_unsigned(float v) {
  if (!(v > 0.f)) return 0;
  return v >= 4294967296.f ? UINT_MAX : static_cast<unsigned>(v);
}

}  // namespace emulator

inline unsigned __float_as_uint(float v) {
  return emulator::bits_as<unsigned>(v);
}
inline int __float_as_int(float v) {
  return emulator::bits_as<int>(v);
}
inline float __uint_as_float(unsigned v) {
  return emulator::bits_as<float>(v);
}
inline float __int_as_float(int v) {
  return emulator::bits_as<float>(v);
}
inline long long __double_as_longlong(double v) {
  return emulator::bits_as<long long>(v);
}
inline double __longlong_as_double(long long v) {
  return emulator::bits_as<double>(v);
}

inline int __float2int_rn(float v) {
  return emulator::to_int(std::nearbyint(v));
}
inline int __float2int_rz(float v) {
  return emulator::to_int(std::trunc(v));
}
inline int __float2int_rd(float v) {
  return emulator::to_int(std::floor(v));
}
inline int __float2int_ru(float v) {
  return emulator::to_int(std::ceil(v));
}
inline unsigned __float2uint_rn(float v) {
  return emulator::to_unsigned(std::nearbyint(v));
}
inline unsigned __float2uint_rz(float v) {
  return emulator::to_unsigned(std::trunc(v));
}
inline float __int2float_rn(int v) {
  return static_cast<float>(v);
}
inline float __uint2float_rn(unsigned v) {
  return static_cast<float>(v);
}
inline float __double2float_rn(double v) {
  return static_cast<float>(v);
}

inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float __frcp_rn(float a) {
  return 1.f / a;
}
inline float __fsqrt_rn(float a) {
  return std::sqrt(a);
}
inline float __frsqrt_rn(float a) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a)));
}
inline float rsqrtf(float a) {
  return __frsqrt_rn(a);
}
inline float __saturatef(float a) {
  return a > 0.f ? (a < 1.f ? a : 1.f) : 0.f;
}  // NaN is 0
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __expf(float a) {
  return std::exp(a);
}
inline float __exp10f(float a) {
  return std::pow(10.f, a);
}
inline float __logf(float a) {
  return std::log(a);
}
inline float __log2f(float a) {
  return std::log2(a);
}
inline float __powf(float a, float b) {
  return std::pow(a, b);
}
inline float __sinf(float a) {
  return std::sin(a);
}
inline float __cosf(float a) {
  return std::cos(a);
}
inline float __tanf(float a) {
  return std::tan(a);
}

inline int __mulhi(int a, int b) {
  return static_cast<int>((static_cast<long long>(a) * b) >> 32);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline int __mul24(int a, int b) {
  return (a << 8 >> 8) * (b << 8 >> 8);
}

inline int __popc(unsigned v) {
  return __builtin_popcount(v);
}
inline int __popcll(unsigned long long v) {
  return __builtin_popcountll(v);
}
inline int __ffs(int v) {
  return __builtin_ffs(v);
}
inline int __ffsll(long long v) {
  return __builtin_ffsll(v);
}
inline int __clz(int v) {
  return v ? __builtin_clz(static_cast<unsigned>(v)) : 32;
}
inline int __clzll(long long v) {
  return v ? __builtin_clzll(static_cast<unsigned long long>(v)) : 64;
}
inline unsigned __brev(unsigned v) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= (v >> i & 1u) << (31 - i);
  return r;
}
// byte i of the result is byte (selector's nibble i) of the eight bytes y:x
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long long bytes = static_cast<unsigned long long>(y) << 32 | x;
  unsigned r = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned nibble = selector >> 4 * i & 15u;
    unsigned byte = static_cast<unsigned>(bytes >> 8 * (nibble & 7u)) & 255u;
    if (nibble & 8u) byte = byte & 128u ? 255u : 0u;  // bit 3 replicates the sign
    r |= byte << 8 * i;
  }
  return r;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) << (shift & 31u) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (shift & 31u));
}

// CUDA has min and max for every arithmetic type, without <algorithm>; a NaN loses, as in fminf and fmaxf
inline int min(int a, int b) {
  return b < a ? b : a;
}
inline int max(int a, int b) {
  return a < b ? b : a;
}
inline unsigned min(unsigned a, unsigned b) {
  return b < a ? b : a;
}
inline unsigned max(unsigned a, unsigned b) {
  return a < b ? b : a;
}
inline long long min(long long a, long long b) {
  return b < a ? b : a;
}
inline long long max(long long a, long long b) {
  return a < b ? b : a;
}
inline unsigned long long min(unsigned long long a, unsigned long long b) {
  return b < a ? b : a;
}
inline unsigned long long max(unsigned long long a, unsigned long long b) {
  return a < b ? b : a;
}
inline float min(float a, float b) {
  return std::fmin(a, b);
}
inline float max(float a, float b) {
  return std::fmax(a, b);
}
inline double min(double a, double b) {
  return std::fmin(a, b);
}
inline double max(double a, double b) {
  return std::fmax(a, b);
}

using std::isfinite;
using std::isinf;
using std::isnan;

// loads and stores with a cache hint
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline T __ldcg(const T* p) {
  return *p;
}
template <class T>
inline void __stcs(T* p, T v) {
  *p = v;
}
template <class T>
inline void __stwt(T* p, T v) {
  *p = v;
}
