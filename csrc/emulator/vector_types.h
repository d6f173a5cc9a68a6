// CUDA's built-in vector types, with CUDA's alignments (a misaligned float4 is an error there, so it must be one here).
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define EMULATOR_VECTOR_TYPES(scalar, prefix, align2, align4)                 \
  struct alignas(align2) prefix##2 {                                          \
    scalar x, y;                                                              \
  };                                                                          \
  struct prefix##3 {                                                          \
    scalar x, y, z;                                                           \
  };                                                                          \
  struct alignas(align4) prefix##4 {                                          \
    scalar x, y, z, w;                                                        \
  };                                                                          \
  inline prefix##2 make_##prefix##2(scalar x, scalar y) {                     \
    return {x, y};                                                            \
  }                                                                           \
  inline prefix##3 make_##prefix##3(scalar x, scalar y, scalar z) {           \
    return {x, y, z};                                                         \
  }                                                                           \
  inline prefix##4 make_##prefix##4(scalar x, scalar y, scalar z, scalar w) { \
    return {x, y, z, w};                                                      \
  }

EMULATOR_VECTOR_TYPES(float, float, 8, 16)
EMULATOR_VECTOR_TYPES(int, int, 8, 16)
EMULATOR_VECTOR_TYPES(signed char, char, 2, 4)
EMULATOR_VECTOR_TYPES(unsigned char, uchar, 2, 4)
EMULATOR_VECTOR_TYPES(short, short, 4, 8)
EMULATOR_VECTOR_TYPES(unsigned short, ushort, 4, 8)
#undef EMULATOR_VECTOR_TYPES

// uint3 exists already: it is the type of threadIdx
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) {
  return {x, y, z};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

struct alignas(16) double2 {
  double x, y;
};
inline double2 make_double2(double x, double y) {
  return {x, y};
}

struct alignas(16) longlong2 {
  long long x, y;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
inline longlong2 make_longlong2(long long x, long long y) {
  return {x, y};
}
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) {
  return {x, y};
}
