// ldmatrix, stmatrix and mma.sync: a warp's registers hold small matrices, element by element where the PTX manual says
// ("Matrix Fragments for mma.m16n8k16", ...). Letters: a (16, k), b (k, 8), d (16, 8); l lane.
#include "bfloat16.h"
#include "count.h"
#include "half.h"
#include "race.h"
#include "report.h"
#include "worker.h"

namespace emulator {

static float element_to_float(Element element, uint16_t bits) {
  return element == Element::bf16 ? bfloat16_to_float(bits) : half_to_float(bits);
}

// tf32 is a float whose lower 13 bits the tensor core does not read
static float tf32_to_float(uint32_t bits) {
  return bits_as<float>(bits & 0xffffe000u);
}

namespace {
struct LoadMatrices {
  const char* row;
  uint32_t* fragment;
  int matrices;
  bool transpose;
};

struct StoreMatrices {
  char* row;
  const uint32_t* fragment;
  int matrices;
  bool transpose;
};

struct Multiply {
  Element element;
  int k;
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};
}  // namespace

// Row and column, in its 8x8 matrix, of element i (0 or 1) of lane l's register
static int matrix_row(int l, int i, bool transpose) {
  return transpose ? l % 4 * 2 + i : l / 4;
}
static int matrix_column(int l, int i, bool transpose) {
  return matrix_row(l, i, !transpose);
}

static void load_all(Fiber* first) {
  const LoadMatrices* lanes[kWarp];
  for (Fiber* f = first; f; f = f->next) lanes[f->lane] = static_cast<LoadMatrices*>(f->operand);
  for (Fiber* f = first; f; f = f->next) {
    const int l = f->lane;
    const LoadMatrices& mine = *lanes[l];
    for (int m = 0; m < mine.matrices; m++) {
      uint16_t pair[2];
      for (int i = 0; i < 2; i++) {
        const int row = matrix_row(l, i, mine.transpose), column = matrix_column(l, i, mine.transpose);
        std::memcpy(&pair[i], lanes[m * 8 + row]->row + 2 * column, 2);
      }
      mine.fragment[m] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
  }
}

static void store_all(Fiber* first) {
  const StoreMatrices* lanes[kWarp];
  for (Fiber* f = first; f; f = f->next) lanes[f->lane] = static_cast<StoreMatrices*>(f->operand);
  for (int l = 0; l < kWarp; l++) {
    const StoreMatrices& mine = *lanes[l];
    for (int m = 0; m < mine.matrices; m++) {
      for (int i = 0; i < 2; i++) {
        const int row = matrix_row(l, i, mine.transpose), column = matrix_column(l, i, mine.transpose);
        const uint16_t element = static_cast<uint16_t>(mine.fragment[m] >> 16 * i);
        std::memcpy(lanes[m * 8 + row]->row + 2 * column, &element, 2);
      }
    }
  }
}

// The row of 16 bytes whose address the running lane gives; the lanes behind 8 * matrices give none
static void check_row(const void* row, const char* what, Site site) {
  const uint32_t offset = shared_offset(row, site);
  if (offset % 16) fail(kind::misaligned, site, "%s of a row at shared offset %u, no multiple of 16", what, offset);
  if (offset + 16 > worker->shared_bytes)
    fail(kind::out_of_bounds, site, "%s of a row past the end of the block's %zu bytes of shared memory", what,
         worker->shared_bytes);
}

static void check_whole_warp(const char* what, Site site) {
  if (this_block().warps[running()->warp].live != 0xffffffffu)
    fail(kind::warp_mask, site, "%s needs all 32 lanes of its warp, some do not exist or have returned", what);
}

void load_matrices(uint32_t* fragment, int matrices, bool transpose, const void* row, Site site) {
  if (running()->lane < 8 * matrices) {
    check_row(row, "ldmatrix", site);
    race::read(row, 16, site);
  }
  count::executed(count::Kind::ldmatrix, static_cast<size_t>(4 * matrices), row, site, __builtin_return_address(0));
  LoadMatrices operand{static_cast<const char*>(row), fragment, matrices, transpose};
  check_whole_warp("ldmatrix", site);
  meet_warp(0xffffffffu, "ldmatrix", site, &operand, load_all);
}

void store_matrices(void* row, const uint32_t* fragment, int matrices, bool transpose, Site site) {
  if (running()->lane < 8 * matrices) {
    check_row(row, "stmatrix", site);
    race::write(row, 16, site);
  }
  count::executed(count::Kind::stmatrix, static_cast<size_t>(4 * matrices), row, site, __builtin_return_address(0));
  StoreMatrices operand{static_cast<char*>(row), fragment, matrices, transpose};
  check_whole_warp("stmatrix", site);
  meet_warp(0xffffffffu, "stmatrix", site, &operand, store_all);
}

static void multiply_all(Fiber* first) {
  const Multiply* lanes[kWarp];
  for (Fiber* f = first; f; f = f->next) lanes[f->lane] = static_cast<Multiply*>(f->operand);
  const Element element = lanes[0]->element;
  const int k = lanes[0]->k;
  float a[16][16], b[16][8];
  for (int l = 0; l < kWarp; l++) {
    const int g = l / 4, t = l % 4;
    if (element == Element::tf32) {
      for (int i = 0; i < 4; i++) a[g + i % 2 * 8][t + i / 2 * 4] = tf32_to_float(lanes[l]->a[i]);
      for (int i = 0; i < 2; i++) b[t + i * 4][g] = tf32_to_float(lanes[l]->b[i]);
      continue;
    }
    for (int half = 0; half < 2; half++) {  // of a register
      const int column = t * 2 + half, shift = 16 * half;
      for (int i = 0; i < k / 4; i++)
        a[g + i % 2 * 8][column + i / 2 * 8] =
            element_to_float(element, static_cast<uint16_t>(lanes[l]->a[i] >> shift));
      for (int i = 0; i < k / 8; i++)
        b[column + i * 8][g] = element_to_float(element, static_cast<uint16_t>(lanes[l]->b[i] >> shift));
    }
  }
  for (int row = 0; row < 16; row++) {
    float sum[8] = {};
    for (int i = 0; i < k; i++)
      for (int n = 0; n < 8; n++) sum[n] += a[row][i] * b[i][n];
    for (int n = 0; n < 8; n++) lanes[row % 8 * 4 + n / 2]->d[row / 8 * 2 + n % 2] += sum[n];
  }
}

void multiply_fragments(Element element, int k, float* d, const uint32_t* a, const uint32_t* b, Site site) {
  Multiply operand{element, k, d, a, b};
  check_whole_warp("mma.sync", site);
  const int multiply_adds = 16 * 8 * k / kWarp;  // a lane's share
  count::executed(count::Kind::mma, static_cast<size_t>(multiply_adds), d, site, __builtin_return_address(0));
  meet_warp(0xffffffffu, "mma.sync", site, &operand, multiply_all);
}

}  // namespace emulator
