// The matrix instructions: ldmatrix, stmatrix, mma.sync and wgmma. Fragments are laid out as the PTX manual defines
// them.
#pragma once

#include "intrinsics.h"
#include "thread.h"

namespace emulator {

enum class Element { f16, bf16, tf32 };

// Rounded to 10 bits of significand, ties away from zero: half of the last place is added to the magnitude
inline uint32_t float_to_tf32(float v) {
  const uint32_t bits = bits_as<uint32_t>(v);
  return v == v ? (bits + 0x1000u) & 0xffffe000u : 0x7fffffffu;
}

// matrices 8x8 of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8
void load_matrices(uint32_t* fragment, int matrices, bool transpose, const void* row, Site site);
// the other way
void store_matrices(void* row, const uint32_t* fragment, int matrices, bool transpose, Site site);

// d (16, 8) += a (16, k) @ b (k, 8); a_registers and b_registers 32-bit words a lane, d 4 floats a lane
void multiply_fragments(Element element, int k, float* d, const uint32_t* a, const uint32_t* b, Site site);

// d (64, n) (+)= a (64, k) @ b (k, n), operands in shared memory behind 64-bit descriptors; k is 32 bytes long
struct WarpgroupProduct {
  Element element;
  int n;
  bool accumulate;
  bool transpose_a, transpose_b;  // MN-major operands
};
void warpgroup_multiply(const WarpgroupProduct& product, float* d, uint64_t a, uint64_t b, Site site);
void warpgroup_fence(Site site);
void warpgroup_commit(Site site);
void warpgroup_wait(int groups_still_in_flight, Site site);

}  // namespace emulator
