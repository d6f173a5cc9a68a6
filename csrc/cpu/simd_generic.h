// Any CPU: four floats, the vector of SSE2 and NEON.
constexpr int TILE_VECTORS = 2;  // output vectors of a register tile, at most
constexpr int TILE_ROWS[TILE_VECTORS + 1] = {0, 6,
                                             4};  // rows for so many vectors: 4 x 8 needs 8 + 2 + 2 of 16 registers
constexpr int WEIGHT_ROWS[TILE_VECTORS + 1] = {0, 8, 4};  // of the tile of weight gradients

inline vec load_part(const float* p, int n) {
  vec a{};
  for (int i = 0; i < n; i++) a[i] = p[i];
  return a;
}
inline void store_part(float* p, vec a, int n) {
  for (int i = 0; i < n; i++) p[i] = a[i];
}

// Elsewhere asks the compiler to keep values in registers
template <class... T>
inline void in_register(T&...) {}

// Elsewhere a vector goes past the caches: here into them
inline void store_stream(float* p, vec a) {
  store(p, a);
}
inline void stream_fence() {}

// max(a, low) and min(a, high), a where either is NaN
inline vec at_least(vec a, vec low) {
  return blend(a < low, low, a);
}
inline vec at_most(vec a, vec high) {
  return blend(a > high, high, a);
}

// Whether a lane of one of four vectors is NaN
inline bool any_nan(vec a, vec b, vec c, vec d) {
  const veci found = (a != a) | (b != b) | (c != c) | (d != d);
  int any = 0;
  for (int i = 0; i < V; i++) any |= found[i];
  return any != 0;
}

// Products of the lower halves of 64-bit lanes
inline vecl low_products(vecl a, vecl b) {
  return (a & 0xffffffffu) * (b & 0xffffffffu);
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
