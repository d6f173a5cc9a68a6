// The register tile that convolutions and matrix products share:
//   y[p][k] (+)= sum over runs and i of a[row[p] + a_run[run] + i * a_step] * b[run][i][k]
// for ROWS values of p and VECTORS * V values of k, all sums in registers. A row is any address, so a tile crosses
// image rows and images, and padding costs nothing. Each step loads VECTORS vectors of b and ROWS scalars of a for
// ROWS * VECTORS fused multiply-adds: 10 loads for 24 in the 6 x 64 tile of AVX-512. Every second step also asks for a
// cache line of what comes next, so that the memory works while the tile is bound by arithmetic.

constexpr i64 CACHE_LINE = 64;  // bytes

// Cache lines that will be wanted soon.
struct Lines {
  const char* next;  // to ask for
  i64 left;

  Lines take(i64 most_lines) {
    const Lines taken{next, least(most_lines, left)};
    next += taken.left * CACHE_LINE;
    left -= taken.left;
    return taken;
  }
};

inline Lines lines_of(const float* p, i64 floats) {
  return {reinterpret_cast<const char*>(p), most<i64>(0, floats) * static_cast<i64>(sizeof(float)) / CACHE_LINE};
}

// The next part of b, and the rows of the next work item, which are asked for after it.
struct Ahead {
  Lines b, a;
};

struct Operands {
  const float* a;
  const i64* a_run;  // (runs,) added to a row's address
  i64 a_step;        // 1: a's rows lie along the sum; else a lies across it
  const float* b;
  const i64* b_run;        // (runs,) added to b; null: a run follows on the one before
  i64 b_step;              // from one step of the sum to the next
  i64 runs, length;        // the sum has runs * length terms
  Ahead* ahead = nullptr;  // null: nothing
};

struct TileOutput {
  float* y;
  int lanes;        // floats of a row that are stored, up to VECTORS * V
  bool accumulate;  // add to y: the sum so far. Each part starts from 0, which also keeps rounding errors small
  bool finishes;    // this part is the last: apply the epilogue, whose pointers belong to column 0 of y
  Epilogue epilogue;
  bool streams = false;  // y's rows are aligned, whole vectors, and go past the caches
};

constexpr int MOST_ROWS = 12;
constexpr int MOST_LANES = TILE_VECTORS * V;

// The epilogue of `lanes` values: of columns k.., at address `at` of the residual.
inline vec finish_vector(const Epilogue& e, vec t, i64 k, i64 at, int lanes) {
  if (e.bias) t += load_first(e.bias + k, lanes);
  if (e.scale) t *= load_first(e.scale + k, lanes);
  if (e.shift) t += load_first(e.shift + k, lanes);
  if (e.residual) t += load_first(e.residual + at, lanes);
  return activate(e.activation, t);
}

// Adds to y or applies the epilogue, a row at a time, from the tile's sums in the first-level cache.
void finish_tile(const float (*sums)[MOST_LANES], int rows, const i64* at, const TileOutput& out) {
  const Epilogue& e = out.epilogue;
  for (int p = 0; p < rows; p++) {
    float* y = out.y + at[p];
    for (int k = 0; k < out.lanes; k += V) {
      const int lanes = out.lanes - k;
      vec t = load(sums[p] + k);
      if (out.accumulate) t += load_first(y + k, lanes);
      if (out.finishes) t = finish_vector(e, t, k, at[p] + k, lanes);
      if (out.streams) {
        store_stream(y + k, t);
      } else {
        store_first(y + k, t, lanes);
      }
    }
  }
}

