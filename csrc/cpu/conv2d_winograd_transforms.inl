// The transforms of Winograd's convolution F(M x M, R x R) (Lavin and Gray, arXiv 1509.09308): a tile of M x M outputs
// of an R x R filter needs (M + R - 1)^2 products instead of M^2 R^2,
//   y = A^T ((G g G^T) * (B^T d B)) A                 d: N x N inputs, N = M + R - 1
// Row p of A is (1, p, p^2, ...): the values of a polynomial at the point p; B^T and G interpolate. The points are
// infinity and pairs +-a, whose even and odd parts are shared, and 0 where N is even. G holds all of a point's factors
// 1 / N(p), unless the products are summed over tiles.
//
// A tile at an edge, of which only LENGTH < M outputs exist, needs LENGTH + R - 1 of the N points: infinity, the first
// pairs, and 0 if their number is even. Their filters are those of all N points, whose 1 / N(p) the inputs make good.
//
// Which points: rounding errors grow with sum over p of A[p][i]^2 |B[p]|^2 |G[p]|^2, and a random search for its least
// mean gave 0.382 and 1.279 for N = 5 (2.62; 13/32 and 5/4, with exact constants: 2.63, and the least for the taps at
// the edges; 0, +-1 and 2: 6.0), 0.651 and 1.535 for N = 6 (4.74; 2/3 and 3/2: 4.76; 1/sqrt(2) and sqrt(2): 5.02; 1 and
// 2: 10.8) and 0.506, 1, 1.978 for N = 8 (20.62; 1/2, 1 and 2: 20.63, with exact constants), all for R = 3. For M = 2
// and R = 5 the same 2/3 and 3/2 have 5.33, the least found is 5.32. Points a and 1/a scale each other's errors: see
// Alam et al., arXiv 2201.10369, and Barabasz et al., arXiv 1803.10986.

template <int N>
struct Points;
template <>
struct Points<5> {
  static constexpr double at[2] = {13.0 / 32, 1.25};
};
template <>
struct Points<6> {
  static constexpr double at[2] = {2.0 / 3, 1.5};
};
template <>
struct Points<8> {
  static constexpr double at[3] = {0.5, 1, 2};
};

// What the transforms multiply by, for N points a, -a, b, -b, ..., infinity, after 0 if N is even; they are those of a
// tile of OF points, or some of them.
template <int N, int OF>
struct Factors {
  static constexpr int PAIRS = (N - 1) / 2, ZERO = 1 - N % 2;
  double all[PAIRS + 1] = {};            // the product of (x - a^2) over all pairs, coefficients from the lowest
  double others[PAIRS][PAIRS + 1] = {};  // the same without pair j
  double power[PAIRS][8] = {};           // a^i
  double normal[N] = {};                 // 1 / N(p)

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
      for (int i = 1; i < 8; i++) power[j][i] = power[j][i - 1] * Points<OF>::at[j];
    }
    multiply(all, -1);
    if (ZERO) normal[0] = 1 / all[0];
    normal[N - 1] = 1;
    for (int j = 0; j < PAIRS; j++) {
      multiply(others[j], j);
      double value = 0;
      for (int i = PAIRS - 1; i >= 0; i--) value = value * power[j][2] + others[j][i];
      const double own = 2 * power[j][1 + ZERO] * value;
      normal[ZERO + 2 * j] = 1 / own;
      normal[ZERO + 2 * j + 1] = ZERO ? 1 / own : -1 / own;
    }
  }
};
template <int N, int OF = N>
constexpr Factors<N, OF> FACTORS;

// Which of OF points the i-th of N is.
template <int N, int OF>
constexpr int point_of(int i) {
  return i == N - 1 ? OF - 1 : i + FACTORS<OF>.ZERO - FACTORS<N, OF>.ZERO;
}

// Whether one of OF points is among the N.
template <int OF>
inline bool has_point(int N, int point) {
  if (N == OF || point == OF - 1) return true;
  return FACTORS<OF>.ZERO && point == 0 ? N % 2 == 0 : point - FACTORS<OF>.ZERO < (N - 1) / 2 * 2;
}

