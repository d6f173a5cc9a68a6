// ldmatrix and mma.sync: a warp's registers hold small matrices, element by element where the PTX manual says
// ("Matrix Fragments for mma.m16n8k16", ...). Letters: a (16, k), b (k, 8), d (16, 8); l lane.
#include "bfloat16.h"
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

struct Multiply {
  Element element;
  int k;
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};
}  // namespace

static void load_all(Fiber* first) {
  const LoadMatrices* lanes[kWarp];
  for (Fiber* f = first; f; f = f->next) lanes[f->lane] = static_cast<LoadMatrices*>(f->operand);
  for (Fiber* f = first; f; f = f->next) {
    const int l = f->lane;
    const LoadMatrices& mine = *lanes[l];
    for (int m = 0; m < mine.matrices; m++) {
      uint16_t pair[2];
      for (int i = 0; i < 2; i++) {
        const int along = l % 4 * 2 + i, across = l / 4;
        const int row = mine.transpose ? along : across, column = mine.transpose ? across : along;
        std::memcpy(&pair[i], lanes[m * 8 + row]->row + 2 * column, 2);
      }
      mine.fragment[m] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
  }
}

void load_matrices(uint32_t* fragment, int matrices, bool transpose, const void* row, Site site) {
  Fiber* me = running();
  if (me->lane < 8 * matrices) {  // the other lanes' addresses are not used
    const uint32_t offset = shared_offset(row, site);
    if (offset % 16) fail(kind::misaligned, site, "ldmatrix of a row at shared offset %u, no multiple of 16", offset);
    if (offset + 16 > worker->shared_bytes)
      fail(kind::out_of_bounds, site, "ldmatrix reads past the end of the block's %zu bytes of shared memory",
           worker->shared_bytes);
    race::read(row, 16, site);
  }
  LoadMatrices operand{static_cast<const char*>(row), fragment, matrices, transpose};
  if (worker->warps[me->warp].live != 0xffffffffu)
    fail(kind::warp_mask, site, "ldmatrix needs all 32 lanes of its warp, some do not exist or have returned");
  meet_warp(0xffffffffu, "ldmatrix", site, &operand, load_all);
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
  if (worker->warps[running()->warp].live != 0xffffffffu)
    fail(kind::warp_mask, site, "mma.sync needs all 32 lanes of its warp, some do not exist or have returned");
  meet_warp(0xffffffffu, "mma.sync", site, &operand, multiply_all);
}

}  // namespace emulator
