// c (batch, M, N) = op(a) op(b), then the epilogue over the last axis: the register tile over blocks of b that stay in
// the second-level cache. b is read where it lies if its columns come in whole vectors (its rows then are the tile's
// rows of b), else packed, and always packed where it is transposed.

constexpr i64 GEMM_ROWS = 96;    // of c in a work item
constexpr i64 GEMM_TERMS = 512;  // of a sum before it is added up in memory

// Columns n .. n + lanes of op(b), terms first .. first + terms, as (terms, whole vectors).
inline void pack_b(const GemmShape& s, const float* b, i64 n, int lanes, i64 first, i64 terms, float* packed) {
  const i64 width = blocks(lanes, V) * V;
  if (s.transpose_b) {
    for (int v = 0; v < lanes; v += V)
      transpose_into(b + (n + v) * s.K + first, s.K, lanes - v, terms, packed + v, width);
    return;
  }
  for (i64 k = 0; k < terms; k++)
    for (int v = 0; v < lanes; v += V)
      store(packed + k * width + v, load_first(b + (first + k) * s.N + n + v, lanes - v));
}

void gemm(const GemmShape& shape, const float* a, const float* b, float* c, const Epilogue& e) {
  const GemmShape s = shape;
  const i64 M = s.M, N = s.N, K = s.K;
  const Columns cut = columns_for(s.N);
  const i64 row_blocks = blocks(M, GEMM_ROWS), height = blocks(M, row_blocks);
  const i64 part = blocks(K, blocks(K, GEMM_TERMS));
  i64* rows = scratch<i64>(cnn::OFFSETS, 2 * height);
  i64* at = rows + height;
  for (i64 m = 0; m < height; m++) {
    rows[m] = s.transpose_a ? m : m * K;
    at[m] = m * N;
  }
  const i64 packed_N = blocks(N, V) * V;
  const i64 items = s.batch * row_blocks * cut.count;
  // b packed once for all rows of c, block of columns by block of columns, part of the sum by part of the sum
  const bool packs = s.transpose_b || N % V != 0 || row_blocks > 1;
  const i64 matrices = s.shared_b ? 1 : s.batch;
  float* packed = packs ? scratch<float>(cnn::PACKED_WEIGHT, matrices * packed_N * K) : nullptr;
  if (packs)
    parallel(matrices * cut.count, matrices * packed_N * K * 2, [=](i64 item) {
      const i64 matrix = item / cut.count, n = item % cut.count * cut.width;
      const int lanes = static_cast<int>(least<i64>(cut.width, N - n));
      float* out = packed + (matrix * packed_N + n) * K;
      for (i64 k = 0; k < K; k += part) {
        const i64 terms = least(part, K - k);
        pack_b(s, b + matrix * K * N, n, lanes, k, terms, out);
        out += terms * blocks(lanes, V) * V;
      }
    });
  const bool has_epilogue = e.bias || e.scale || e.shift || e.residual || e.relu;
  const i64 no_run = 0;
  parallel(items, s.batch * M * N * K / 4, [&](i64 item) {
    const i64 n = item % cut.count * cut.width, batch = item / cut.count / row_blocks;
    const i64 m = item / cut.count % row_blocks * height;
    const int lanes = static_cast<int>(least<i64>(cut.width, N - n));
    const i64 width = blocks(lanes, V) * V, base = (batch * M + m) * N + n;
    Operands o;
    o.a = a + (s.shared_a ? 0 : batch * M * K) + (s.transpose_a ? m : m * K);
    o.a_run = &no_run;
    o.a_step = s.transpose_a ? M : 1;
    o.b_run = nullptr;
    o.b_step = packs ? width : N;
    o.runs = 1;
    const i64 matrix = s.shared_b ? 0 : batch;
    o.b = packs ? packed + (matrix * packed_N + n) * K : b + matrix * K * N + n;
    TileOutput out;
    out.y = c + base;
    out.lanes = lanes;
    out.epilogue = {e.bias ? e.bias + n : nullptr, e.scale ? e.scale + n : nullptr, e.shift ? e.shift + n : nullptr,
                    e.residual ? e.residual + base : nullptr, e.relu};
    for (i64 k = 0; k < K; k += part) {
      o.length = least(part, K - k);
      out.accumulate = k > 0;
      out.finishes = has_epilogue && k + part >= K;
      multiply_rows(o, least(height, M - m), rows, at, out);
      o.a += o.length * o.a_step;
      o.b += o.length * o.b_step;
    }
  });
}
