// Winograd's convolution, forward and backward_input, for R x R filters without stride, dilation and groups: each tile
// of M x M outputs costs N^2 = (M + R - 1)^2 products a channel and filter instead of M^2 R^2, four times fewer in
// F(4 x 4, 3 x 3), 2.8 times in F(2 x 2, 5 x 5). backward_input is the same sum with the filters turned round and C and
// K exchanged.
//   V[xi][t][c] = transformed inputs of tile t        U[xi][c][k] = transformed filters
//   M[xi][t][k] = sum over c of V[xi][t][c] * U[xi][c][k]: N^2 matrix products, by the register tile
// A work item is a block of tiles and a range of column blocks of filters. The channels are cut into stages, whose
// products are added up in M, one column block after the other. V of all stages is transformed once and serves all
// column blocks, where the room for it is there; else V holds one stage, and each column block transforms it again.
// A tile at the lower or right edge that has fewer outputs takes part in the products of as many points less.

struct WinogradShape {
  int N, H, W, C;  // of x
  int P, Q, K;     // of y
  int top, left;   // y[p, q] is under x[p - top + r, q - left + s]
  int tiles_h, tiles_w;
  int last_h, last_w;  // outputs of the last tile of an axis that exist
  i64 tiles() const { return static_cast<i64>(N) * tiles_h * tiles_w; }
};

// For filters of R x R taps
inline bool winograd_can(const Conv2dShape& s, int R) {
  return s.R == R && s.S == R && s.groups == 1 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 &&
         s.dilation_w == 1;
}

// With tiles of M x M outputs
inline WinogradShape winograd_shape(int verb, const Conv2dShape& s, int M) {
  WinogradShape g{s.N, s.H, s.W, s.C, s.P, s.Q, s.K, s.pad_h, s.pad_w, 0, 0, 0, 0};
  if (verb == BACKWARD_INPUT) g = {s.N, s.P, s.Q, s.K, s.H, s.W, s.C, s.R - 1 - s.pad_h, s.S - 1 - s.pad_w, 0, 0, 0, 0};
  g.tiles_h = static_cast<int>(blocks(g.P, M));
  g.tiles_w = static_cast<int>(blocks(g.Q, M));
  g.last_h = g.P - (g.tiles_h - 1) * M;
  g.last_w = g.Q - (g.tiles_w - 1) * M;
  return g;
}

constexpr int STAGE = 64;           // channels that V and U hold
constexpr int TERMS = 32;           // channels whose products are summed in registers: short sums round less
constexpr int LEAST_CHANNELS = 48;  // the plain sum of fewer has half the rounding error: not chosen
constexpr int WINOGRAD_TILES = 48;  // of a block, at most
alignas(64) constexpr float ZEROS[STAGE] = {};  // what lies outside the image

// The stages of C channels, whole vectors but for the last.
struct Stages {
  int length, count;
};
inline Stages stages_of(int C) {
  const int length = static_cast<int>(blocks(blocks(C, blocks(C, STAGE)), V)) * V;
  return {length, static_cast<int>(blocks(C, length))};
}

// U is [column block][stage][xi][c][width]; V floats between the xi keep them off one cache set.
inline i64 filter_plane(int C, int K) {
  return static_cast<i64>(stages_of(C).length) * columns_for(K).width + V;
}
inline i64 filter_size(int N, int C, int K) {
  return filter_plane(C, K) * N * N * stages_of(C).count * columns_for(K).count;
}

// U of `lanes` filters from k and `channels` channels from c, its xi `plane` floats apart. w is (K, R, R, C); turned,
// it is (C, R, R, K) and its taps are read from the last.
template <int N, int R>
void transform_filters(const float* w, int C, int K, bool turned, int c, int channels, int k, int lanes, float* u,
                       i64 plane) {
  const i64 width = blocks(lanes, V) * V;
  alignas(64) float taps[R * R][V][V];
  for (int v = 0; v < lanes; v += V)
    for (int first = 0; first < channels; first += V) {
      const int rows = least(V, channels - first), columns = least(V, lanes - v);
      if (!turned) {
        const float* in = w + static_cast<i64>(k + v) * R * R * C + c + first;
        for (int tap = 0; tap < R * R; tap++) {
          for (int j = 0; j < columns; j++) prefetch_l2(in + (static_cast<i64>(j) * R * R + tap) * C + V);
          transpose_into(in + static_cast<i64>(tap) * C, static_cast<i64>(R) * R * C, columns, rows, taps[tap][0], V);
        }
      }
      for (int i = 0; i < rows; i++) {
        vec g[R][R];
        if (turned)
          for (int tap = 0; tap < R * R; tap++)
            prefetch_l2(w + (static_cast<i64>(c + first + i + V) * R * R + tap) * K + k + v);
#pragma GCC unroll 25
        for (int tap = 0; tap < R * R; tap++)
          g[tap / R][tap % R] =
              turned ? load_first(w + (static_cast<i64>(c + first + i) * R * R + R * R - 1 - tap) * K + k + v, columns)
                     : load(taps[tap][i]);
        evaluate_tile<N, R, true>(g, u + (first + i) * width + v, plane);
      }
    }
}

