// y = x with its axes in another order, float32. Axes that stay neighbours count as one; what is left is rows that lie
// contiguous in both arrays, or squares that are transposed in registers. Bound by memory: 8 bytes an element.

constexpr i64 PERMUTED_ALONG = 64;  // positions along the axis that is contiguous in x, of a work item

// Where the element with the flat index `item` over all axes but `a` and `b` begins, in x and in y.
struct Place {
  i64 x, y;
};

inline Place place_of(const PermuteWalk& w, i64 item, int a, int b) {
  Place place{0, 0};
  i64 pitch = 1;
  for (int axis = w.rank - 1; axis >= 0; axis--) {
    if (axis != a && axis != b) {
      place.x += item % w.size[axis] * w.stride[axis];
      place.y += item % w.size[axis] * pitch;
      item /= w.size[axis];
    }
    pitch *= w.size[axis];
  }
  return place;
}

void permute(const PermuteWalk& w, const float* x, float* y) {
  const int last = w.rank - 1;
  const i64 n = w.size[last];
  i64 elements = 1, pitch = 1;  // pitch: in y, of the axis that is contiguous in x
  int along = last;
  for (int axis = last; axis >= 0; axis--) {
    if (w.stride[axis] == 1) along = axis, pitch = elements;
    elements *= w.size[axis];
  }
  if (along == last) {
    parallel_pieces(elements / n, blocks(4096, n), n * 8, [&](i64 begin, i64 end) {
      for (i64 row = begin; row < end; row++) {
        const Place place = place_of(w, row, last, last);
        __builtin_memcpy(y + place.y, x + place.x, sizeof(float) * n);
      }
    });
    return;
  }
  const i64 m = w.size[along], step = w.stride[last], strips = blocks(m, PERMUTED_ALONG);
  parallel(elements / n / m * strips, elements * 8, [&](i64 item) {
    const Place place = place_of(w, item / strips, along, last);
    const i64 first = item % strips * PERMUTED_ALONG, end = least(m, first + PERMUTED_ALONG);
    if (n < V / 2 || m < V / 2) {  // such as three colours: squares would be mostly empty
      for (i64 j = first; j < end; j++)
        for (i64 i = 0; i < n; i++) y[place.y + j * pitch + i] = x[place.x + i * step + j];
      return;
    }
    for (i64 i = 0; i < n; i += V)  // along y's last axis
      for (i64 j = first; j < end; j += V) {
        const int rows = static_cast<int>(least<i64>(V, n - i)), lanes = static_cast<int>(least<i64>(V, end - j));
        transpose_square(x + place.x + i * step + j, step, rows, lanes, y + place.y + j * pitch + i, pitch, rows);
      }
  });
}
