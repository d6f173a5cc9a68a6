// exp, log, tanh, the logistic function and the normal distribution, of vectors, within a few units in the last place
// (tests/test_activation.py, tests/test_binary.py); NaN, infinities, denormal numbers and the ends of the range as in
// C. Polynomials of exp, log and tanh: Cephes' expf, logf and tanhf (S. Moshier, netlib.org/cephes).

#if !defined(__AVX512F__)  // which has an instruction for each
// p 2^k of whole numbers k, in two steps so that both powers are normal numbers
inline vec scale_by_power(vec p, vec k) {
  const veci whole = __builtin_convertvector(k, veci), half = whole >> 1;
  return p * reinterpret_cast<vec>((half + 127) << 23) * reinterpret_cast<vec>((whole - half + 127) << 23);
}

inline vec reciprocal(vec d) {
  return 1.0f / d;
}

// a = 2^e m with 1 <= m < 2, denormal numbers included; m is NaN for NaN and a < 0, e infinite for 0 and infinity
inline void split(vec a, vec& m, vec& e) {
  const float infinity = __builtin_inff();
  const veci small = a < 1.17549435e-38f;  // denormal: scaled to a normal number
  const veci bits = reinterpret_cast<veci>(blend(small, a * 8388608.0f, a));
  e = __builtin_convertvector((bits >> 23) - 127 - (small & 23), vec);
  e = blend(a == 0.0f, broadcast(-infinity), blend(a == infinity, a, e));
  m = reinterpret_cast<vec>((bits & 0x7fffff) | 0x3f800000);
  m = blend((a < 0.0f) | (a != a), broadcast(__builtin_nanf("")), m);
}
#endif

inline vec at_least(vec a, float low) {
  return at_least(a, broadcast(low));
}
inline vec at_most(vec a, float high) {
  return at_most(a, broadcast(high));
}
inline vec absolute(vec a) {
  return reinterpret_cast<vec>(reinterpret_cast<veci>(a) & 0x7fffffff);
}
// exp(r) - 1 for |r| <= ln(2) / 2
inline vec exponential_minus_1(vec r) {
  vec p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return p * (r * r) + r;
}

// exp(a), or exp(a + *low) with |*low| < 1: a = k ln 2 + r with |r| <= ln(2) / 2, a polynomial for exp(r), times 2^k.
inline vec exponential(vec a, const vec* low = nullptr) {
  a = at_most(at_least(a, -104.0f), 89.0f);                            // past these ends the result is 0 or infinity
  const vec k = a * 1.44269504088896341f + 12582912.0f - 12582912.0f;  // + and - 1.5 * 2^23 rounds to an integer
  vec r = a - k * 0.693359375f + k * 2.12194440e-4f;                   // ln 2 in two parts, the first exact
  if (low) r += *low;
  return scale_by_power(exponential_minus_1(r) + 1.0f, k);
}

// a = 2^e (1 + m) with sqrt(1/2) <= 1 + m < sqrt(2), and log(1 + m) = m - m^2 / 2 + m^3 p(m).
inline vec logarithm(vec a) {
  vec m, e;
  split(a, m, e);
  const veci high = m > 1.41421356f;
  const vec shift = blend(high, e + 1.0f, e);
  m = blend(high, m * 0.5f, m) - 1.0f;
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
  const vec y = p * m * square + shift * -2.12194440e-4f - square * 0.5f;
  return blend(absolute(e) == __builtin_inff(), e, m + y + shift * 0.693359375f);
}

// 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow
inline vec logistic(vec x) {
  const vec e = exponential(-absolute(x));
  return blend(x < 0.0f, e, broadcast(1.0f)) * reciprocal(1.0f + e);
}

inline vec hyperbolic_tangent(vec x) {
  const vec size = absolute(x), e = exponential(size * -2.0f);
  const vec large = (1.0f - e) * reciprocal(1.0f + e);
  const vec z = x * x;
  vec p = broadcast(-5.70498872745e-3f);
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const vec small = p * z * x + x;
  return blend(size < 0.625f, small, blend(x < 0.0f, -large, large));
}

// The normal distribution: returns P(X <= x), and exp(-x^2 / 2) in `bell`. With t = |x|, P(X <= -t) is
// exp(-t^2 / 2) u p(u), u = 1 / (1 + 0.35 t), where p is fitted for the least relative error on [0, 15], 3.2e-8.
// t^2 is taken in two parts, the first exact, so that the tail keeps its relative accuracy too.
inline vec normal_distribution(vec x, vec& bell) {
  const vec t = at_most(absolute(x), 15.0f);
  const vec head = reinterpret_cast<vec>(reinterpret_cast<veci>(t) & ~0xfff);
  const vec rest = (t - head) * (t + head) * -0.5f;
  bell = exponential(head * head * -0.5f, &rest);
  const vec u = reciprocal(1.0f + 0.35f * t);
  vec p = broadcast(-2.916379273e-02f);
  p = p * u + 1.440601796e-01f;
  p = p * u - 2.559006214e-01f;
  p = p * u + 1.593915373e-01f;
  p = p * u - 2.326293662e-02f;
  p = p * u + 1.055744439e-01f;
  p = p * u + 1.198155805e-01f;
  p = p * u + 1.398643255e-01f;
  p = p * u + 1.396212578e-01f;
  const vec tail = bell * (p * u);
  return blend(x < 0.0f, tail, 1.0f - tail);
}