// U of all filters. V channels at a time are transformed in the second-level cache and copied from there: memory that
// lies further away is written in runs of pages instead of N^2 places at once.
template <int N, int R>
void transform_all_filters(const float* w, int C, int K, bool turned, float* u) {
  const Columns cut = columns_for(K);
  const Stages stages = stages_of(C);
  const i64 plane = filter_plane(C, K);
  parallel(static_cast<i64>(cut.count) * stages.count, filter_size(N, C, K) * 2, [&](i64 item) {
    const int k = static_cast<int>(item / stages.count) * cut.width;
    const int c = static_cast<int>(item % stages.count) * stages.length;
    const int lanes = least(cut.width, K - k), channels = least(stages.length, C - c);
    const i64 width = blocks(lanes, V) * V, near_plane = V * width + V;
    float* near = scratch<float>(cnn::NEAR_WEIGHT, near_plane * N * N);
    for (int first = 0; first < channels; first += V) {
      const int rows = least(V, channels - first);
      transform_filters<N, R>(w, C, K, turned, c + first, rows, k, lanes, near, near_plane);
      for (int xi = 0; xi < N * N; xi++) {
        const float* in = near + xi * near_plane;
        float* out = u + (item * N * N + xi) * plane + first * width;
        for (i64 i = 0; i < rows * width; i += V) store(out + i, load(in + i));
      }
    }
  });
}

struct WinogradPlan {
  WinogradShape g;
  const float *x, *w, *u;  // u: all filters, transformed; null: each item transforms its own
  bool turned;
  float* y;
  Epilogue epilogue;
  Columns cut;
  Stages stages;
  int block;   // tiles of a work item, at most
  int splits;  // work items that share a block's column blocks
  bool whole;  // V holds all stages
  i64 blocks_of_tiles() const { return blocks(g.tiles(), block); }
  i64 items() const { return blocks_of_tiles() * splits; }
  i64 v_plane() const { return static_cast<i64>(block) * STAGE + V; }
  i64 m_plane() const { return static_cast<i64>(block) * cut.width + V; }
  i64 planes() const { return v_plane() * (whole ? stages.count : 1) + m_plane(); }  // floats an xi of V and M
};

// One tile: the image, its first output, and how many outputs it has.
struct TilePlace {
  i64 n;
  int p, q, rows, columns;
};

// The tiles of a block. Those that take part at a point lie side by side: first the tiles that are short both ways,
// then those short of columns, the whole ones, and those short of rows.
struct BlockTiles {
  TilePlace place[WINOGRAD_TILES];
  int begin[5] = {};  // of each kind, and the end

  int count() const { return begin[4]; }
  int first_at(bool row, bool column) const { return !column ? begin[2] : !row ? begin[1] : 0; }
  int end_at(bool row) const { return row ? begin[4] : begin[3]; }
};

inline BlockTiles sort_tiles(const WinogradShape& g, int M, i64 first, int count) {
  constexpr int KIND[2][2] = {{2, 1}, {3, 0}};  // [short of rows][short of columns]
  TilePlace place[WINOGRAD_TILES];
  int kind[WINOGRAD_TILES];
  BlockTiles tiles;
  int i = static_cast<int>(first / g.tiles_w % g.tiles_h), j = static_cast<int>(first % g.tiles_w);
  i64 n = first / g.tiles_w / g.tiles_h;
  for (int t = 0; t < count; t++) {
    place[t] = {n, i * M, j * M, i + 1 < g.tiles_h ? M : g.last_h, j + 1 < g.tiles_w ? M : g.last_w};
    kind[t] = KIND[place[t].rows < M][place[t].columns < M];
    tiles.begin[kind[t] + 1]++;
    if (++j < g.tiles_w) continue;
    j = 0;
    if (++i < g.tiles_h) continue;
    i = 0;
    n++;
  }
  int next[4];
  for (int k = 0; k < 4; k++) {
    next[k] = tiles.begin[k];
    tiles.begin[k + 1] += tiles.begin[k];
  }
  for (int t = 0; t < count; t++) tiles.place[next[kind[t]]++] = place[t];
  return tiles;
}

