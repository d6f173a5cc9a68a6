// __half: IEEE binary16 kept as its 16 bits; arithmetic through float, rounded to nearest even once.
// float has more than twice binary16's significand plus two bits, so +, -, * and / round as if computed exactly.
#pragma once

#include <cstdint>

#include "intrinsics.h"
#include "vector_types.h"

namespace emulator {

inline float half_to_float(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  // the exponent moves from bias 15 to bias 127 by a multiplication, which also normalises subnormal numbers
  const float scaled = bits_as<float>(magnitude << 13) * 0x1p112f;
  const uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u | (magnitude & 0x3ffu) << 13 : bits_as<uint32_t>(scaled);
  return bits_as<float>(sign | special);
}

inline uint16_t float_to_half(float f) {
  const uint32_t bits = bits_as<uint32_t>(f), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fffu;  // NaN: CUDA's canonical one, without sign
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more round to infinity
  if (magnitude < 0x38800000u) {  // below 2^-14 binary16 is subnormal: adding 0.5 rounds at 2^-24, its last place
    const float shifted = bits_as<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_as<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t odd = magnitude >> 13 & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

}  // namespace emulator

struct __half_raw {
  unsigned short x;
};

struct __half {
  uint16_t bits;
  __half() = default;
  __half(float v) : bits(emulator::float_to_half(v)) {}
  __half(double v) : __half(static_cast<float>(v)) {}
  __half(int v) : __half(static_cast<float>(v)) {}
  __half(__half_raw raw) : bits(raw.x) {}
  operator float() const { return emulator::half_to_float(bits); }
};
using half = __half;

struct alignas(4) __half2 {
  __half x, y;
  __half2() = default;
  __half2(__half x, __half y) : x(x), y(y) {}
};
using half2 = __half2;

inline __half operator+(__half a, __half b) {
  return __half(float(a) + float(b));
}
inline __half operator-(__half a, __half b) {
  return __half(float(a) - float(b));
}
inline __half operator*(__half a, __half b) {
  return __half(float(a) * float(b));
}
inline __half operator/(__half a, __half b) {
  return __half(float(a) / float(b));
}
inline __half operator-(__half a) {
  return __half_raw{static_cast<unsigned short>(a.bits ^ 0x8000u)};
}
inline __half& operator+=(__half& a, __half b) {
  return a = a + b;
}
inline __half& operator-=(__half& a, __half b) {
  return a = a - b;
}
inline __half& operator*=(__half& a, __half b) {
  return a = a * b;
}
inline __half& operator/=(__half& a, __half b) {
  return a = a / b;
}
inline bool operator==(__half a, __half b) {
  return float(a) == float(b);
}
inline bool operator!=(__half a, __half b) {
  return float(a) != float(b);
}
inline bool operator<(__half a, __half b) {
  return float(a) < float(b);
}
inline bool operator<=(__half a, __half b) {
  return float(a) <= float(b);
}
inline bool operator>(__half a, __half b) {
  return float(a) > float(b);
}
inline bool operator>=(__half a, __half b) {
  return float(a) >= float(b);
}

inline float __half2float(__half v) {
  return float(v);
}
inline __half __float2half(float v) {
  return __half(v);
}
inline __half __float2half_rn(float v) {
  return __half(v);
}
inline unsigned short __half_as_ushort(__half v) {
  return v.bits;
}
inline __half __ushort_as_half(unsigned short v) {
  return __half_raw{v};
}
inline __half __hadd(__half a, __half b) {
  return a + b;
}
inline __half __hsub(__half a, __half b) {
  return a - b;
}
inline __half __hmul(__half a, __half b) {
  return a * b;
}
inline __half __hfma(__half a, __half b, __half c) {
  // exact in double (22-bit product, exponents within range), so only the last step rounds: through float with the
  // sticky bit of what it dropped, which makes the second rounding right
  const double exact = double(float(a)) * double(float(b)) + double(float(c));
  float rounded = static_cast<float>(exact);
  if (std::isfinite(rounded) && double(rounded) != exact) {
    uint32_t bits = emulator::bits_as<uint32_t>(rounded);
    const bool away = std::fabs(double(rounded)) > std::fabs(exact);
    bits = (away ? bits - 1 : bits) | 1u;
    rounded = emulator::bits_as<float>(bits);
  }
  return __half(rounded);
}
inline __half __hneg(__half a) {
  return -a;
}
inline __half __habs(__half a) {
  return __half_raw{static_cast<unsigned short>(a.bits & 0x7fffu)};
}
inline bool __hisnan(__half a) {
  return (a.bits & 0x7fffu) > 0x7c00u;
}
inline bool __hlt(__half a, __half b) {
  return a < b;
}
inline bool __hgt(__half a, __half b) {
  return a > b;
}
inline bool __heq(__half a, __half b) {
  return a == b;
}
inline __half __hmax(__half a, __half b) {
  return __hisnan(a) ? b : __hisnan(b) ? a : a < b ? b : a;
}
inline __half __hmin(__half a, __half b) {
  return __hisnan(a) ? b : __hisnan(b) ? a : b < a ? b : a;
}

inline __half2 make_half2(__half x, __half y) {
  return {x, y};
}
inline __half2 __halves2half2(__half x, __half y) {
  return {x, y};
}
inline __half2 __half2half2(__half v) {
  return {v, v};
}
inline __half2 __float2half2_rn(float v) {
  return {__half(v), __half(v)};
}
inline __half2 __floats2half2_rn(float x, float y) {
  return {__half(x), __half(y)};
}
inline __half2 __float22half2_rn(float2 v) {
  return {__half(v.x), __half(v.y)};
}
inline float2 __half22float2(__half2 v) {
  return {float(v.x), float(v.y)};
}
inline float __low2float(__half2 v) {
  return float(v.x);
}
inline float __high2float(__half2 v) {
  return float(v.y);
}
inline __half __low2half(__half2 v) {
  return v.x;
}
inline __half __high2half(__half2 v) {
  return v.y;
}
inline __half2 __hadd2(__half2 a, __half2 b) {
  return {a.x + b.x, a.y + b.y};
}
inline __half2 __hsub2(__half2 a, __half2 b) {
  return {a.x - b.x, a.y - b.y};
}
inline __half2 __hmul2(__half2 a, __half2 b) {
  return {a.x * b.x, a.y * b.y};
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
inline __half2 __hmax2(__half2 a, __half2 b) {
  return {__hmax(a.x, b.x), __hmax(a.y, b.y)};
}
inline __half2 __hmin2(__half2 a, __half2 b) {
  return {__hmin(a.x, b.x), __hmin(a.y, b.y)};
}