// One of `lines` is asked for in two steps.
template <int ROWS, int VECTORS>
void multiply_tile(const Operands& o, const i64* row, const i64* at, const TileOutput& out, const Lines& lines) {
  vec sums[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int p = 0; p < ROWS; p++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) sums[p][v] = vec{};
  const auto add_runs = [&](auto a_step, auto b_step) __attribute__((always_inline)) {
    const i64 length = o.length;
    const float* b = o.b;
    const char* line = lines.next;
    i64 left = lines.left;
    for (i64 run = 0; run < o.runs; run++) {
      if (o.b_run) b = o.b + o.b_run[run];
      const float* a[ROWS];
#pragma GCC unroll 16
      for (int p = 0; p < ROWS; p++) a[p] = o.a + row[p] + o.a_run[run];
      i64 at_a = 0;
      const auto step = [&]() __attribute__((always_inline)) {
        vec bv[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) bv[v] = load(b + v * V);
#pragma GCC unroll 16
        for (int p = 0; p < ROWS; p++) {
          const vec av = broadcast(a[p][at_a]);
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; v++) sums[p][v] += av * bv[v];
        }
        at_a += a_step;
        b += b_step;
      };
      for (i64 i = 1; i < length; i += 2) {
        if (left > 0) {
          prefetch_l2(line);
          line += CACHE_LINE;
          left--;
        }
        step();
        step();
      }
      if (length % 2) step();
    }
  };
  if (o.a_step == 1 && o.b_step == VECTORS * V) {  // packed: steps that the compiler knows cost no registers
    add_runs(Constant<1>(), Constant<VECTORS * V>());
  } else {
    add_runs(o.a_step, o.b_step);
  }
  if (!out.finishes && out.lanes == VECTORS * V) {
#pragma GCC unroll 16
    for (int p = 0; p < ROWS; p++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        float* y = out.y + at[p] + v * V;
        if (out.accumulate) {
          store(y, sums[p][v] + load(y));
        } else if (out.streams) {
          store_stream(y, sums[p][v]);
        } else {
          store(y, sums[p][v]);
        }
      }
    return;
  }
  alignas(64) float kept[ROWS][MOST_LANES];
#pragma GCC unroll 16
  for (int p = 0; p < ROWS; p++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) store(kept[p] + v * V, sums[p][v]);
  finish_tile(kept, ROWS, at, out);
}

using MultiplyTile = void (*)(const Operands&, const i64*, const i64*, const TileOutput&, const Lines&);

// A tile of `rows` rows, at most TILE_ROWS[VECTORS].
template <int VECTORS, int ROWS = 1>
inline MultiplyTile tile_of(int rows) {
  if constexpr (ROWS < TILE_ROWS[VECTORS]) {
    if (rows > ROWS) return tile_of<VECTORS, ROWS + 1>(rows);
  }
  return multiply_tile<ROWS, VECTORS>;
}

inline MultiplyTile tile_of(int rows, int vectors) {
  switch (vectors) {
    case 1:
      return tile_of<1>(rows);
    case 2:
      return tile_of<2>(rows);
#if defined(__AVX512F__)
    case 3:
      return tile_of<3>(rows);
    default:
      return tile_of<4>(rows);
#else
    default:
      return tile_of<2>(rows);
#endif
  }
}

// `count` rows in tiles of nearly equal height. row and at: (count,) addresses in a and y.
void multiply_rows(const Operands& o, i64 count, const i64* row, const i64* at, const TileOutput& out) {
  const int vectors = static_cast<int>(blocks(out.lanes, V));
  const i64 tiles = blocks(count, TILE_ROWS[vectors]);
  for (i64 tile = 0, p = 0; tile < tiles; tile++) {
    const int rows = static_cast<int>(blocks(count - p, tiles - tile));
    Lines lines{nullptr, 0};
    if (o.ahead) lines = (o.ahead->b.left > 0 ? o.ahead->b : o.ahead->a).take(o.runs * (o.length / 2));
    tile_of(rows, vectors)(o, row + p, at + p, out, lines);
    p += rows;
  }
}

// Columns 0..K-1 of a result in blocks of nearly equal width, whole vectors but for the last.
struct Columns {
  int width;  // of every block but the last, in floats
  int count;  // of blocks
};

inline Columns columns_for(int K) {
  const int vectors = static_cast<int>(blocks(K, V)), count = static_cast<int>(blocks(vectors, TILE_VECTORS));
  const int each = static_cast<int>(blocks(vectors, count));
  return {each * V, static_cast<int>(blocks(vectors, each))};
}