// Calls body with the number of outputs as a constant. Tiles larger than 4 x 4 are computed whole: they are rare, and
// have many sizes.
template <int M, int SIZE = M, class F>
inline void with_outputs(int outputs, const F& body) {
  if constexpr (M <= 4 && SIZE > 1) {
    if (outputs < SIZE) return with_outputs<M, SIZE - 1>(outputs, body);
  }
  body(Constant<SIZE>());
}

// V of one tile, from the addresses of its pixels
template <int N, int ROWS, int COLUMNS>
__attribute__((noinline)) void transform_input(const float* const* pixel, int channels, float* v, i64 plane) {
  int i = 0;
  for (; i + V <= channels; i += V) interpolate_tile<N, ROWS, COLUMNS>(pixel, i, V, v + i, plane);
  if (i < channels) interpolate_tile<N, ROWS, COLUMNS>(pixel, i, channels - i, v + i, plane);
}

// V of a block for `channels` channels from c
template <int N, int M>
void transform_inputs(const WinogradShape& g, const float* x, const BlockTiles& tiles, int c, int channels, float* v,
                      i64 plane) {
  for (int t = 0; t < tiles.count(); t++) {
    const TilePlace tile = tiles.place[t];
    const float* pixel[N * N];
    for (int i = 0; i < N * N; i++) {
      const int row = tile.p - g.top + i / N, column = tile.q - g.left + i % N;
      const bool inside = row >= 0 && row < g.H && column >= 0 && column < g.W;
      pixel[i] = inside ? x + ((tile.n * g.H + row) * g.W + column) * g.C + c : ZEROS;
    }
    with_outputs<M>(tile.rows, [&](auto rows) {
      with_outputs<M>(tile.columns, [&](auto columns) {
        transform_input<N, N - M + rows, N - M + columns>(pixel, channels, v + static_cast<i64>(t) * STAGE, plane);
      });
    });
  }
}

// y of one tile for `lanes` filters from k, from M
template <int N, int M, int ROWS, int COLUMNS>
void transform_output(const WinogradPlan& plan, TilePlace tile, int k, int lanes, const float* m) {
  const WinogradShape& g = plan.g;
  const Epilogue epilogue = plan.epilogue;
  const i64 plane = plan.m_plane(), K = g.K, line = g.Q * K, first = ((tile.n * g.P + tile.p) * g.Q + tile.q) * K;
  float* const out = plan.y;
  for (int v = 0; v < lanes; v += V) {
    const int count = lanes - v, channel = k + v;
    vec y[M][M];
    collect_tile<N, M, false, ROWS, COLUMNS>(m + v, plane, y);
    for (int i = 0; i < tile.rows; i++)
      for (int j = 0; j < tile.columns; j++) {
        const i64 at = first + i * line + j * K + channel;
        store_first(out + at, finish_vector(epilogue, y[i][j], channel, at, count), count);
      }
  }
}

// y of a block for `lanes` filters from k, from M
template <int N, int M>
void transform_outputs(const WinogradPlan& plan, const BlockTiles& tiles, int k, int lanes, const float* m) {
  const i64 width = blocks(lanes, V) * V;
  for (int t = 0; t < tiles.count(); t++) {
    const TilePlace tile = tiles.place[t];
    with_outputs<M>(tile.rows, [&](auto rows) {
      with_outputs<M>(tile.columns, [&](auto columns) {
        transform_output<N, M, N - M + rows, N - M + columns>(plan, tile, k, lanes, m + t * width);
      });
    });
  }
}

// M (+)= V U for ROWS tiles and one xi, as many filters as U is wide: the register tile with its rows at constant
// distances, which leaves the sums all of the registers. Every second channel also asks for a cache line of `next`.
template <int ROWS, int VECTORS>
void multiply_tiles(const float* v, const float* u, int channels, bool accumulate, float* m, Lines next) {
  constexpr int WIDTH = VECTORS * V;
  for (int first = 0; first < channels; first += TERMS) {
    vec sums[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int t = 0; t < ROWS; t++)
#pragma GCC unroll 4
      for (int i = 0; i < VECTORS; i++) sums[t][i] = vec{};
    const auto add_channel = [&]() __attribute__((always_inline)) {
      vec filters[VECTORS];
#pragma GCC unroll 4
      for (int i = 0; i < VECTORS; i++) filters[i] = load(u + i * V);
#pragma GCC unroll 16
      for (int t = 0; t < ROWS; t++) {
        const vec input = broadcast(v[t * STAGE]);
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) sums[t][i] += input * filters[i];
      }
      v++;
      u += WIDTH;
    };
    const int length = least(TERMS, channels - first);
    for (int c = 1; c < length; c += 2) {
      if (next.left > 0) {
        prefetch_l2(next.next);
        next.next += CACHE_LINE;
        next.left--;
      }
      add_channel();
      add_channel();
    }
    if (length % 2) add_channel();
#pragma GCC unroll 16
    for (int t = 0; t < ROWS; t++)
#pragma GCC unroll 4
      for (int i = 0; i < VECTORS; i++) {
        float* out = m + t * WIDTH + i * V;
        store(out, accumulate ? sums[t][i] + load(out) : sums[t][i]);
      }
    accumulate = true;
  }
}

