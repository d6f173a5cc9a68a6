// Pooling backward.

// The windows along one axis that hold an input position: (output position, tap), ascending.
struct Holder {
  int output, tap, size;  // size: taps that count for the average
};
struct Reach {
  int* first;  // (positions + 1,) numbers of a position's holders
  Holder* holders;
};

// Fills first (size + 1,) and holders (outputs * taps,) from window(output).
template <class F>
Reach reach(int size, int outputs, int dilation, const F& window, int* first, Holder* holders) {
  for (int i = 0; i <= size; i++) first[i] = 0;
  for (int o = 0; o < outputs; o++) {
    const Window w = window(o);
    for (int t = w.first; t < w.last; t++) first[w.start + t * dilation + 1]++;
  }
  for (int i = 0; i < size; i++) first[i + 1] += first[i];
  for (int o = 0; o < outputs; o++) {
    const Window w = window(o);
    for (int t = w.first; t < w.last; t++) holders[first[w.start + t * dilation]++] = {o, t, w.size};
  }
  for (int i = size; i > 0; i--) first[i] = first[i - 1];
  first[0] = 0;
  return {first, holders};
}

// What an input pixel reads.
struct PoolGather {
  const Pool2dShape& s;
  const float* dy;  // of the image
  const Holder *row, *row_end, *column, *column_end;
  bool stream;
};

// What a window hands back to the input at its tap: an average's share, or all to a maximum's winner.
inline vec share_of(const NoIndex*, i64, int, int, vec gradient, float share) {
  return gradient * share;
}
template <class Index>
inline vec share_of(const Index* index, i64 at, int lanes, int tap, vec gradient, float) {
  return load_index(index + at, lanes) == tap ? gradient : vec{};
}

// The gradient of channels c .. c + VECTORS * V of an input pixel, or of `lanes` of one vector; index: of the image.
template <class Index, int VECTORS>
inline void gather_pixel(const PoolGather& g, const Index* index, int c, int lanes, float* dx) {
  vec total[VECTORS] = {};
  for (const Holder* i = g.row; i < g.row_end; i++)
    for (const Holder* j = g.column; j < g.column_end; j++) {
      const i64 at = (static_cast<i64>(i->output) * g.s.Q + j->output) * g.s.C + c;
      const float share = 1.0f / divisor_of(g.s, i->size, j->size);
      const int tap = i->tap * g.s.S + j->tap;
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        const vec gradient = VECTORS == 1 ? load_first(g.dy + at, lanes) : load(g.dy + at + v * V);
        total[v] += share_of(index, at + v * V, lanes, tap, gradient, share);
      }
    }
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) store_pooled(g.stream, dx + c + v * V, total[v], lanes);
}

// Two neighbouring input pixels of which a window holds both, and the next window the second only: such pairs make the
// rows under 3 x 3 windows two apart. `count` of them from input column `first` on, alike but for the windows.
struct PixelPairs {
  int first, count;
};

inline PixelPairs pixel_pairs(const Reach& columns, int size) {
  const auto is_pair = [&](int w) {
    const int* begin = columns.first + w;
    const Holder* h = columns.holders + begin[0];
    return w + 1 < size && begin[1] == begin[0] + 1 && begin[2] == begin[1] + 2 && h[1].output == h->output &&
           h[2].output == h->output + 1;
  };
  PixelPairs pairs{0, 0};
  while (pairs.first < size && !is_pair(pairs.first)) pairs.first++;
  const Holder* h = columns.holders + columns.first[pairs.first];
  const auto alike = [&](const Holder& a, const Holder& b) { return a.tap == b.tap && a.size == b.size; };
  for (int w = pairs.first; is_pair(w); w += 2, pairs.count++) {
    const Holder* other = h + 3 * pairs.count;
    if (!alike(h[0], other[0]) || !alike(h[1], other[1]) || !alike(h[2], other[2]) ||
        other->output != h->output + pairs.count)
      break;
  }
  return pairs;
}

