// Dropout by Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3), which
// gives any element its random word from its index alone: the mask is the same on every backend, for any launch, and
// the backward pass makes it again instead of storing it.
//
// Element i takes word i % 4 of the counter (i / 4, offset) under the key seed; it is kept, times scale, where that
// word is at least the threshold. A run is one counter in float32, two in float16 and bfloat16. About 20
// multiplications a counter are 5 an element, little beside its traffic of 8 bytes in float32.
#pragma once
#include "elementwise.cuh"

struct Philox {
  unsigned word[4];

  // key: 64 bits of seed; counter: 128 bits, low and high half
  __device__ Philox(unsigned long long seed, unsigned long long low, unsigned long long high) {
    unsigned key0 = static_cast<unsigned>(seed), key1 = static_cast<unsigned>(seed >> 32);
    word[0] = static_cast<unsigned>(low), word[1] = static_cast<unsigned>(low >> 32);
    word[2] = static_cast<unsigned>(high), word[3] = static_cast<unsigned>(high >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
      const unsigned long long product0 = 0xD2511F53ull * word[0], product1 = 0xCD9E8D57ull * word[2];
      const unsigned word1 = word[1], word3 = word[3];
      word[0] = static_cast<unsigned>(product1 >> 32) ^ word1 ^ key0, word[1] = static_cast<unsigned>(product1);
      word[2] = static_cast<unsigned>(product0 >> 32) ^ word3 ^ key1, word[3] = static_cast<unsigned>(product0);
      key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;  // Weyl sequences
    }
  }
};

// state: seed and offset, on the device, so that a captured graph draws new masks; y may be x
template <class T>
__global__ void __launch_bounds__(ELEMENTWISE_THREADS, 1)
    dropout(const T* x, T* y, long long count, unsigned threshold, float scale, const unsigned long long* state) {
  constexpr int LENGTH = AT_ONCE<T>;
  static_assert(LENGTH % 4 == 0, "a run is whole counters");
  const unsigned long long seed = state[0], offset = state[1];
  map_runs(x, y, count, [=](const Run<T, LENGTH>& held, long long start, Run<T, LENGTH>& result) {
#pragma unroll
    for (int first = 0; first < LENGTH; first += 4) {
      const Philox random(seed, (start + first) / 4, offset);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float kept = to_float(held.value[first + i]) * scale;
        result.value[first + i] = from_float<T>(random.word[i] >= threshold ? kept : 0.0f);
      }
    }
  });
}
