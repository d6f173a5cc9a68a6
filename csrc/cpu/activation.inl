// relu over n floats: y = x <= 0 ? 0 : x, so that NaN stays; dx = y <= 0 ? 0 : dy with the saved output y. y may be x,
// dx may be dy. Bound by memory: 8 bytes an element forward, 12 backward.

constexpr i64 PIECE = 16384;  // elements of a work item: 64 KB an array

void relu_forward(i64 n, const float* x, float* y) {
  parallel_pieces(n, PIECE, 8, [=](i64 begin, i64 end) {
    for (i64 i = begin; i < end; i += V) {
      const int lanes = static_cast<int>(least<i64>(V, end - i));
      store_first(y + i, relu(load_first(x + i, lanes)), lanes);
    }
  });
}

void relu_backward(i64 n, const float* y, const float* dy, float* dx) {
  parallel_pieces(n, PIECE, 12, [=](i64 begin, i64 end) {
    for (i64 i = begin; i < end; i += V) {
      const int lanes = static_cast<int>(least<i64>(V, end - i));
      store_first(dx + i, blend(load_first(y + i, lanes) <= 0, vec{}, load_first(dy + i, lanes)), lanes);
    }
  });
}
