// c (batch, M, N) = op(a) op(b), then the epilogue over the last axis.
//   Few rows times a transposed b (a linear layer on a small batch): each element of b is used a few times only, so
//   rows of b are multiplied where they lie, vectors along the sum.
//   Else the register tile over blocks of columns of b, packed in the order the tile reads them: a part at a time by
//   the work item that uses it where c has few rows, else once for all rows. A small b of whole vectors is read where
//   it lies.

constexpr i64 GEMM_ROWS = 96;    // of c in a work item
constexpr i64 GEMM_TERMS = 512;  // of a sum before it is added up in memory
constexpr i64 FEW_ROWS = 16;
constexpr i64 DOT_TERMS = 2048;        // 16 rows of a: 128 KB, with 4 rows of b: 32 KB
constexpr i64 LARGE_B = 1 << 18;       // elements: b is not in the second-level cache
constexpr i64 FEW_ROW_BLOCKS = 4;      // up to here packing b again for each costs less than a packed b in memory
constexpr i64 ALONG_ROWS_TERMS = 128;  // of 512 columns: 256 KB
constexpr i64 ROWS_AHEAD = 4;

inline bool has_parts(const Epilogue& e) {
  return e.bias || e.scale || e.shift || e.residual || e.activation.kind;
}

// sums[i][j] += row i of a times row j of b, ROWS x 4 rows `pitch` apart, `terms` long
template <int ROWS>
void dot_rows(const float* a, const float* b, i64 pitch, i64 terms, float (*sums)[4]) {
  vec part[ROWS][4] = {};
  for (i64 k = 0; k < terms; k += V) {
    const int lanes = static_cast<int>(least<i64>(V, terms - k));
    vec bv[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) bv[j] = load_first(b + j * pitch + k, lanes);
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; i++) {
      const vec av = load_first(a + i * pitch + k, lanes);
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) part[i][j] += av * bv[j];
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) sums[i][j] += sum(part[i][j]);
}

// A work item is four columns of c. Where N leaves fewer for the last, it computes four all the same, the last four,
// and writes only its own.
void gemm_of_few_rows(const GemmShape& s, const float* a, const float* b, float* c, const Epilogue& e) {
  const i64 M = s.M, N = s.N, K = s.K, strips = blocks(N, 4);
  parallel(s.batch * strips, s.batch * M * N * K, [&](i64 item) {
    const i64 batch = item / strips, n = least(item % strips * 4, N - 4), skip = item % strips * 4 - n;
    const float* rows_a = a + (s.shared_a ? 0 : batch * M * K);
    const float* rows_b = b + (s.shared_b ? 0 : batch * N * K) + n * K;
    float sums[FEW_ROWS][4] = {};
    for (i64 k = 0; k < K; k += DOT_TERMS) {
      const i64 terms = least(DOT_TERMS, K - k);
      i64 m = 0;
      for (; m + 4 <= M; m += 4) dot_rows<4>(rows_a + m * K + k, rows_b + k, K, terms, sums + m);
      for (; m < M; m++) dot_rows<1>(rows_a + m * K + k, rows_b + k, K, terms, sums + m);
    }
    for (i64 m = 0; m < M; m++)
      for (i64 j = skip; j < 4; j++) {
        const i64 at = (batch * M + m) * N + n + j;
        c[at] = finish(e, at, static_cast<int>(n + j), sums[m][j]);
      }
  });
}

struct GemmPlan {
  GemmShape s;
  const float *a, *b;
  float *c, *packed;  // packed null: b is read where it lies, or items pack it
  Epilogue epilogue;
  Columns cut;
  i64 row_blocks, height;  // of a work item
  i64 strip;               // blocks of columns of a work item
  i64 part;                // terms of a sum before it is added up in memory
  bool packs_here;         // an item packs what it needs of b, a part of the sum at a time
  const i64 *row, *at;     // (height,) addresses in a and c
  i64 padded_N() const { return blocks(s.N, V) * V; }
};

// Terms k..k+terms-1 of column blocks first..last-1 of op(b), block after block as (terms, whole vectors).
void pack_blocks(const GemmPlan& plan, i64 matrix, i64 first, i64 last, i64 k, i64 terms, float* out) {
  const GemmShape& s = plan.s;
  const i64 width = plan.cut.width;
  const float* b = plan.b + matrix * s.K * s.N;
  const auto lanes_of = [&](i64 block) { return static_cast<int>(least<i64>(width, s.N - block * width)); };
  if (s.transpose_b) {
    for (i64 block = first; block < last; block++) {
      const int lanes = lanes_of(block);
      const i64 pitch = blocks(lanes, V) * V;
      for (int v = 0; v < lanes; v += V)
        transpose_into(b + (block * width + v) * s.K + k, s.K, lanes - v, terms, out + v, pitch);
      out += terms * pitch;
    }
    return;
  }
  for (i64 i = 0; i < terms; i++) {  // a row at a time, as it lies, while rows to come are on their way
    const float* in = b + (k + i) * s.N;
    for (i64 block = first; block < last; block++) {
      const int lanes = lanes_of(block);
      float* to = out + (block - first) * terms * width + i * (blocks(lanes, V) * V);
      for (int v = 0; v < lanes; v += V) {
        prefetch_l1(in + ROWS_AHEAD * s.N + block * width + v);
        store(to + v, load_first(in + block * width + v, lanes - v));
      }
    }
  }
}

