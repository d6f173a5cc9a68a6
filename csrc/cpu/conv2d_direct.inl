// The first rung: each element of the result is one sum over its taps, as the definition says; vectors along the
// channels, one work item an output row (forward, backward_input) or an output channel (backward_weight). Any shape.
// Every product reads both operands from cache, so this reaches a few per cent of the FMA rate.

inline float dot(const float* a, const float* b, i64 n) {
  vec total{};
  for (i64 i = 0; i < n; i += V) {
    const int lanes = static_cast<int>(least<i64>(V, n - i));
    total += load_first(a + i, lanes) * load_first(b + i, lanes);
  }
  return sum(total);
}

inline float finish(const Epilogue& e, i64 at, int k, float y) {
  if (e.bias) y += e.bias[k];
  if (e.scale) y *= e.scale[k];
  if (e.shift) y += e.shift[k];
  if (e.residual) y += e.residual[at];
  return e.activation.kind ? activate(e.activation, broadcast(y))[0] : y;
}

void direct_forward(const Conv2dShape& s, const float* x, const float* w, float* y, const Epilogue& e) {
  const int Cg = s.C / s.groups, Kg = s.K / s.groups;
  parallel(static_cast<i64>(s.N) * s.P, static_cast<i64>(s.N) * s.P * s.Q * s.K * s.R * s.S * Cg, [&](i64 row) {
    const i64 n = row / s.P, p = row % s.P;
    for (i64 q = 0; q < s.Q; q++)
      for (int k = 0; k < s.K; k++) {
        float total = 0;
        for (int r = 0; r < s.R; r++) {
          const i64 h = p * s.stride_h - s.pad_h + static_cast<i64>(r) * s.dilation_h;
          if (h < 0 || h >= s.H) continue;
          for (int t = 0; t < s.S; t++) {
            const i64 v = q * s.stride_w - s.pad_w + static_cast<i64>(t) * s.dilation_w;
            if (v < 0 || v >= s.W) continue;
            total += dot(x + ((n * s.H + h) * s.W + v) * s.C + k / Kg * Cg,
                         w + ((static_cast<i64>(k) * s.R + r) * s.S + t) * Cg, Cg);
          }
        }
        const i64 at = (row * s.Q + q) * s.K + k;
        y[at] = finish(e, at, k, total);
      }
  });
}

// The output position that input position `i` reaches through a tap, or -1.
inline i64 reached(i64 i, int pad, int tap, int dilation, int stride, int outputs) {
  const i64 shifted = i + pad - static_cast<i64>(tap) * dilation;
  return shifted >= 0 && shifted % stride == 0 && shifted / stride < outputs ? shifted / stride : -1;
}

void direct_backward_input(const Conv2dShape& s, const float* dy, const float* w, float* dx) {
  const int Cg = s.C / s.groups, Kg = s.K / s.groups;
  parallel(static_cast<i64>(s.N) * s.H, static_cast<i64>(s.N) * s.P * s.Q * s.K * s.R * s.S * Cg, [&](i64 row) {
    const i64 n = row / s.H, h = row % s.H;
    for (i64 v = 0; v < s.W; v++)
      for (int g = 0; g < s.groups; g++)
        for (int c = 0; c < Cg; c += V) {
          const int lanes = least(V, Cg - c);
          vec total{};
          for (int r = 0; r < s.R; r++) {
            const i64 p = reached(h, s.pad_h, r, s.dilation_h, s.stride_h, s.P);
            if (p < 0) continue;
            for (int t = 0; t < s.S; t++) {
              const i64 q = reached(v, s.pad_w, t, s.dilation_w, s.stride_w, s.Q);
              if (q < 0) continue;
              vec tap{};
              for (int k = g * Kg; k < (g + 1) * Kg; k++)
                tap += dy[((n * s.P + p) * s.Q + q) * s.K + k] *
                       load_first(w + ((static_cast<i64>(k) * s.R + r) * s.S + t) * Cg + c, lanes);
              total += tap;
            }
          }
          store_first(dx + (row * s.W + v) * s.C + g * Cg + c, total, lanes);
        }
  });
}

void direct_backward_weight(const Conv2dShape& s, const float* x, const float* dy, float* dw) {
  const int Cg = s.C / s.groups, Kg = s.K / s.groups;
  parallel(static_cast<i64>(s.K), static_cast<i64>(s.N) * s.P * s.Q * s.K * s.R * s.S * Cg, [&](i64 k) {
    for (int r = 0; r < s.R; r++)
      for (int t = 0; t < s.S; t++)
        for (int c = 0; c < Cg; c += V) {
          const int lanes = least(V, Cg - c);
          vec total{};
          for (i64 n = 0; n < s.N; n++) {
            vec image{};  // sums of rows and of images first: shorter chains, less rounding
            for (i64 p = 0; p < s.P; p++) {
              const i64 h = p * s.stride_h - s.pad_h + static_cast<i64>(r) * s.dilation_h;
              if (h < 0 || h >= s.H) continue;
              vec line{};
              for (i64 q = 0; q < s.Q; q++) {
                const i64 v = q * s.stride_w - s.pad_w + static_cast<i64>(t) * s.dilation_w;
                if (v < 0 || v >= s.W) continue;
                line += dy[((n * s.P + p) * s.Q + q) * s.K + k] *
                        load_first(x + ((n * s.H + h) * s.W + v) * s.C + k / Kg * Cg + c, lanes);
              }
              image += line;
            }
            total += image;
          }
          store_first(dw + ((k * s.R + r) * s.S + t) * Cg + c, total, lanes);
        }
  });
}
