// The transforms of Winograd's convolution F(M x M, R x R) (Lavin and Gray, arXiv 1509.09308): a tile of M x M outputs
// of an R x R filter needs (M + R - 1)^2 products instead of M^2 R^2,
//   y = A^T ((G g G^T) * (B^T d B)) A                 d: N x N inputs, N = M + R - 1
// Row p of A is (1, p, p^2, ...): the values of a polynomial at the point p; B^T and G interpolate. The points are 0,
// infinity and pairs +-a, whose even and odd parts are shared. All of a point's factors 1 / N(p) are in G.
//
// Which points: rounding errors grow with sum over p of A[p][i]^2 |B[p]|^2 |G[p]|^2, and a random search for its least
// mean gave 0.651 and 1.535 for N = 6 (4.74; 2/3 and 3/2: 4.76; 1/sqrt(2) and sqrt(2): 5.02; 1 and 2: 10.8) and 0.506,
// 1, 1.978 for N = 8 (20.62; 1/2, 1 and 2: 20.63, with exact constants). Points a and 1/a scale each other's errors:
// see Alam et al., arXiv 2201.10369, and Barabasz et al., arXiv 1803.10986.

template <int PAIRS>
struct Points;
template <>
struct Points<2> {
  static constexpr double at[2] = {2.0 / 3, 1.5};
};
template <>
struct Points<3> {
  static constexpr double at[3] = {0.5, 1, 2};
};

// What the transforms multiply by, for N = 2 * PAIRS + 2 points 0, a, -a, b, -b, ..., infinity.
template <int PAIRS>
struct Factors {
  double all[PAIRS + 1] = {};            // the product of (x - a^2) over all pairs, coefficients from the lowest
  double others[PAIRS][PAIRS + 1] = {};  // the same without pair j
  double power[PAIRS][8] = {};           // a^i
  double normal[2 * PAIRS + 2] = {};     // 1 / N(p)

  constexpr void multiply(double* product, int left_out) {
    product[0] = 1;
    for (int j = 0, degree = 1; j < PAIRS; j++) {
      if (j == left_out) continue;
      for (int i = degree; i >= 0; i--) product[i] = (i > 0 ? product[i - 1] : 0) - power[j][2] * product[i];
      degree++;
    }
  }
  constexpr Factors() {
    for (int j = 0; j < PAIRS; j++) {
      power[j][0] = 1;
      for (int i = 1; i < 8; i++) power[j][i] = power[j][i - 1] * Points<PAIRS>::at[j];
    }
    multiply(all, -1);
    normal[0] = 1 / all[0];
    normal[2 * PAIRS + 1] = 1;
    for (int j = 0; j < PAIRS; j++) {
      multiply(others[j], j);
      double value = 0;
      for (int i = PAIRS - 1; i >= 0; i--) value = value * power[j][2] + others[j][i];
      normal[1 + 2 * j] = normal[2 + 2 * j] = 1 / (2 * power[j][2] * value);
    }
  }
};
template <int N>
constexpr Factors<N / 2 - 1> FACTORS;

// One line of each transform, on vectors `step` apart.

// out = B^T in: N to N
template <int N>
inline void interpolate_line(const vec* in, int step, vec* out, int out_step) {
  constexpr int PAIRS = N / 2 - 1;
  vec zero = in[2 * PAIRS * step], infinity = in[(2 * PAIRS + 1) * step];
#pragma GCC unroll 4
  for (int i = PAIRS - 1; i >= 0; i--) {
    zero += static_cast<float>(FACTORS<N>.all[i]) * in[2 * i * step];
    infinity += static_cast<float>(FACTORS<N>.all[i]) * in[(2 * i + 1) * step];
  }
  out[0] = zero;
  out[(N - 1) * out_step] = infinity;
#pragma GCC unroll 4
  for (int j = 0; j < PAIRS; j++) {
    vec even = in[2 * PAIRS * step], odd = in[(2 * PAIRS - 1) * step];
#pragma GCC unroll 4
    for (int i = PAIRS - 2; i >= 0; i--) {
      even += static_cast<float>(FACTORS<N>.others[j][i]) * in[(2 * i + 2) * step];
      odd += static_cast<float>(FACTORS<N>.others[j][i]) * in[(2 * i + 1) * step];
    }
    odd *= static_cast<float>(FACTORS<N>.power[j][1]);
    out[(1 + 2 * j) * out_step] = even + odd;
    out[(2 + 2 * j) * out_step] = even - odd;
  }
}

