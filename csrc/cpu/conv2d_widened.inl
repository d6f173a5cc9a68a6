// Few output channels leave most of a vector empty: 6 of 16 lanes in the first layer of LeNet-5. So J output pixels
// that lie side by side are taken for one pixel of J * K channels: its filter has S + (J - 1) * stride_w columns, the
// filter of channel (j, k) being w[k] moved right by j * stride_w and zero elsewhere, and the stride is J * stride_w. y
// is the same memory. The zeros cost terms, the fuller vectors save more; J is chosen by counting multiply-adds.

// Vector multiply-adds of one output row of `vectors` vectors, a term; a tile one vector wide loads more than it adds.
inline double tile_cost(int columns) {
  const int vectors = static_cast<int>(blocks(columns, V));
  return vectors == 1 ? 1.1 : vectors;
}

// The pixels to take together; 1 where it does not pay or is not possible.
inline int pixels_together(const Conv2dShape& s) {
  int best = 1;
  if (s.groups > 1 || s.dilation_w > 1) return best;
  double least_cost = tile_cost(s.K) * s.S;
  for (int j = 2; j <= 8 && j * s.K <= MOST_LANES && j <= s.Q; j++) {
    const double cost = tile_cost(j * s.K) * (s.S + (j - 1) * s.stride_w) / j;
    if (s.Q % j == 0 && cost < 0.95 * least_cost) {
      best = j;
      least_cost = cost;
    }
  }
  return best;
}

inline Conv2dShape widened(const Conv2dShape& s, int j) {
  Conv2dShape wide = s;
  wide.K = j * s.K;
  wide.S = s.S + (j - 1) * s.stride_w;
  wide.stride_w = j * s.stride_w;
  wide.Q = s.Q / j;
  return wide;
}

// w (K, R, S, C) to (J * K, R, S + (J - 1) * stride_w, C)
void widen_filter(const Conv2dShape& s, int together, const float* w, float* wide) {
  const i64 line = static_cast<i64>(s.S) * s.C, step = static_cast<i64>(s.stride_w) * s.C;
  for (int j = 0; j < together; j++)
    for (i64 row = 0; row < static_cast<i64>(s.K) * s.R; row++) {
      for (i64 i = 0; i < j * step; i++) *wide++ = 0;
      for (i64 i = 0; i < line; i++) *wide++ = w[row * line + i];
      for (i64 i = 0; i < (together - 1 - j) * step; i++) *wide++ = 0;
    }
}

i64 forward_packed_size(const Conv2dShape& s) {
  return forward_filter_size(widened(s, pixels_together(s)));
}

void pack_forward(const Conv2dShape& s, const float* w, float* packed) {
  const int together = pixels_together(s);
  if (together == 1) return pack_forward_filter(s, w, packed);
  const Conv2dShape wide = widened(s, together);
  float* filter = scratch<float>(cnn::WIDENED, static_cast<i64>(wide.K) * wide.R * wide.S * wide.C);
  widen_filter(s, together, w, filter);
  pack_forward_filter(wide, filter, packed);
}

void implicit_gemm_forward(const Conv2dShape& s, const float* x, const float* w, const float* packed, float* y,
                           const Epilogue& e) {
  if (batch_lanes_pay(s, FORWARD)) return batch_forward(s, x, w, y, e);
  const int together = pixels_together(s);
  if (together == 1) {
    int* taps = scratch<int>(cnn::TAPS, s.R + s.S);
    return run_gather(forward_gather(s, x, y, taps), packed, forward_filter(s, w), e);
  }
  if (!packed) {
    float* own = scratch<float>(cnn::PACKED_WEIGHT, forward_packed_size(s));
    pack_forward(s, w, own);
    packed = own;
  }
  const Conv2dShape wide = widened(s, together);
  float* parts = scratch<float>(cnn::WIDENED, 3 * static_cast<i64>(wide.K));
  const Epilogue each{repeated(e.bias, s.K, together, parts), repeated(e.scale, s.K, together, parts + wide.K),
                      repeated(e.shift, s.K, together, parts + 2 * wide.K), e.residual, e.activation};
  int* taps = scratch<int>(cnn::TAPS, wide.R + wide.S);
  run_gather(forward_gather(wide, x, y, taps), packed, {}, each);
}