// One line of each transform, on vectors `step` apart. Always inlined: how many tile sizes there are must not decide
// whether a line's vectors stay in registers.

// out = B^T in: N to N
template <int N, int OF = N>
__attribute__((always_inline)) inline void interpolate_line(const vec* in, int step, vec* out, int out_step) {
  constexpr int PAIRS = FACTORS<N, OF>.PAIRS, ZERO = FACTORS<N, OF>.ZERO;
  vec zero = in[2 * PAIRS * step], infinity = in[(N - 1) * step];
#pragma GCC unroll 4
  for (int i = PAIRS - 1; i >= 0; i--) {
    zero += static_cast<float>(FACTORS<N, OF>.all[i]) * in[2 * i * step];
    infinity += static_cast<float>(FACTORS<N, OF>.all[i]) * in[(2 * i + ZERO) * step];
  }
  if (ZERO) out[0] = zero;
  out[(N - 1) * out_step] = infinity;
#pragma GCC unroll 4
  for (int j = 0; j < PAIRS; j++) {
    vec even = in[(N - 2) * step], odd = in[(N - 3) * step];
#pragma GCC unroll 4
    for (int i = PAIRS - 2; i >= 0; i--) {
      even += static_cast<float>(FACTORS<N, OF>.others[j][i]) * in[(2 * i + 1 + ZERO) * step];
      odd += static_cast<float>(FACTORS<N, OF>.others[j][i]) * in[(2 * i + ZERO) * step];
    }
    odd *= static_cast<float>(FACTORS<N, OF>.power[j][1]);
    out[(ZERO + 2 * j) * out_step] = even + odd;
    out[(ZERO + 2 * j + 1) * out_step] = even - odd;
  }
}

// out = A in: LENGTH coefficients to N values
template <int N, int LENGTH>
__attribute__((always_inline)) inline void evaluate_line(const vec* in, int step, vec* out, int out_step) {
  constexpr int PAIRS = FACTORS<N>.PAIRS, ZERO = FACTORS<N>.ZERO;
  if (ZERO) out[0] = in[0];
  out[(N - 1) * out_step] = in[(LENGTH - 1) * step];
#pragma GCC unroll 4
  for (int j = 0; j < PAIRS; j++) {
    vec even = in[0], odd = static_cast<float>(FACTORS<N>.power[j][1]) * in[step];
#pragma GCC unroll 8
    for (int i = 2; i < LENGTH; i++) (i % 2 ? odd : even) += static_cast<float>(FACTORS<N>.power[j][i]) * in[i * step];
    out[(ZERO + 2 * j) * out_step] = even + odd;
    out[(ZERO + 2 * j + 1) * out_step] = even - odd;
  }
}

// out = A^T in: N values to LENGTH sums
template <int N, int LENGTH, int OF = N>
__attribute__((always_inline)) inline void collect_line(const vec* in, int step, vec* out, int out_step) {
  constexpr int PAIRS = FACTORS<N, OF>.PAIRS, ZERO = FACTORS<N, OF>.ZERO;
  vec both[PAIRS], difference[PAIRS];
#pragma GCC unroll 4
  for (int j = 0; j < PAIRS; j++) {
    both[j] = in[(ZERO + 2 * j) * step] + in[(ZERO + 2 * j + 1) * step];
    difference[j] = in[(ZERO + 2 * j) * step] - in[(ZERO + 2 * j + 1) * step];
  }
#pragma GCC unroll 8
  for (int i = 0; i < LENGTH; i++) {
    vec total = ZERO && i == 0 ? in[0] : i == LENGTH - 1 ? in[(N - 1) * step] : vec{};
#pragma GCC unroll 4
    for (int j = 0; j < PAIRS; j++)
      total += static_cast<float>(FACTORS<N, OF>.power[j][i]) * (i % 2 ? difference[j] : both[j]);
    out[i * out_step] = total;
  }
}

