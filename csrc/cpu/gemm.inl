// c (batch, M, N) = op(a) op(b), then the epilogue over the last axis.

void gemm(const GemmShape& s, const float* a, const float* b, float* c, const Epilogue& e) {
  const i64 M = s.M, N = s.N, K = s.K;
  parallel(s.batch * M, s.batch * M * N * K, [&](i64 row) {
    const i64 batch = row / M, m = row % M;
    const float* pa = a + (s.shared_a ? 0 : batch * M * K) + (s.transpose_a ? m : m * K);
    const float* pb = b + (s.shared_b ? 0 : batch * N * K);
    const i64 step = s.transpose_a ? M : 1;
    for (i64 n = 0; n < N; n++) {
      float total = 0;
      for (i64 k = 0; k < K; k++) total += pa[k * step] * (s.transpose_b ? pb[n * K + k] : pb[k * N + n]);
      c[row * N + n] = finish(e, row * N + n, static_cast<int>(n), total);
    }
  });
}
