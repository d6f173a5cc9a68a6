// loss = log(sum exp(x - max)) - (x[label] - max) and probability = exp(x - max) / sum, a row of x (M, C) at a time;
// dx = (probability - onehot(label)) * dloss. Subtracting the maximum keeps every exponent at or below 0. A row with a
// NaN or +infinity gives NaN, as the definition does.

// Softmax of one row into p; returns the sum of the exponentials and the largest element.
inline float softmax_row(i64 n, const float* x, float* p, float* largest) {
  const int head = static_cast<int>(least<i64>(V, n));
  vec m = blend(LANE_NUMBERS < head, load_first(x, head), broadcast(x[0]));
  i64 i = V;
  for (; i + V <= n; i += V) m = join<MAX, vec>(m, load(x + i));
  float top = join_lanes<MAX>(m);
  for (; i < n; i++) top = join<MAX, float>(top, x[i]);
  vec total{};
  for (i = 0; i + V <= n; i += V) {
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
  for (i = 0; i < n; i += V) {
    const int lanes = static_cast<int>(least<i64>(V, n - i));
    store_first(p + i, load_first(p + i, lanes) * scale, lanes);
  }
  *largest = top;
  return s;
}

void softmax_cross_entropy_forward(i64 rows, i64 classes, const float* x, const i64* labels, float* loss,
                                   float* probability) {
  float* shifted = scratch<float>(cnn::PARTIAL_SUMS, rows);  // x[label] - max; loss holds the sums meanwhile
  parallel_pieces(rows, most<i64>(1, 4096 / classes), classes * 16, [=](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      float top;
      loss[row] = softmax_row(classes, x + row * classes, probability + row * classes, &top);
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
      for (i64 i = 0; i < classes; i += V) {
        const int lanes = static_cast<int>(least<i64>(V, classes - i));
        store_first(out + i, load_first(p + i, lanes) * scale, lanes);
      }
      out[labels[row]] = (p[labels[row]] - 1) * scale;
    }
  });
}
