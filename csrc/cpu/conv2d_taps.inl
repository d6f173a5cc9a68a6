// Forward and backward_input as gathering sums: which taps reach which pixels, and the filter packed for them.

// Taps of the forward pass: all of them, at r * dilation - pad.
inline Gather forward_gather(const Conv2dShape& s, const float* x, float* y, int* taps) {
  for (int r = 0; r < s.R; r++) taps[r] = r * s.dilation_h - s.pad_h;
  for (int t = 0; t < s.S; t++) taps[s.R + t] = t * s.dilation_w - s.pad_w;
  return {x, y, s.N, s.H, s.W,        s.C,        s.P,      s.Q, s.K, s.P,  s.Q,
          0, 1, 0,   1,   s.stride_h, s.stride_w, s.groups, s.R, s.S, taps, taps + s.R};
}

inline Filter forward_filter(const Conv2dShape& s, const float* w) {
  return {w, s.R, s.S, nullptr, nullptr};
}

void pack_forward_filter(const Conv2dShape& s, const float* w, float* packed) {
  int* taps = scratch<int>(cnn::TAPS, s.R + s.S);
  pack_forward_filter(forward_gather(s, nullptr, nullptr, taps), forward_filter(s, w), packed);
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
    run_gather(g, nullptr, {w, s.R, s.S, tap_row, tap_column}, Epilogue{});
  });
}
