// AVX-512: lanes are masked, so a part of a vector costs what a whole one does.
constexpr int TILE_VECTORS = 4;  // output vectors of a register tile, at most
// rows of a tile of so many vectors: 6 x 64 needs 24 + 4 + 1 of 32 registers, 8 x 48 24 + 3 + 1, 12 x 32 24 + 2 + 1
constexpr int TILE_ROWS[TILE_VECTORS + 1] = {0, 12, 12, 8, 6};
constexpr int WEIGHT_ROWS[TILE_VECTORS + 1] = {0, 14, 14, 8, 6};  // of the tile of weight gradients

inline __mmask16 first_lanes(int n) {
  return static_cast<__mmask16>((1u << n) - 1);
}
inline vec load_part(const float* p, int n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
inline void store_part(float* p, vec a, int n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), a);
}

// Keeps values in registers that the compiler would read from memory again, or make anew, for every use
template <class... T>
inline void in_register(T&... values) {
  ([](T& a) { asm("" : "+v"(a)); }(values), ...);
}

// Past the caches; p a multiple of 64 bytes
inline void store_stream(float* p, vec a) {
  _mm512_stream_ps(p, a);
}
inline void stream_fence() {
  _mm_sfence();
}

// p 2^k of whole numbers k, rounded once. Masked forms, here and below: GCC 12 warns of the others' undefined operand
inline vec scale_by_power(vec p, vec k) {
  return _mm512_maskz_scalef_ps(0xffff, p, k);
}

// 1 / d to about a unit in the last place, |d| in [2^-125, 2^125]: an estimate of 14 bits, then a step of Newton's
// method
inline vec reciprocal(vec d) {
  const vec q = _mm512_maskz_rcp14_ps(0xffff, d);
  return q + q * (1.0f - d * q);
}

// a = 2^e m with 1 <= m < 2, denormal numbers included; m is NaN for NaN and a < 0, e infinite for 0 and infinity
inline void split(vec a, vec& m, vec& e) {
  m = _mm512_maskz_getmant_ps(0xffff, a, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_nan);
  e = _mm512_maskz_getexp_ps(0xffff, a);
}

// max(a, low) and min(a, high), a where either is NaN: the instruction then gives its second operand
inline vec at_least(vec a, vec low) {
  return _mm512_maskz_max_ps(0xffff, low, a);
}
inline vec at_most(vec a, vec high) {
  return _mm512_maskz_min_ps(0xffff, high, a);
}

// Whether a lane of one of four vectors is NaN. A comparison looks at two
inline bool any_nan(vec a, vec b, vec c, vec d) {
  return (_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(c, d, _CMP_UNORD_Q)) != 0;
}

// Products of the lower halves of 64-bit lanes
inline vecl low_products(vecl a, vecl b) {
  return reinterpret_cast<vecl>(
      _mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

// int32 lanes in [0, 255] to bytes, the first n; and back
inline void store_bytes(u8* p, veci a, int n) {
  _mm512_mask_cvtepi32_storeu_epi8(p, n >= V ? 0xffff : first_lanes(n), reinterpret_cast<__m512i>(a));
}
inline veci load_bytes(const u8* p, int n) {
  return reinterpret_cast<veci>(
      _mm512_maskz_cvtepu8_epi32(0xffff, _mm_maskz_loadu_epi8(n >= V ? 0xffff : first_lanes(n), p)));
}