// A block of columns of op(b), part after part of the sum.
void pack_columns(const GemmPlan& plan, i64 item) {
  const i64 matrix = item / plan.cut.count, block = item % plan.cut.count, n = block * plan.cut.width;
  const i64 width = blocks(least<i64>(plan.cut.width, plan.s.N - n), V) * V;
  float* out = plan.packed + (matrix * plan.padded_N() + n) * plan.s.K;
  for (i64 k = 0; k < plan.s.K; k += plan.part)
    pack_blocks(plan, matrix, block, block + 1, k, least(plan.part, plan.s.K - k), out + k * width);
}

void gemm_item(const GemmPlan& plan, i64 item) {
  const GemmShape& s = plan.s;
  const i64 M = s.M, N = s.N, K = s.K, strips = blocks(plan.cut.count, plan.strip);
  const i64 batch = item / strips / plan.row_blocks, m = item / strips % plan.row_blocks * plan.height;
  const i64 first = item % strips * plan.strip, last = least<i64>(plan.cut.count, first + plan.strip);
  const i64 matrix = s.shared_b ? 0 : batch, no_run = 0;
  const Epilogue& e = plan.epilogue;
  Operands o;
  o.a_run = &no_run;
  o.a_step = s.transpose_a ? M : 1;
  o.b_run = nullptr;
  o.runs = 1;
  TileOutput out;
  float* own = nullptr;
  for (i64 k = 0; k < K; k += plan.part) {
    o.a = plan.a + (s.shared_a ? 0 : batch * M * K) + (s.transpose_a ? m + k * M : m * K + k);
    o.length = least(plan.part, K - k);
    if (plan.packs_here) {
      own = scratch<float>(cnn::PACKED_WEIGHT, o.length * (last - first) * plan.cut.width);
      pack_blocks(plan, matrix, first, last, k, o.length, own);
    }
    out.accumulate = k > 0;
    out.finishes = has_parts(e) && k + plan.part >= K;
    for (i64 block = first; block < last; block++) {
      const i64 n = block * plan.cut.width, base = (batch * M + m) * N + n;
      out.lanes = static_cast<int>(least<i64>(plan.cut.width, N - n));
      const i64 width = blocks(out.lanes, V) * V;
      o.b_step = own || plan.packed ? width : N;
      o.b = own           ? own + (block - first) * o.length * plan.cut.width
            : plan.packed ? plan.packed + (matrix * plan.padded_N() + n) * K + k * width
                          : plan.b + (matrix * K + k) * N + n;
      out.y = plan.c + base;
      out.epilogue = {e.bias ? e.bias + n : nullptr, e.scale ? e.scale + n : nullptr, e.shift ? e.shift + n : nullptr,
                      e.residual ? e.residual + base : nullptr, e.activation};
      multiply_rows(o, least(plan.height, M - m), plan.row, plan.at, out);
    }
  }
}

void gemm(const GemmShape& s, const float* a, const float* b, float* c, const Epilogue& e) {
  const i64 M = s.M, N = s.N, K = s.K;
  if (M <= FEW_ROWS && N >= 4 && !s.transpose_a && s.transpose_b && (M <= 4 || N * K >= LARGE_B))
    return gemm_of_few_rows(s, a, b, c, e);
  GemmPlan plan{s, a, b, c, nullptr, e, columns_for(s.N), blocks(M, GEMM_ROWS), 0, 1, 0, false, nullptr, nullptr};
  plan.height = blocks(M, plan.row_blocks);
  const bool large = N * K >= LARGE_B;
  const bool packs = s.transpose_b || N % V != 0 || plan.row_blocks > 1 || (large && M > 2);
  plan.packs_here = packs && plan.row_blocks <= FEW_ROW_BLOCKS;
  // a large b is read along its rows: many columns and few terms at a time
  const bool along_rows = large && !s.transpose_b && (plan.packs_here || !packs);
  plan.part = along_rows ? (packs ? ALONG_ROWS_TERMS : 64) : blocks(K, blocks(K, GEMM_TERMS));
  plan.strip = along_rows ? least<i64>(8, blocks(plan.cut.count, 8)) : 1;
  i64* row = scratch<i64>(cnn::OFFSETS, 2 * plan.height);
  for (i64 m = 0; m < plan.height; m++) {
    row[m] = s.transpose_a ? m : m * K;
    row[plan.height + m] = m * N;
  }
  plan.row = row;
  plan.at = row + plan.height;
  if (packs && !plan.packs_here) {
    const i64 matrices = s.shared_b ? 1 : s.batch, size = matrices * plan.padded_N() * K;
    plan.packed = scratch<float>(cnn::PACKED_WEIGHT, size);
    parallel(matrices * plan.cut.count, size * 2, [&](i64 item) { pack_columns(plan, item); });
  }
  parallel(s.batch * plan.row_blocks * blocks(plan.cut.count, plan.strip), s.batch * M * N * K / 4,
           [&](i64 item) { gemm_item(plan, item); });
}
