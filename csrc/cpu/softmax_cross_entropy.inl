// loss = log(sum exp(x - max)) - (x[label] - max) and probability = exp(x - max) / sum, a row of x (M, C) at a time;
// dx = (probability - onehot(label)) * dloss. Subtracting the maximum keeps every exponent at or below 0. A row with a
// NaN or +infinity gives NaN, as the definition does.

// The largest element of a row, a NaN passed over; four vectors side by side hide the latency.
inline float largest_of_row(i64 n, const float* x) {
  constexpr int CHAINS = 4;
  vec m[CHAINS];
  for (vec& chain : m) chain = broadcast(x[0]);
  i64 i = 0;
  for (; i + V * CHAINS <= n; i += V * CHAINS)
    for (int c = 0; c < CHAINS; c++) m[c] = at_least(m[c], load(x + i + c * V));
  for (; i < n; i += V) {
    const int lanes = static_cast<int>(least<i64>(V, n - i));
    m[0] = at_least(m[0], blend(LANE_NUMBERS < lanes, load_first(x + i, lanes), m[0]));
  }
  vec top = at_least(at_least(m[0], m[1]), at_least(m[2], m[3]));
  for (int d = V / 2; d > 0; d /= 2) top = at_least(top, shuffle(top, top, LANE_NUMBERS ^ d));
  return top[0];
}

// Softmax of one row into p; returns the sum of the exponentials. A NaN in x makes the sum NaN, and with it the row.
inline float softmax_row(i64 n, const float* x, float* p, float top) {
  vec total{};
  i64 i = 0;
  for (; i + V <= n; i += V) {
    const vec e = exponential(load(x + i) - top);
    store(p + i, e);
    total += e;
  }
  if (i < n) {
    const int lanes = static_cast<int>(n - i);
    const vec e = exponential(load_part(x + i, lanes) - top);
    store_part(p + i, e, lanes);
    total += blend(LANE_NUMBERS < lanes, e, vec{});
  }
  const float s = sum(total), scale = 1 / s;
  map_piece(0, n, false, p, [=](vec e) { return e * scale; }, p);
  return s;
}

void softmax_cross_entropy_forward(i64 rows, i64 classes, const float* x, const i64* labels, float* loss,
                                   float* probability) {
  float* shifted = scratch<float>(cnn::PARTIAL_SUMS, rows);  // x[label] - max; loss holds the sums meanwhile
  parallel_pieces(rows, most<i64>(1, 4096 / classes), classes * 16, [=](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      const float top = largest_of_row(classes, x + row * classes);
      loss[row] = softmax_row(classes, x + row * classes, probability + row * classes, top);
      shifted[row] = x[row * classes + labels[row]] - top;
    }
    for (i64 row = begin; row < end; row += V) {
      const int lanes = static_cast<int>(least<i64>(V, end - row));
      store_first(loss + row, logarithm(load_first(loss + row, lanes)) - load_first(shifted + row, lanes), lanes);
    }
  });
}

void softmax_cross_entropy_backward(i64 rows, i64 classes, const float* probability, const i64* labels,
                                    const float* dloss, float* dx) {
  parallel_pieces(rows, most<i64>(1, 16384 / classes), classes * 8, [=](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      const float *p = probability + row * classes, scale = dloss[row];
      float* out = dx + row * classes;
      map_piece(0, classes, false, out, [=](vec a) { return a * scale; }, p);
      out[labels[row]] = (p[labels[row]] - 1) * scale;
    }
  });
}
