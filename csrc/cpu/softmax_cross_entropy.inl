// loss = log(sum exp(x - max)) - (x[label] - max) and probability = exp(x - max) / sum, a row of x (M, C) at a time;
// dx = (probability - onehot(label)) * dloss. Subtracting the maximum keeps every exponent at or below 0. A row with a
// NaN or +infinity gives NaN, as the definition does.

// exp(a) for a <= 0 (NaN stays), within 2 units in the last place: a = k ln 2 + r with |r| <= ln(2) / 2 and a
// polynomial for exp(r) (Cephes' expf). Below -87.3 the result would be denormal and is 0.
inline vec exp_of_negative(vec a) {
  const vec k = a * 1.44269504088896341f + 12582912.0f - 12582912.0f;  // + and - 1.5 * 2^23 rounds to an integer
  const vec r = a - k * 0.693359375f + k * 2.12194440e-4f;             // ln 2 in two parts, the first exact
  vec p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const vec inside = blend(a < -87.3f, vec{}, k);  // keeps the exponent below in range
  const veci bits = (__builtin_convertvector(inside, veci) + 127) << 23;
  return blend(a < -87.3f, vec{}, p * reinterpret_cast<vec>(bits));
}

// Softmax of one row into p; returns the sum of the exponentials and the largest element.
inline float softmax_row(i64 n, const float* x, float* p, float* largest) {
  vec m = load_first(x, static_cast<int>(least<i64>(V, n)));
  if (n < V) {
    for (int i = static_cast<int>(n); i < V; i++) m[i] = x[0];
  }
  i64 i = V;
  for (; i + V <= n; i += V) m = join<MAX, vec>(m, load(x + i));
  float top = join_lanes<MAX>(m);
  for (; i < n; i++) top = join<MAX, float>(top, x[i]);
  vec total{};
  for (i = 0; i + V <= n; i += V) {
    const vec e = exp_of_negative(load(x + i) - top);
    store(p + i, e);
    total += e;
  }
  if (i < n) {
    const int lanes = static_cast<int>(n - i);
    vec e = exp_of_negative(load_part(x + i, lanes) - top);
    store_part(p + i, e, lanes);
    for (int lane = 0; lane < V; lane++) total[lane] += lane < lanes ? e[lane] : 0;
  }
  const float s = sum(total), scale = 1 / s;
  for (i = 0; i < n; i += V) {
    const int lanes = static_cast<int>(least<i64>(V, n - i));
    store_first(p + i, load_first(p + i, lanes) * scale, lanes);
  }
  *largest = top;
  return s;
}

void softmax_cross_entropy_forward(i64 rows, i64 classes, const float* x, const i64* labels, float* loss,
                                   float* probability) {
  parallel_pieces(rows, most<i64>(1, 4096 / classes), classes * 16, [=](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      float top;
      const float s = softmax_row(classes, x + row * classes, probability + row * classes, &top);
      loss[row] = __builtin_logf(s) - (x[row * classes + labels[row]] - top);
    }
  });
}

void softmax_cross_entropy_backward(i64 rows, i64 classes, const float* probability, const i64* labels,
                                    const float* dloss, float* dx) {
  parallel_pieces(rows, most<i64>(1, 16384 / classes), classes * 8, [=](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      const float *p = probability + row * classes, scale = dloss[row];
      float* out = dx + row * classes;
      for (i64 i = 0; i < classes; i += V) {
        const int lanes = static_cast<int>(least<i64>(V, classes - i));
        store_first(out + i, load_first(p + i, lanes) * scale, lanes);
      }
      out[labels[row]] = (p[labels[row]] - 1) * scale;
    }
  });
}
