// exp and log of vectors, within 2 units in the last place, denormal numbers included; NaN, infinities and the ends of
// the range as in C. Polynomials: Cephes' expf and logf (S. Moshier, netlib.org/cephes).

inline vec power_of_two(veci k) {
  return reinterpret_cast<vec>((k + 127) << 23);
}  // k in [-126, 127]

// a = k ln 2 + r with |r| <= ln(2) / 2, a polynomial for exp(r), and 2^k in two steps so that both are normal numbers.
inline vec exponential(vec a) {
  const vec inside = blend((a > -104.0f) & (a < 89.0f), a, vec{});
  const vec k = inside * 1.44269504088896341f + 12582912.0f - 12582912.0f;  // + and - 1.5 * 2^23 rounds to an integer
  const vec r = inside - k * 0.693359375f + k * 2.12194440e-4f;             // ln 2 in two parts, the first exact
  vec p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const veci whole = __builtin_convertvector(k, veci), half = whole >> 1;
  p = p * power_of_two(half) * power_of_two(whole - half);
  p = blend(a <= -104.0f, vec{}, p);
  p = blend(a >= 89.0f, broadcast(__builtin_inff()), p);
  return blend(a != a, a, p);
}

// a = 2^e (1 + m) with sqrt(1/2) <= 1 + m < sqrt(2), and log(1 + m) = m - m^2 / 2 + m^3 p(m).
inline vec logarithm(vec a) {
  const veci small = a < 1.17549435e-38f;  // denormal: scaled to a normal number
  const veci bits = reinterpret_cast<veci>(blend(small, a * 8388608.0f, a));
  vec e = __builtin_convertvector((bits >> 23) - 126 - (small & 23), vec);
  vec m = reinterpret_cast<vec>((bits & 0x7fffff) | 0x3f000000);  // [0.5, 1)
  const veci low = m < 0.70710678f;
  e = blend(low, e - 1.0f, e);
  m = blend(low, m + m, m) - 1.0f;
  vec p = broadcast(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const vec square = m * m;
  vec y = p * m * square + e * -2.12194440e-4f - square * 0.5f;
  y = m + y + e * 0.693359375f;
  const float infinity = __builtin_inff();
  y = blend(a == 0.0f, broadcast(-infinity), y);
  y = blend(a == infinity, a, y);
  return blend((a < 0.0f) | (a != a), broadcast(__builtin_nanf("")), y);
}