// out = A in: LENGTH coefficients to N values
template <int N, int LENGTH>
inline void evaluate_line(const vec* in, int step, vec* out, int out_step) {
  constexpr int PAIRS = N / 2 - 1;
  out[0] = in[0];
  out[(N - 1) * out_step] = in[(LENGTH - 1) * step];
#pragma GCC unroll 4
  for (int j = 0; j < PAIRS; j++) {
    vec even = in[0], odd = static_cast<float>(FACTORS<N>.power[j][1]) * in[step];
#pragma GCC unroll 8
    for (int i = 2; i < LENGTH; i++) (i % 2 ? odd : even) += static_cast<float>(FACTORS<N>.power[j][i]) * in[i * step];
    out[(1 + 2 * j) * out_step] = even + odd;
    out[(2 + 2 * j) * out_step] = even - odd;
  }
}

// out = A^T in: N values to LENGTH sums
template <int N, int LENGTH>
inline void collect_line(const vec* in, int step, vec* out, int out_step) {
  constexpr int PAIRS = N / 2 - 1;
  vec both[PAIRS], difference[PAIRS];
#pragma GCC unroll 4
  for (int j = 0; j < PAIRS; j++) {
    both[j] = in[(1 + 2 * j) * step] + in[(2 + 2 * j) * step];
    difference[j] = in[(1 + 2 * j) * step] - in[(2 + 2 * j) * step];
  }
#pragma GCC unroll 8
  for (int i = 0; i < LENGTH; i++) {
    vec total = i == 0 ? in[0] : i == LENGTH - 1 ? in[(N - 1) * step] : vec{};
#pragma GCC unroll 4
    for (int j = 0; j < PAIRS; j++)
      total += static_cast<float>(FACTORS<N>.power[j][i]) * (i % 2 ? difference[j] : both[j]);
    out[i * out_step] = total;
  }
}

// B^T d B, vectors of channels: d[i] are the addresses of the N x N pixels; result (N, N), `plane` floats apart.
template <int N>
inline void interpolate_tile(const float* const* d, i64 channel, int lanes, float* out, i64 plane) {
  vec rows[N][N];
#pragma GCC unroll 8
  for (int j = 0; j < N; j++) {
    vec column[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) column[i] = load_first(d[i * N + j] + channel, lanes);
    interpolate_line<N>(column, 1, &rows[0][j], N);
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) {
    vec line[N];
    interpolate_line<N>(rows[i], 1, line, 1);
#pragma GCC unroll 8
    for (int j = 0; j < N; j++) store(out + (i * N + j) * plane, line[j]);
  }
}

// A^T m A of (N, N), `plane` floats apart, to the LENGTH x LENGTH vectors of `out`.
template <int N, int LENGTH>
inline void collect_tile(const float* in, i64 plane, vec (&out)[LENGTH][LENGTH]) {
  vec rows[LENGTH][N];
#pragma GCC unroll 8
  for (int j = 0; j < N; j++) {
    vec column[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
      column[i] = load(in + (i * N + j) * plane);
    }
    collect_line<N, LENGTH>(column, 1, &rows[0][j], N);
  }
#pragma GCC unroll 8
  for (int i = 0; i < LENGTH; i++) collect_line<N, LENGTH>(rows[i], 1, out[i], 1);
}

// G g G^T of LENGTH x LENGTH vectors to (N, N), `plane` floats apart.
template <int N, int LENGTH>
inline void evaluate_tile(const vec (&in)[LENGTH][LENGTH], float* out, i64 plane) {
  vec rows[N][LENGTH];
#pragma GCC unroll 8
  for (int j = 0; j < LENGTH; j++) evaluate_line<N, LENGTH>(&in[0][j], LENGTH, &rows[0][j], LENGTH);
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) {
    vec line[N];
    evaluate_line<N, LENGTH>(rows[i], 1, line, 1);
#pragma GCC unroll 8
    for (int j = 0; j < N; j++) {
      const auto normal = static_cast<float>(FACTORS<N>.normal[i] * FACTORS<N>.normal[j]);
      store(out + (i * N + j) * plane, line[j] * normal);
    }
  }
}
