// y = op(x), and y = a op b with NumPy's broadcasting. The broadcast shape has four loops; the innermost is
// vectorised by the compiler for operands that go along (stride 1) or repeat (stride 0), and is plain for any other.

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
  parallel_pieces(n, 8192, OP == EXP || OP == LOG ? 24 : 8, [=](i64 begin, i64 end) {
    for (i64 i = begin; i < end; i += V) {
      const int lanes = static_cast<int>(least<i64>(V, end - i));
      store_first(y + i, apply<OP>(load_first(x + i, lanes)), lanes);
    }
  });
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
inline float apply(float a, float b) {
  if (OP == ADD) return a + b;
  if (OP == SUB) return a - b;
  if (OP == MUL) return a * b;
  if (OP == DIV) return a / b;
  if (OP == EQUAL) return a == b ? 1.0f : 0.0f;
  return b == 2 ? a * a : __builtin_powf(a, b);
}

template <BinaryOp OP>
void combine_row(i64 n, const float* a, i64 stride_a, const float* b, i64 stride_b, float* y) {
  if (stride_a == 1 && stride_b == 1) {
    for (i64 i = 0; i < n; i++) y[i] = apply<OP>(a[i], b[i]);
  } else if (stride_a == 1 && stride_b == 0) {
    const float repeated = *b;
    for (i64 i = 0; i < n; i++) y[i] = apply<OP>(a[i], repeated);
  } else if (stride_a == 0 && stride_b == 1) {
    const float repeated = *a;
    for (i64 i = 0; i < n; i++) y[i] = apply<OP>(repeated, b[i]);
  } else {
    for (i64 i = 0; i < n; i++) y[i] = apply<OP>(a[i * stride_a], b[i * stride_b]);
  }
}

template <BinaryOp OP>
void combine(const BroadcastShape& s, const float* a, const float* b, float* y) {
  const i64 rows = static_cast<i64>(s.d0) * s.d1 * s.d2, cost = OP == POW ? 60 : OP == DIV ? 16 : 12;
  const i64 piece = 16384;  // elements of a work item: a part of one row, or several whole rows
  const i64 pieces = blocks(s.d3, piece), together = s.d3 < piece ? piece / s.d3 : 1;
  parallel(blocks(rows, together) * pieces, rows * s.d3 * cost, [&](i64 item) {
    const i64 begin = item % pieces * piece, end = least<i64>(s.d3, begin + piece);
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
      combine_row<OP>(end - begin, a + i0 * s.a0 + i1 * s.a1 + i2 * s.a2 + begin * s.a3, s.a3,
                      b + i0 * s.b0 + i1 * s.b1 + i2 * s.b2 + begin * s.b3, s.b3, y + row * s.d3 + begin);
    }
  });
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
      return combine<POW>(s, a, b, y);
    case EQUAL:
      return combine<EQUAL>(s, a, b, y);
  }
}
