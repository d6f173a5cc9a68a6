// Dropout: element i is kept where word i % 4 of Philox4x32-10 at counter (i / 4, offset) under the key `seed` is at
// least the threshold, and is then scaled; else 0. A pure function of i, so the work can be split anywhere.
// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. 20 products a 4 elements.

constexpr int COUNTERS = 2 * V;  // counters side by side

// Words [word][lane] of the counters first, first + 1, ...: the loops over lanes are vectorised by the compiler.
inline void philox(u64 first, u64 offset, u64 seed, u32 c[4][COUNTERS]) {
  for (int i = 0; i < COUNTERS; i++) {
    c[0][i] = static_cast<u32>(first + i);
    c[1][i] = static_cast<u32>((first + i) >> 32);
    c[2][i] = static_cast<u32>(offset);
    c[3][i] = static_cast<u32>(offset >> 32);
  }
  u32 key0 = static_cast<u32>(seed), key1 = static_cast<u32>(seed >> 32);
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < COUNTERS; i++) {
      const u64 a = static_cast<u64>(c[0][i]) * 0xD2511F53u, b = static_cast<u64>(c[2][i]) * 0xCD9E8D57u;
      const u32 c1 = c[1][i], c3 = c[3][i];
      c[0][i] = static_cast<u32>(b >> 32) ^ c1 ^ key0;
      c[1][i] = static_cast<u32>(b);
      c[2][i] = static_cast<u32>(a >> 32) ^ c3 ^ key1;
      c[3][i] = static_cast<u32>(a);
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

void dropout(i64 n, const DropoutState& state, const float* x, float* y) {
  const DropoutState s = state;
  constexpr i64 STEP = 4 * COUNTERS;  // elements of one block of counters
  parallel_pieces(n, 64 * STEP, 24, [=](i64 begin, i64 end) {
    u32 words[4][COUNTERS], ordered[STEP];
    for (i64 i = begin; i < end; i += STEP) {
      philox(static_cast<u64>(i) / 4, s.offset, s.seed, words);
      for (int lane = 0; lane < COUNTERS; lane++)
        for (int word = 0; word < 4; word++) ordered[4 * lane + word] = words[word][lane];
      const i64 count = least(STEP, end - i);
      for (i64 j = 0; j < count; j++) y[i + j] = ordered[j] >= s.threshold ? x[i + j] * s.scale : 0.0f;
    }
  });
}