// B^T d B, vectors of channels: d[i] are the addresses of the N x N pixels; result (N, N), `plane` floats apart. Of a
// tile at an edge, the first ROWS x COLUMNS pixels and as many points.
template <int N, int ROWS = N, int COLUMNS = N>
inline void interpolate_tile(const float* const* d, i64 channel, int lanes, float* out, i64 plane) {
  vec rows[ROWS][COLUMNS];
#pragma GCC unroll 8
  for (int j = 0; j < COLUMNS; j++) {
    vec column[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) column[i] = load_first(d[i * N + j] + channel, lanes);
    interpolate_line<ROWS, N>(column, 1, &rows[0][j], COLUMNS);
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; i++) {
    vec line[COLUMNS];
    interpolate_line<COLUMNS, N>(rows[i], 1, line, 1);
#pragma GCC unroll 8
    for (int j = 0; j < COLUMNS; j++) {
      if constexpr (ROWS == N && COLUMNS == N) {
        store(out + (i * N + j) * plane, line[j]);
      } else {
        const int row = point_of<ROWS, N>(i), column = point_of<COLUMNS, N>(j);
        const double normal = FACTORS<ROWS, N>.normal[i] * FACTORS<COLUMNS, N>.normal[j];
        const auto good = static_cast<float>(normal / (FACTORS<N>.normal[row] * FACTORS<N>.normal[column]));
        store(out + (row * N + column) * plane, line[j] * good);
      }
    }
  }
}

// The factors 1 / N(p) are those of the filter or, where products are summed over tiles, of the sums.
template <int N>
inline vec times_normals(vec a, int i, int j) {
  return a * static_cast<float>(FACTORS<N>.normal[i] * FACTORS<N>.normal[j]);
}

// A^T m A of (N, N), `plane` floats apart, to the LENGTH x LENGTH vectors of `out`. Of a tile at an edge, ROWS x
// COLUMNS of the points and as many outputs less.
template <int N, int LENGTH, bool NORMALS, int ROWS = N, int COLUMNS = N>
inline void collect_tile(const float* in, i64 plane, vec (&out)[LENGTH][LENGTH]) {
  constexpr int HEIGHT = LENGTH - (N - ROWS), WIDTH = LENGTH - (N - COLUMNS);
  vec rows[HEIGHT][COLUMNS];
#pragma GCC unroll 8
  for (int j = 0; j < COLUMNS; j++) {
    vec column[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
      const int point = ROWS == N && COLUMNS == N ? i * N + j : point_of<ROWS, N>(i) * N + point_of<COLUMNS, N>(j);
      column[i] = load(in + point * plane);
      if (NORMALS) column[i] = times_normals<N>(column[i], i, j);
    }
    collect_line<ROWS, HEIGHT, N>(column, 1, &rows[0][j], COLUMNS);
  }
#pragma GCC unroll 8
  for (int i = 0; i < HEIGHT; i++) collect_line<COLUMNS, WIDTH, N>(rows[i], 1, out[i], 1);
}

// G g G^T of LENGTH x LENGTH vectors to (N, N), `plane` floats apart.
template <int N, int LENGTH, bool NORMALS>
inline void evaluate_tile(const vec (&in)[LENGTH][LENGTH], float* out, i64 plane) {
  vec rows[N][LENGTH];
#pragma GCC unroll 8
  for (int j = 0; j < LENGTH; j++) evaluate_line<N, LENGTH>(&in[0][j], LENGTH, &rows[0][j], LENGTH);
#pragma GCC unroll 8
  for (int i = 0; i < N; i++) {
    vec line[N];
    evaluate_line<N, LENGTH>(rows[i], 1, line, 1);
#pragma GCC unroll 8
    for (int j = 0; j < N; j++) store(out + (i * N + j) * plane, NORMALS ? times_normals<N>(line[j], i, j) : line[j]);
  }
}
