// Max-pooling forward of 3 x 3 windows two rows apart, as ResNet begins: 6 comparisons a window instead of 8, for the
// windows of two rows share an input row, whose three taps are compared once.

// The largest of three neighbouring taps and its number, counted from `tap`; the first of equal ones.
// total: the sum of the last two.
template <int VECTORS>
inline void max_of_three(const float* at, i64 step, int tap, vec* best, veci* winner, vec* total) {
  veci first = veci{} + tap, second = veci{} + (tap + 1), third = veci{} + (tap + 2);
  in_register(first, second, third);
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) {
    vec a = load(at + v * V), b = load(at + step + v * V), c = load(at + 2 * step + v * V);
    in_register(a, b, c);
    const vec ab = at_least(a, b);
    winner[v] = c > ab ? third : b > a ? second : first;
    best[v] = at_least(ab, c);
    total[v] += b + c;
  }
}

// What a row of 3 x 3 windows, two input rows apart, leaves for the row below: the maxima of the input row that they
// share and their taps, (windows, C).
struct SharedRow {
  float* best;
  u8* tap;
};

// `windows` whole 3 x 3 windows beside each other from p on, `step` floats from one to the next; channels [0, blocked).
// ABOVE: their first row's maxima are in `shared`, where their last row's are left. False, and what was stored is to be
// replaced, where an input is NaN that no other window looks at: not one of a first row from above nor, after the first
// window, of a first column.
template <class Index, int VECTORS, bool ABOVE>
__attribute__((noinline)) bool max_of_rows(const PoolWindow& p, int windows, i64 step, int channels, int blocked,
                                           SharedRow shared, float* y, Index* index) {
  bool numbers = true;
  const i64 column_step = p.column_step, row_step = p.row_step, ahead = p.ahead;
  const bool stream = p.stream;
  const int ahead_from = 3 - p.ahead_w;
  for (int q = 0; q < windows; q++)
    for (int c = 0; c < blocked; c += VECTORS * V) {
      vec best[VECTORS], row_best[VECTORS], total[VECTORS];
      veci winner[VECTORS], row_winner[VECTORS];
      const float* at = p.x + q * step + c;
      const i64 out = static_cast<i64>(q) * channels + c;
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        total[v] = vec{};
        if (q == 0)
          for (int r = ABOVE; r < 3; r++) total[v] += load(at + r * row_step + v * V);
      }
      if constexpr (ABOVE) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          best[v] = load(shared.best + out + v * V);
          winner[v] = load_bytes(shared.tap + out + v * V, V);
        }
      } else {
        max_of_three<VECTORS>(at, column_step, 0, best, winner, total);
      }
#pragma GCC unroll 2
      for (int r = 1; r < 3; r++) {
        at += row_step;
        max_of_three<VECTORS>(at, column_step, 3 * r, row_best, row_winner, total);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          winner[v] = row_best[v] > best[v] ? row_winner[v] : winner[v];
          best[v] = at_least(best[v], row_best[v]);
        }
        if (ahead)
          for (int t = ahead_from; t < 3; t++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) prefetch_l2(at + t * column_step + v * V + ahead);
      }
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        store_pooled(stream, y + out + v * V, best[v], V);
        store_index(index_at(index, out + v * V), winner[v], V);
        store(shared.best + out + v * V, row_best[v]);
        store_bytes(shared.tap + out + v * V, row_winner[v] - 6, V);
      }
      numbers &= !any_nan(total[0], total[1 % VECTORS], total[2 % VECTORS], total[3 % VECTORS]);
    }
  return numbers;
}

// 3 x 3 windows, two rows apart, of at least POOL_VECTORS * V channels.
template <class Index>
void max_forward_of_rows(const Pool2dShape& shape, const float* x, float* y, Index* index) {
  const Pool2dShape s = shape;
  const i64 rows = static_cast<i64>(s.N) * s.P, size = least<i64>(16, blocks(rows, 4 * cnn::thread_count()));
  const int blocked = s.C - s.C % (POOL_VECTORS * V);
  for_each_piece(s, size, x, y, [=](i64 begin, i64 end, const Window* columns, const auto& line_of) {
    const i64 shared_size = static_cast<i64>(s.Q) * s.C;
    float* best = scratch<float>(cnn::PIXELS, shared_size + blocks(shared_size, 4));
    const SharedRow shared{best, reinterpret_cast<u8*>(best + shared_size)};
    int first = 0, last = s.Q;  // whole windows
    while (first < last && !is_whole(columns[first], 3)) first++;
    while (first < last && !is_whole(columns[last - 1], 3)) last--;
    bool above = false;  // whether the row above left its maxima, of which none is NaN
    for (i64 row = begin; row < end; row++) {
      PoolWindow p = line_of(row);
      const float* line = p.x;
      const auto move_to = [&](int q) {
        p.w = columns[q];
        p.x = line + static_cast<i64>(p.w.start) * s.C;
        return (row * s.Q + q) * s.C;
      };
      above = above && row % s.P > 0;
      bool numbers = false;
      if (is_whole(p.h, 3) && first < last) {
        const i64 out = move_to(first);
        numbers =
            (above ? max_of_rows<Index, POOL_VECTORS, true>
                   : max_of_rows<Index, POOL_VECTORS, false>)(p, last - first, static_cast<i64>(s.stride_w) * s.C, s.C,
                                                              blocked, shared, y + out, index_at(index, out));
      }
      for (int q = 0; q < s.Q; q++) {
        const int done = numbers && q >= first && q < last ? blocked : 0;
        if (done == s.C) continue;
        const i64 out = move_to(q);
        max_channels(p, done, s.C, y + out, index_at(index, out));
      }
      above = numbers;
    }
  });
}