using MultiplyTiles = void (*)(const float*, const float*, int, bool, float*, Lines);

template <int VECTORS, int ROWS = 1>
inline MultiplyTiles multiply_tiles_of(int rows) {
  if constexpr (ROWS < TILE_ROWS[VECTORS]) {
    if (rows > ROWS) return multiply_tiles_of<VECTORS, ROWS + 1>(rows);
  }
  return multiply_tiles<ROWS, VECTORS>;
}

inline MultiplyTiles multiply_tiles_of(int rows, int vectors) {
  switch (vectors) {
    case 1:
      return multiply_tiles_of<1>(rows);
    case 2:
      return multiply_tiles_of<2>(rows);
#if defined(__AVX512F__)
    case 3:
      return multiply_tiles_of<3>(rows);
    default:
      return multiply_tiles_of<4>(rows);
#else
    default:
      return multiply_tiles_of<2>(rows);
#endif
  }
}

// M (+)= V U for the `channels` of a stage, `first` being the first one; meanwhile the filters of the next xi are asked
// for.
template <int N, int M>
void multiply_planes(const WinogradPlan& plan, const BlockTiles& block, bool first, int channels, int lanes,
                     const float* v, const float* u, float* m) {
  const i64 u_plane = filter_plane(plan.g.C, plan.g.K);
  const int vectors = static_cast<int>(blocks(lanes, V));
  const int points_h = M <= 4 ? N - M + plan.g.last_h : N, points_w = M <= 4 ? N - M + plan.g.last_w : N;
  for (int xi = 0; xi < N * N; xi++) {
    const bool row = has_point<N>(points_h, xi / N), column = has_point<N>(points_w, xi % N);
    int t = block.first_at(row, column);
    const int end = block.end_at(row), steps = static_cast<int>(blocks(end - t, TILE_ROWS[vectors]));
    Lines next = lines_of(u + u_plane, plan.u && xi + 1 < N * N ? u_plane : 0);
    for (int step = 0; step < steps; step++) {
      const int rows = static_cast<int>(blocks(end - t, steps - step));
      multiply_tiles_of(rows, vectors)(v + t * STAGE, u, channels, !first, m + t * vectors * V,
                                       next.take(channels / 2));
      t += rows;
    }
    v += plan.v_plane();
    u += u_plane;
    m += plan.m_plane();
  }
}

template <int M, int R>
void winograd_item(const WinogradPlan& plan, i64 item) {
  constexpr int N = M + R - 1;
  const WinogradShape& g = plan.g;
  const i64 split = item % plan.splits, first = item / plan.splits * plan.block;
  const BlockTiles tiles = sort_tiles(g, M, first, static_cast<int>(least<i64>(plan.block, g.tiles() - first)));
  const int first_block = static_cast<int>(split * plan.cut.count / plan.splits);
  const int last_block = static_cast<int>((split + 1) * plan.cut.count / plan.splits);
  const i64 u_plane = filter_plane(g.C, g.K), v_stage = plan.whole ? plan.v_plane() * N * N : 0;
  float* m = scratch<float>(cnn::PANEL, plan.planes() * N * N);
  float* v = m + plan.m_plane() * N * N;
  float* own = plan.u ? nullptr : scratch<float>(cnn::PACKED_WEIGHT, u_plane * N * N);
  for (int block = first_block; block < last_block; block++) {
    const int k = block * plan.cut.width, lanes = least(plan.cut.width, g.K - k);
    for (int stage = 0; stage < plan.stages.count; stage++) {
      const int c = stage * plan.stages.length, channels = least(plan.stages.length, g.C - c);
      float* stage_v = v + stage * v_stage;
      if (block == first_block || !plan.whole)
        transform_inputs<N, M>(g, plan.x, tiles, c, channels, stage_v, plan.v_plane());
      if (own) transform_filters<N, R>(plan.w, g.C, g.K, plan.turned, c, channels, k, lanes, own, u_plane);
      const float* u = own ? own : plan.u + (static_cast<i64>(block) * plan.stages.count + stage) * N * N * u_plane;
      multiply_planes<N, M>(plan, tiles, stage == 0, channels, lanes, stage_v, u, m);
    }
    transform_outputs<N, M>(plan, tiles, k, lanes, m);
  }
}