// `count` pairs of pixels under ROWS rows of windows, channels [0, blocked); g.column: the first pair's holders.
template <class Index, int VECTORS, int ROWS>
__attribute__((noinline)) void gather_pairs(const PoolGather& g, const Index* index, int count, int blocked,
                                            float* dx) {
  const i64 channels = g.s.C;
  const Holder* h = g.column;
  const bool stream = g.stream;
  i64 at[ROWS];
  int taps[ROWS][3];
  float shares[ROWS][3];
  for (int i = 0; i < ROWS; i++) {
    at[i] = (static_cast<i64>(g.row[i].output) * g.s.Q + h->output) * channels;
    for (int j = 0; j < 3; j++) {
      taps[i][j] = g.row[i].tap * g.s.S + h[j].tap;
      shares[i][j] = 1.0f / divisor_of(g.s, g.row[i].size, h[j].size);
    }
  }
  for (int pair = 0; pair < count; pair++, dx += 2 * channels)
    for (int c = 0; c < blocked; c += VECTORS * V) {
      vec first[VECTORS] = {}, second[VECTORS] = {};
#pragma GCC unroll 2
      for (int i = 0; i < ROWS; i++) {
        const i64 here = at[i] + pair * channels + c, next = here + channels;
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          const vec left = load(g.dy + here + v * V), right = load(g.dy + next + v * V);
          first[v] += share_of(index, here + v * V, V, taps[i][0], left, shares[i][0]);
          second[v] += share_of(index, here + v * V, V, taps[i][1], left, shares[i][1]);
          second[v] += share_of(index, next + v * V, V, taps[i][2], right, shares[i][2]);
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        store_pooled(stream, dx + c + v * V, first[v], V);
        store_pooled(stream, dx + channels + c + v * V, second[v], V);
      }
    }
}

template <class Index>
void gather_windows(const Pool2dShape& shape, const float* dy, const Index* index, float* dx) {
  const Pool2dShape s = shape;
  const i64 holders = static_cast<i64>(s.P) * s.R + static_cast<i64>(s.Q) * s.S;
  Holder* table = scratch<Holder>(cnn::OFFSETS, holders);
  int* first = scratch<int>(cnn::TAPS, s.H + s.W + 2);
  const Reach rows = reach(s.H, s.P, s.dilation_h, [&](int p) { return rows_of(s, p); }, first, table);
  const Reach columns = reach(
      s.W, s.Q, s.dilation_w, [&](int q) { return columns_of(s, q); }, first + s.H + 1,
      table + static_cast<i64>(s.P) * s.R);
  const PixelPairs pairs = pixel_pairs(columns, s.W);
  const int blocked = s.C - s.C % (POOL_VECTORS * V);
  const i64 lines = static_cast<i64>(s.N) * s.H, line = static_cast<i64>(s.W) * s.C;
  const bool stream = s.C % V == 0 && is_aligned(dx) && lines * line * 4 > STREAM_BYTES;
  parallel_pieces(lines, most<i64>(1, 16384 / line), line * 8, [&](i64 begin, i64 end) {
    for (i64 number = begin; number < end; number++) {
      const i64 n = number / s.H, h = number % s.H, image = n * s.P * s.Q * s.C;
      PoolGather g{s,       dy + image, rows.holders + rows.first[h], rows.holders + rows.first[h + 1], nullptr,
                   nullptr, stream};
      const Index* indices = index_at(index, image);
      float* out = dx + number * line;
      const i64 windows = g.row_end - g.row;
      const bool paired = blocked > 0 && pairs.count > 0 && (windows == 1 || windows == 2);
      if (paired) {
        g.column = columns.holders + columns.first[pairs.first];
        (windows == 1 ? gather_pairs<Index, POOL_VECTORS, 1>
                      : gather_pairs<Index, POOL_VECTORS, 2>)(g, indices, pairs.count, blocked,
                                                              out + static_cast<i64>(pairs.first) * s.C);
      }
      for (int w = 0; w < s.W; w++, out += s.C) {
        int c = paired && w >= pairs.first && w < pairs.first + 2 * pairs.count ? blocked : 0;
        if (c == s.C) continue;
        g.column = columns.holders + columns.first[w];
        g.column_end = columns.holders + columns.first[w + 1];
        for (; c < blocked; c += POOL_VECTORS * V) gather_pixel<Index, POOL_VECTORS>(g, indices, c, V, out);
        for (; c < s.C; c += V) gather_pixel<Index, 1>(g, indices, c, least(V, s.C - c), out);
      }
    }
    if (stream) stream_fence();
  });
}

