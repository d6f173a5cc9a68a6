// Dropout: element i is kept where word i % 4 of Philox4x32-10 at counter (i / 4, offset) under the key `seed` is at
// least the threshold, and is then scaled; else 0. A pure function of i, so the work can be split anywhere.
// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. 20 products a 4 elements.

constexpr int COUNTERS = V / 2;                  // of a vector, one a 64-bit lane
constexpr int PHILOX_VECTORS = V == 16 ? 4 : 2;  // side by side: a round waits for its products

// Word w of the counters first + v * COUNTERS + lane in the lower half of the lanes of c[w][v]; the upper halves hold
// anything, since products read the lower ones alone.
inline void philox(u64 first, u64 offset, u64 seed, vecl (&c)[4][PHILOX_VECTORS]) {
  vecl counters = vecl{} + first;
  for (int i = 0; i < COUNTERS; i++) counters[i] += i;
#pragma GCC unroll 4
  for (int v = 0; v < PHILOX_VECTORS; v++, counters += COUNTERS) {
    c[0][v] = counters;
    c[1][v] = counters >> 32;
    c[2][v] = vecl{} + offset;
    c[3][v] = vecl{} + (offset >> 32);
  }
  u32 key0 = static_cast<u32>(seed), key1 = static_cast<u32>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
#pragma GCC unroll 4
    for (int v = 0; v < PHILOX_VECTORS; v++) {
      const vecl a = low_products(c[0][v], vecl{} + 0xD2511F53u), b = low_products(c[2][v], vecl{} + 0xCD9E8D57u);
      c[0][v] = (b >> 32) ^ c[1][v] ^ key0;
      c[1][v] = b;
      c[2][v] = (a >> 32) ^ c[3][v] ^ key1;
      c[3][v] = a;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// Brings the words of a vector of counters into the order of the elements.
struct WordOrder {
  veci pairs{}, lower{}, upper{};
  WordOrder() {
    for (int i = 0; i < V; i++) {
      pairs[i] = i % 2 ? V + i - 1 : i;                // words 0, 1 or 2, 3 of each counter
      lower[i] = i / 4 * 2 + i % 2 + (i % 4 / 2) * V;  // all words of the first half of the counters
      upper[i] = lower[i] + V / 2;
    }
  }
};

inline vec word(vecl a) {
  return reinterpret_cast<vec>(a);
}

void dropout(i64 n, const DropoutState& state, const float* x, float* y) {
  const DropoutState s = state;
  constexpr i64 STEP = 2 * V * PHILOX_VECTORS;  // elements of one call of philox
  const bool streams = n * static_cast<i64>(sizeof(float)) > STREAM_BYTES && is_aligned(y);
  parallel_pieces(n, PIECE, 12, [=](i64 begin, i64 end) {
    const WordOrder order;
    const u32 threshold = static_cast<u32>(s.threshold);
    for (i64 i = begin; i < end; i += STEP) {
      vecl c[4][PHILOX_VECTORS];
      philox(static_cast<u64>(i) / 4, s.offset, s.seed, c);
#pragma GCC unroll 4
      for (int v = 0; v < PHILOX_VECTORS; v++) {
        const vec front = shuffle(word(c[0][v]), word(c[1][v]), order.pairs);
        const vec back = shuffle(word(c[2][v]), word(c[3][v]), order.pairs);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
          const i64 at = i + (2 * v + half) * V;
          if (at >= end) break;
          const vecu words = reinterpret_cast<vecu>(shuffle(front, back, half ? order.upper : order.lower));
          const int lanes = static_cast<int>(least<i64>(V, end - at));
          const vec kept = blend(words >= threshold, load_first(x + at, lanes) * s.scale, vec{});
          if (streams && lanes == V) {
            prefetch_l1(x + at + ELEMENTS_AHEAD);
            store_stream(y + at, kept);
          } else {
            store_first(y + at, kept, lanes);
          }
        }
      }
    }
    if (streams) stream_fence();
  });
}