// Chooses the work items; results do not depend on it. What all threads hold of V and M stays below x and y together,
// down to one tile each.
template <int M, int R>
WinogradPlan winograd_plan(int verb, const Conv2dShape& s) {
  constexpr int N = M + R - 1;
  const i64 threads = cnn::thread_count();
  WinogradPlan plan;
  plan.g = winograd_shape(verb, s, M);
  const WinogradShape& g = plan.g;
  plan.cut = columns_for(g.K);
  plan.stages = stages_of(g.C);
  const i64 wanted = blocks(g.tiles(), WINOGRAD_TILES);
  const i64 even = wanted == 1 ? 1 : least(blocks(wanted, threads) * threads, g.tiles());  // as many for each thread
  const i64 room = static_cast<i64>(s.N) * (static_cast<i64>(s.H) * s.W * s.C + static_cast<i64>(s.P) * s.Q * s.K);
  const auto fits = [&](bool whole, int block) {
    plan.whole = whole;
    plan.block = block;
    const i64 count = plan.blocks_of_tiles(), shares = count % threads == 0 ? 1 : blocks(2 * threads, count);
    plan.splits = whole ? static_cast<int>(least<i64>(plan.cut.count, shares)) : plan.cut.count;
    return plan.planes() * N * N * least(threads, plan.items()) <= room;
  };
  int block = static_cast<int>(blocks(g.tiles(), even));
  if (!fits(true, block) && !fits(true, static_cast<int>(blocks(block, 2))))
    while (!fits(false, block) && block > 1) block = static_cast<int>(blocks(block, 2));
  return plan;
}

template <int M, int R>
void winograd_gather(int verb, const Conv2dShape& s, const float* x, const float* w, const float* u, float* y,
                     const Epilogue& e) {
  constexpr int N = M + R - 1;
  WinogradPlan plan = winograd_plan<M, R>(verb, s);
  const WinogradShape& g = plan.g;
  plan.x = x;
  plan.w = w;
  plan.u = u;
  plan.turned = verb == BACKWARD_INPUT;
  plan.y = y;
  plan.epilogue = e;
  if (!u && plan.blocks_of_tiles() > 1) {  // several work items need each filter
    float* all = scratch<float>(cnn::PACKED_WEIGHT, filter_size(N, g.C, g.K));
    transform_all_filters<N, R>(w, g.C, g.K, plan.turned, all);
    plan.u = all;
  }
  parallel(plan.items(), plan.g.tiles() * N * N * g.C * g.K / 4, [&](i64 item) { winograd_item<M, R>(plan, item); });
}

// F(4 x 4, 3 x 3) or F(2 x 2, 5 x 5): 6 points both
inline bool winograd_can(const Conv2dShape& s) {
  return winograd_can(s, 3) || winograd_can(s, 5);
}

inline void winograd(int verb, const Conv2dShape& s, const float* x, const float* w, const float* u, float* y,
                     const Epilogue& e) {
  return s.R == 3 ? winograd_gather<4, 3>(verb, s, x, w, u, y, e) : winograd_gather<2, 5>(verb, s, x, w, u, y, e);
}

// How many of `taps` lie inside an axis of `size`, all outputs together; the first tap of output 0 is at -before.
inline double taps_inside(int outputs, int taps, int before, int size) {
  double count = 0;
  for (int t = 0; t < taps; t++) count += most(0, least(outputs, size + before - t) - most(0, before - t));
  return count;
}

// Whether it is expected to win: its products, a channel and filter, against those of the plain sum. A transformed
// filter costs what 51 products a tap do, and a transformed tile 800, measured with AVX-512 and 2 threads.
inline bool winograd_wins(int verb, const Conv2dShape& s) {
  if (!winograd_can(s)) return false;
  const int taps = s.R * s.S, M = 7 - s.R;
  const WinogradShape g = winograd_shape(verb, s, M);
  if (g.C < LEAST_CHANNELS) return false;
  const double tiles = static_cast<double>(g.tiles()), rows = 6 * g.tiles_h - M + g.last_h,
               columns = 6 * g.tiles_w - M + g.last_w;  // points along an image
  const double products = g.N * rows * columns + 51 * taps + 800 * tiles * (1.0 / g.C + 1.0 / g.K);
  return 1.2 * products < g.N * taps_inside(g.P, s.R, g.top, g.H) * taps_inside(g.Q, s.S, g.left, g.W);
}
