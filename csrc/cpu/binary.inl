// y = op(x), and y = a op b with NumPy's broadcasting. The broadcast shape has four loops, neighbours that behave alike
// merged: along the innermost an operand moves with y (stride 1) or repeats one element (stride 0). Bound by memory.

template <UnaryOp OP>
inline vec apply(vec a) {
  if (OP == NEG) return -a;
  if (OP == EXP) return exponential(a);
  if (OP == LOG) return logarithm(a);
  for (int i = 0; i < V; i++) a[i] = __builtin_sqrtf(a[i]);  // one instruction, once vectorised
  return a;
}

template <UnaryOp OP>
void map(i64 n, const float* x, float* y) {
  map_elements(n, OP == EXP || OP == LOG ? 24 : 8, y, [](vec a) { return apply<OP>(a); }, x);
}

void unary(UnaryOp op, i64 n, const float* x, float* y) {
  switch (op) {
    case NEG:
      return map<NEG>(n, x, y);
    case EXP:
      return map<EXP>(n, x, y);
    case LOG:
      return map<LOG>(n, x, y);
    case SQRT:
      return map<SQRT>(n, x, y);
  }
}

template <BinaryOp OP>
inline vec apply(vec a, vec b) {
  if (OP == ADD) return a + b;
  if (OP == SUB) return a - b;
  if (OP == MUL) return a * b;
  if (OP == DIV) return a / b;
  if (OP == EQUAL) return blend(a == b, broadcast(1.0f), vec{});
  for (int i = 0; i < V; i++) a[i] = __builtin_powf(a[i], b[i]);
  return a;
}

// n elements of one row; an operand's stride is 1 or 0. `streams`: y is aligned, and so are whole vectors of it.
template <BinaryOp OP, int STRIDE_A, int STRIDE_B>
inline void combine_row(i64 n, const float* a, const float* b, float* y, bool streams) {
  const vec repeated_a = broadcast(*a), repeated_b = broadcast(*b);
  i64 i = 0;
  for (; i + V <= n; i += V) {
    const vec result = apply<OP>(STRIDE_A ? load(a + i) : repeated_a, STRIDE_B ? load(b + i) : repeated_b);
    if (streams) {
      store_stream(y + i, result);
    } else {
      store(y + i, result);
    }
  }
  if (i < n) {
    const int lanes = static_cast<int>(n - i);
    const vec last_a = STRIDE_A ? load_part(a + i, lanes) : repeated_a;
    store_part(y + i, apply<OP>(last_a, STRIDE_B ? load_part(b + i, lanes) : repeated_b), lanes);
  }
}

// Rows that repeat an operand, or move it otherwise than y.
template <BinaryOp OP, int STRIDE_A, int STRIDE_B>
void combine_rows(const BroadcastShape& s, i64 cost, const float* a, const float* b, float* y) {
  const i64 rows = static_cast<i64>(s.d0) * s.d1 * s.d2;
  const i64 pieces = blocks(s.d3, PIECE), together = s.d3 < PIECE ? PIECE / s.d3 : 1;  // a part of a row, or whole rows
  const bool streams = rows * s.d3 * static_cast<i64>(sizeof(float)) > STREAM_BYTES && s.d3 % V == 0 && is_aligned(y);
  parallel(blocks(rows, together) * pieces, rows * s.d3 * cost, [&](i64 item) {
    const i64 begin = item % pieces * PIECE, length = least<i64>(s.d3 - begin, PIECE);
    const i64 first = item / pieces * together;
    i64 i2 = first % s.d2, i1 = first / s.d2 % s.d1, i0 = first / s.d2 / s.d1;
    for (i64 row = first; row < least(rows, first + together); row++, i2++) {
      if (i2 == s.d2) {
        i2 = 0;
        if (++i1 == s.d1) {
          i1 = 0;
          i0++;
        }
      }
      combine_row<OP, STRIDE_A, STRIDE_B>(length, a + i0 * s.a0 + i1 * s.a1 + i2 * s.a2 + begin * STRIDE_A,
                                          b + i0 * s.b0 + i1 * s.b1 + i2 * s.b2 + begin * STRIDE_B,
                                          y + row * s.d3 + begin, streams);
    }
    if (streams) stream_fence();
  });
}

template <BinaryOp OP>
void combine(const BroadcastShape& s, const float* a, const float* b, float* y) {
  const i64 cost = OP == POW ? 60 : OP == DIV ? 16 : 12;
  const bool one_row = s.d0 == 1 && s.d1 == 1 && s.d2 == 1;
  if (s.a3 && s.b3) {
    if (one_row) return map_elements(s.d3, cost, y, [](vec a, vec b) { return apply<OP>(a, b); }, a, b);
    return combine_rows<OP, 1, 1>(s, cost, a, b, y);
  }
  if (s.a3) {
    const float last = *b;
    if (one_row) return map_elements(s.d3, cost, y, [=](vec a) { return apply<OP>(a, broadcast(last)); }, a);
    return combine_rows<OP, 1, 0>(s, cost, a, b, y);
  }
  combine_rows<OP, 0, 1>(s, cost, a, b, y);
}

void binary(BinaryOp op, const BroadcastShape& s, const float* a, const float* b, float* y) {
  switch (op) {
    case ADD:
      return combine<ADD>(s, a, b, y);
    case SUB:
      return combine<SUB>(s, a, b, y);
    case MUL:
      return combine<MUL>(s, a, b, y);
    case DIV:
      return combine<DIV>(s, a, b, y);
    case POW:
      if (!(s.b0 | s.b1 | s.b2 | s.b3) && *b == 2) {  // one exponent, of a square
        return combine<MUL>({s.d0, s.d1, s.d2, s.d3, s.a0, s.a1, s.a2, s.a3, s.a0, s.a1, s.a2, s.a3}, a, a, y);
      }
      return combine<POW>(s, a, b, y);
    case EQUAL:
      return combine<EQUAL>(s, a, b, y);
  }
}