// Whether the windows cover the input, each element once.
inline bool tiles_input(const Pool2dShape& s) {
  return !s.adaptive && s.dilation_h == 1 && s.dilation_w == 1 && s.pad_h == 0 && s.pad_w == 0 && s.R == s.stride_h &&
         s.S == s.stride_w && s.P * s.R == s.H && s.Q * s.S == s.W;
}

// Windows that tile an input of few channels: each hands its gradient to its own elements. Where the S * C elements of
// a window's row fit a vector, several windows are taken together: lane i of the V * j.. elements under them belongs to
// tap column[j][i], and to lane source[j][i] of their gradients.
struct WindowsTogether {
  int count;  // of windows, at most two vectors of elements
  veci source[2]{}, column[2]{};
  explicit WindowsTogether(const Pool2dShape& s) {
    const int width = s.S * s.C;
    count = least(s.Q, least(V / s.C, 2 * V / width));
    for (int i = 0; i < count * width; i++) {
      source[i / V][i % V] = i / width * s.C + i % s.C;
      column[i / V][i % V] = i % width / s.C;
    }
  }
};

inline vec shares_of(const NoIndex*, int, veci, veci, vec gradients, float share) {
  return gradients * share;
}
template <class Index>
inline vec shares_of(const Index* index, int lanes, veci source, veci taps, vec gradients, float) {
  const vec winner = reinterpret_cast<vec>(load_index(index, lanes));
  return reinterpret_cast<veci>(shuffle(winner, winner, source)) == taps ? gradients : vec{};
}

template <class Index>
void spread_windows_together(const Pool2dShape& s, i64 begin, i64 end, const float* dy, const Index* index, float share,
                             float* dx) {
  const WindowsTogether together(s);
  const i64 line = static_cast<i64>(s.W) * s.C;
  const int lanes = together.count * s.C, elements = lanes * s.S;
  for (i64 row = begin; row < end; row++)
    for (int q = 0; q < s.Q; q += together.count) {
      const int window = least(q, s.Q - together.count);  // the last ones overlap those before
      const i64 at = (row * s.Q + window) * s.C;
      const vec gradient = load_first(dy + at, lanes);
      float* out = dx + row * s.R * line + static_cast<i64>(window) * s.S * s.C;
      for (int j = 0; j * V < elements; j++) {
        const vec gradients = shuffle(gradient, gradient, together.source[j]);
        for (int r = 0; r < s.R; r++)
          store_first(
              out + r * line + j * V,
              shares_of(index_at(index, at), lanes, together.source[j], together.column[j] + r * s.S, gradients, share),
              elements - j * V);
      }
    }
}

template <class Index>
void spread_pixels(const Pool2dShape& s, i64 begin, i64 end, const float* dy, const Index* index, float share,
                   float* dx) {
  const i64 line = static_cast<i64>(s.W) * s.C;
  for (i64 row = begin; row < end; row++)
    for (int q = 0; q < s.Q; q++)
      for (int c = 0; c < s.C; c += V) {
        const int lanes = least(V, s.C - c);
        const i64 at = (row * s.Q + q) * s.C + c;
        const vec gradient = load_first(dy + at, lanes);
        float* out = dx + row * s.R * line + static_cast<i64>(q) * s.S * s.C + c;
        for (int r = 0; r < s.R; r++)
          for (int t = 0; t < s.S; t++)
            store_first(out + r * line + static_cast<i64>(t) * s.C,
                        share_of(index, at, lanes, r * s.S + t, gradient, share), lanes);
      }
}

template <class Index>
void spread_windows(const Pool2dShape& shape, const float* dy, const Index* index, float* dx) {
  const Pool2dShape s = shape;
  const float share = 1.0f / divisor_of(s, s.R, s.S);
  const i64 size = static_cast<i64>(s.R) * s.W * s.C;
  const auto spread = s.S * s.C <= V ? spread_windows_together<Index> : spread_pixels<Index>;
  parallel_pieces(static_cast<i64>(s.N) * s.P, most<i64>(1, 16384 / size), size * 8,
                  [=](i64 begin, i64 end) { spread(s, begin, end, dy, index, share, dx); });
}

template <class Index>
void pool2d_backward(const Pool2dShape& s, const float* dy, const Index* index, float* dx) {
  (tiles_input(s) && s.C < POOL_VECTORS * V ? spread_windows<Index> : gather_windows<Index>)(s, dy, index, dx);
}
