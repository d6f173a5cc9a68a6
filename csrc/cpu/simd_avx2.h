// AVX2: a part of a vector goes through a lane mask read from a table.
constexpr int TILE_VECTORS = 2;  // output vectors of a register tile, at most
constexpr int TILE_ROWS[TILE_VECTORS + 1] = {0, 8,
                                             6};  // rows for so many vectors: 6 x 16 needs 12 + 2 + 1 of 16 registers
constexpr int WEIGHT_ROWS[TILE_VECTORS + 1] = {0, 12, 6};  // of the tile of weight gradients

constexpr int LANES[2 * V] = {-1, -1, -1, -1, -1, -1, -1, -1};
inline __m256i first_lanes(int n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(LANES + V - n));
}
inline vec load_part(const float* p, int n) {
  return _mm256_maskload_ps(p, first_lanes(n));
}
inline void store_part(float* p, vec a, int n) {
  _mm256_maskstore_ps(p, first_lanes(n), a);
}

// Keeps values in registers that the compiler would read from memory again, or make anew, for every use
template <class... T>
inline void in_register(T&... values) {
  ([](T& a) { asm("" : "+x"(a)); }(values), ...);
}

// Past the caches; p a multiple of 32 bytes
inline void store_stream(float* p, vec a) {
  _mm256_stream_ps(p, a);
}
inline void stream_fence() {
  _mm_sfence();
}

// max(a, low) and min(a, high), a where either is NaN: the instruction then gives its second operand
inline vec at_least(vec a, vec low) {
  return _mm256_max_ps(low, a);
}
inline vec at_most(vec a, vec high) {
  return _mm256_min_ps(high, a);
}

// Whether a lane of one of four vectors is NaN. A comparison looks at two
inline bool any_nan(vec a, vec b, vec c, vec d) {
  return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(a, b, _CMP_UNORD_Q), _mm256_cmp_ps(c, d, _CMP_UNORD_Q))) != 0;
}

// Products of the lower halves of 64-bit lanes
inline vecl low_products(vecl a, vecl b) {
  return reinterpret_cast<vecl>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}

// int32 lanes in [0, 255] to bytes, the first n; and back
inline void store_bytes(u8* p, veci a, int n) {
  for (int i = 0; i < V && i < n; i++) p[i] = static_cast<u8>(a[i]);
}
inline veci load_bytes(const u8* p, int n) {
  veci a{};
  for (int i = 0; i < V && i < n; i++) a[i] = p[i];
  return a;
}
