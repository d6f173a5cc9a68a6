// Forward and backward_input as gathering sums: which taps reach which pixels, and the filter packed for them.

// Taps of the forward pass: all of them, at r * dilation - pad.
inline Gather forward_gather(const Conv2dShape& s, const float* x, float* y, int* taps) {
  for (int r = 0; r < s.R; r++) taps[r] = r * s.dilation_h - s.pad_h;
  for (int t = 0; t < s.S; t++) taps[s.R + t] = t * s.dilation_w - s.pad_w;
  return {x, y, s.N, s.H, s.W,        s.C,        s.P,      s.Q, s.K, s.P,  s.Q,
          0, 1, 0,   1,   s.stride_h, s.stride_w, s.groups, s.R, s.S, taps, taps + s.R};
}

// The filter w (K, R, S, Cg) for the forward pass: V filters at a time are transposed, run by run.
void pack_forward_filter(const Conv2dShape& s, const float* w, float* packed) {
  int* taps = scratch<int>(cnn::TAPS, s.R + s.S);
  const Gather g = forward_gather(s, nullptr, nullptr, taps);
  const Terms t = terms_of(g);
  const Columns cut = columns_for(g.Kg());
  const i64 total = t.total(), padded_K = blocks(g.Kg(), V) * V;
  parallel(static_cast<i64>(g.groups) * cut.count, g.groups * padded_K * total * 2, [&](i64 item) {
    const i64 group = item / cut.count, k = item % cut.count * cut.width;
    const int lanes = static_cast<int>(least<i64>(cut.width, g.Kg() - k));
    const i64 width = blocks(lanes, V) * V;
    const float* filters = w + (group * g.Kg() + k) * total;
    float* out = packed + (group * padded_K + k) * total;
    for_each_block(t, [&](int run, int runs, int first, int terms) {
      for (int r = run; r < run + runs; r++, out += width * terms)
        for (int v = 0; v < lanes; v += V)
          transpose_into(filters + v * total + static_cast<i64>(r) * t.length + first, total, lanes - v, terms, out + v,
                         width);
    });
  });
}

i64 forward_filter_size(const Conv2dShape& s) {
  int* taps = scratch<int>(cnn::TAPS, s.R + s.S);
  const Gather g = forward_gather(s, nullptr, nullptr, taps);
  return packed_filter_size(terms_of(g), g.groups, g.Kg());
}

// The taps that input positions phase, phase + stride, ... have: those r for which phase + pad - r * dilation is a
// multiple of the stride; output position i + offset, ascending. Returns how many; tap[i] is r.
inline int phase_taps(int phase, int pad, int dilation, int stride, int taps, int* offset, int* tap) {
  int count = 0;
  for (int r = taps - 1; r >= 0; r--) {
    const int shifted = phase + pad - r * dilation;
    if (shifted % stride == 0) {
      offset[count] = shifted / stride;
      tap[count++] = r;
    }
  }
  return count;
}

// w (K, R, S, Cg) for backward_input: terms are (tap row, tap column, k), columns the input channels, which lie
// contiguous in w already.
void pack_backward_filter(const Conv2dShape& s, const Gather& g, const int* tap_row, const int* tap_column,
                          const float* w, float* packed) {
  const Terms t = terms_of(g);
  const int outputs = g.Kg(), inputs = g.Cg();  // of the gathering sum: channels of dx and of dy
  const Columns cut = columns_for(outputs);
  const i64 total = t.total(), padded = blocks(outputs, V) * V;
  parallel(static_cast<i64>(g.groups) * cut.count, g.groups * padded * total * 2, [&](i64 item) {
    const i64 group = item / cut.count, c = item % cut.count * cut.width;
    const int lanes = static_cast<int>(least<i64>(cut.width, outputs - c));
    const i64 width = blocks(lanes, V) * V;
    float* out = packed + (group * padded + c) * total;
    for_each_block(t, [&](int run, int runs, int first, int terms) {
      for (int r = run; r < run + runs; r++)
        for (int term = first; term < first + terms; term++, out += width) {
          const int row = t.merged ? r : r / g.taps_w, column = t.merged ? term / inputs : r % g.taps_w;
          const i64 k = group * inputs + (t.merged ? term % inputs : term);
          const float* in = w + ((k * s.R + tap_row[row]) * s.S + tap_column[column]) * outputs + c;
          for (int v = 0; v < lanes; v += V) store(out + v, load_first(in + v, lanes - v));
        }
    });
  });
}

// Input pixels whose rows and columns leave the same rest when divided by the strides see the same taps: each of these
// phases is a gathering sum of its own. Calls body(sum, tap rows, tap columns); pixels without taps are cleared first.
template <class F>
void for_each_phase(const Conv2dShape& s, const float* dy, float* dx, const F& body) {
  int* row = scratch<int>(cnn::TAPS, 2 * (s.R + s.S));
  int *tap_row = row + s.R, *column = tap_row + s.R, *tap_column = column + s.S;
  const int phases_h = least(s.stride_h, s.H), phases_w = least(s.stride_w, s.W);
  bool all = true;
  for (int a = 0; a < phases_h; a++)
    all = all && phase_taps(a, s.pad_h, s.dilation_h, s.stride_h, s.R, row, tap_row) > 0;
  for (int b = 0; b < phases_w; b++)
    all = all && phase_taps(b, s.pad_w, s.dilation_w, s.stride_w, s.S, column, tap_column) > 0;
  if (!all) {
    const i64 line = static_cast<i64>(s.W) * s.C;
    parallel_pieces(static_cast<i64>(s.N) * s.H, most<i64>(1, 65536 / line), line * 4, [=](i64 begin, i64 end) {
      __builtin_memset(dx + begin * line, 0, static_cast<size_t>((end - begin) * line) * sizeof(float));
    });
  }
  for (int a = 0; a < phases_h; a++)
    for (int b = 0; b < phases_w; b++) {
      const int taps_h = phase_taps(a, s.pad_h, s.dilation_h, s.stride_h, s.R, row, tap_row);
      const int taps_w = phase_taps(b, s.pad_w, s.dilation_w, s.stride_w, s.S, column, tap_column);
      if (taps_h == 0 || taps_w == 0) continue;
      const int rows = static_cast<int>(blocks(s.H - a, s.stride_h)),
                columns = static_cast<int>(blocks(s.W - b, s.stride_w));
      const Gather g{dy, dx,         s.N, s.P,        s.Q, s.K, s.H,      s.W,    s.C,    rows, columns,
                     a,  s.stride_h, b,   s.stride_w, 1,   1,   s.groups, taps_h, taps_w, row,  column};
      body(g, tap_row, tap_column);
    }
}

void implicit_gemm_backward_input(const Conv2dShape& s, const float* dy, const float* w, float* dx) {
  for_each_phase(s, dy, dx, [&](const Gather& g, const int* tap_row, const int* tap_column) {
    float* packed = scratch<float>(cnn::PACKED_WEIGHT, packed_filter_size(terms_of(g), g.groups, g.Kg()));
    pack_backward_filter(s, g, tap_row, tap_column, w, packed);
    run_gather(g, packed, Epilogue{});
  });
}
