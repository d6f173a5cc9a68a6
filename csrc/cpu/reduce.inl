// y[o, i] = sum or max over r of x[o, r, i]. Rows are added up in blocks and the blocks in order, so that rounding
// grows with the logarithm of the length, and the result does not depend on the number of threads. Bound by memory.

constexpr i64 REDUCE_BLOCK = 512;  // rows added before their sum joins the total

template <ReduceOp OP, class T>
inline T join(T a, T b) {
  return OP == SUM ? a + b : ((b > a) | (b != b)) ? b : a;  // max: a NaN wins and, compared with anything, stays
}

template <ReduceOp OP>
inline float join_lanes(vec a) {
  float total = a[0];
  for (int i = 1; i < V; i++) total = join<OP, float>(total, a[i]);
  return total;
}

// One contiguous row: four vectors side by side hide the latency.
template <ReduceOp OP>
float reduce_row(const float* x, i64 n) {
  constexpr int CHAINS = 4;
  float total = x[0];
  i64 i = 1;
  while (n - i >= V * CHAINS) {
    vec part[CHAINS];
    for (int c = 0; c < CHAINS; c++) part[c] = load(x + i + c * V);
    i += V * CHAINS;
    for (i64 block = 1; block < REDUCE_BLOCK && n - i >= V * CHAINS; block++, i += V * CHAINS)
      for (int c = 0; c < CHAINS; c++) part[c] = join<OP, vec>(part[c], load(x + i + c * V));
    const vec both = join<OP, vec>(join<OP, vec>(part[0], part[1]), join<OP, vec>(part[2], part[3]));
    total = join<OP, float>(total, join_lanes<OP>(both));
  }
  for (; i < n; i++) total = join<OP, float>(total, x[i]);
  return total;
}

// `rows` rows of `width` columns, `inner` apart, into y: REDUCE_BLOCK rows at a time, every fourth in one chain.
template <ReduceOp OP>
void reduce_columns(const float* x, i64 rows, i64 width, i64 inner, float* y) {
  constexpr i64 CHAINS = 4;
  for (i64 i = 0; i < width; i += V) {
    const int lanes = static_cast<int>(least<i64>(V, width - i));
    const auto load_row = [&](i64 row) { return load_first(x + row * inner + i, lanes); };
    vec total = load_row(0);
    i64 row = 1;
    while (rows - row >= CHAINS) {
      vec part[CHAINS];
#pragma GCC unroll 4
      for (i64 c = 0; c < CHAINS; c++) part[c] = load_row(row + c);
      const i64 end = least(rows, row + REDUCE_BLOCK);
      for (row += CHAINS; end - row >= CHAINS; row += CHAINS)
#pragma GCC unroll 4
        for (i64 c = 0; c < CHAINS; c++) part[c] = join<OP, vec>(part[c], load_row(row + c));
      const vec both = join<OP, vec>(join<OP, vec>(part[0], part[1]), join<OP, vec>(part[2], part[3]));
      total = join<OP, vec>(total, both);
    }
    for (; row < rows; row++) total = join<OP, vec>(total, load_row(row));
    store_first(y + i, total, lanes);
  }
}

template <ReduceOp OP>
void reduce_all(const ReduceShape& s, const float* x, float* y) {
  const i64 outer = s.outer, reduced = s.reduced, inner = s.inner, work = outer * reduced * inner * 4;
  const i64 part = most<i64>(64, blocks(16384, inner));  // rows of a partial result: 64 KB of x
  const i64 parts = blocks(reduced, part);
  if (parts == 1) {
    const i64 together = most<i64>(1, 16384 / (reduced * inner));  // outer indices of an item
    parallel(blocks(outer, together), work, [&](i64 item) {
      for (i64 o = item * together; o < least(outer, (item + 1) * together); o++)
        if (inner == 1) {
          y[o] = reduce_row<OP>(x + o * reduced, reduced);
        } else {
          reduce_columns<OP>(x + o * reduced * inner, reduced, inner, inner, y + o * inner);
        }
    });
    return;
  }
  float* partial = scratch<float>(cnn::PARTIAL_SUMS, outer * parts * inner);
  parallel(outer * parts, work, [&](i64 item) {
    const i64 first = item % parts * part, rows = least(part, reduced - first);
    const float* begin = x + (item / parts * reduced + first) * inner;
    if (inner == 1) {
      partial[item] = reduce_row<OP>(begin, rows);
    } else {
      reduce_columns<OP>(begin, rows, inner, inner, partial + item * inner);
    }
  });
  parallel(outer, outer * parts * inner * 4, [&](i64 o) {
    if (inner == 1) {
      y[o] = reduce_row<OP>(partial + o * parts, parts);
    } else {
      reduce_columns<OP>(partial + o * parts * inner, parts, inner, inner, y + o * inner);
    }
  });
}

void reduce(ReduceOp op, const ReduceShape& s, const float* x, float* y) {
  op == SUM ? reduce_all<SUM>(s, x, y) : reduce_all<MAX>(s, x, y);
}
