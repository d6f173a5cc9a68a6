// The register tile of backward_weight: outer products of pixels, added up,
//   y[p][k] (+)= sum over pixels of a[pixel][p] * b[pixel][k]
// for ROWS neighbouring p and VECTORS * V neighbouring k, all sums in registers. Neighbouring p share a cache line or
// two, so a pixel costs one pointer step on either side. Pixels come in lines: steps of a fixed size within a line, any
// address for its beginning.

// What the next band will read, asked for a few cache lines at a time while this band is computed: `left` pieces of
// `lines` cache lines, `step` floats apart, `each` of them with every line of pixels.
struct BandAhead {
  const float* at;
  i64 step;
  int lines, each;
  i64 left;
  void advance() {
    for (i64 i = least<i64>(each, left); i > 0; i--, left--, at += step)
      for (int line = 0; line < lines; line++) prefetch_l2(at + 16 * line);
  }
};

// `channels` of each of `pixels` pixels that lie `pitch` floats apart, within `advances` calls of advance.
inline BandAhead band_ahead(const float* from, i64 pixels, i64 pitch, i64 channels, i64 advances) {
  constexpr i64 LINE = 16;
  const bool whole = channels == pitch;
  const i64 pieces = whole ? blocks(pixels * pitch, LINE) : pixels;
  return {from, whole ? LINE : pitch, whole ? 1 : static_cast<int>(blocks(channels, LINE)),
          static_cast<int>(blocks(pieces, most<i64>(1, advances))), pieces};
}

struct OuterProducts {
  i64 a_step, b_step;          // from a pixel of a line to the next
  const i64 *a_line, *b_line;  // (lines,) where lines begin; null: a line follows on the one before
  i64 pixels, length;          // of all lines, and of each but the last
  i64 y_pitch;
  int lanes;        // columns of y, more than (VECTORS - 1) * V
  bool accumulate;  // add to y, else overwrite it
  float* kept;      // null, or room for a tile: each line's sum starts from 0, and is then added to those before it
  BandAhead *ahead_a, *ahead_b;
};

template <int ROWS, int VECTORS>
void add_outer_products(const OuterProducts& o, const float* a, const float* b, float* y) {
  vec sums[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int p = 0; p < ROWS; p++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) sums[p][v] = vec{};
#pragma GCC unroll 16
  for (int p = 0; p < ROWS; p++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) prefetch_l1(y + p * o.y_pitch + v * V);
  const i64 a_step = o.a_step, b_step = o.b_step;
  const i64 *a_line = o.a_line, *b_line = o.b_line;
  const float *ap = a, *bp = b;
  for (i64 left = o.pixels; left > 0; left -= o.length) {
    o.ahead_a->advance();
    o.ahead_b->advance();
    if (a_line) ap = a + *a_line++;
    if (b_line) bp = b + *b_line++;
#pragma GCC unroll 2
    for (i64 i = least(o.length, left); i > 0; i--, ap += a_step, bp += b_step) {
      vec bv[VECTORS];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) bv[v] = load(bp + v * V);
#pragma GCC unroll 16
      for (int p = 0; p < ROWS; p++) {
        const vec av = broadcast(ap[p]);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) sums[p][v] += av * bv[v];
      }
    }
    if (o.kept) {
      const bool first = left == o.pixels, last = left <= o.length;
#pragma GCC unroll 16
      for (int p = 0; p < ROWS; p++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          float* kept = o.kept + (p * VECTORS + v) * V;
          if (!first) sums[p][v] += load(kept);
          if (last) continue;
          store(kept, sums[p][v]);
          sums[p][v] = vec{};
        }
    }
  }
  const int last = o.lanes - (VECTORS - 1) * V;
#pragma GCC unroll 16
  for (int p = 0; p < ROWS; p++) {
    float* out = y + p * o.y_pitch;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++, out += V) {
      const int lanes = v < VECTORS - 1 ? V : last;
      store_first(out, o.accumulate ? load_first(out, lanes) + sums[p][v] : sums[p][v], lanes);
    }
  }
}

using AddOuterProducts = void (*)(const OuterProducts&, const float*, const float*, float*);

template <int ROWS, int VECTORS>
inline AddOuterProducts weight_tile_of(int rows) {
  if constexpr (ROWS > 1)
    if (rows < ROWS) return weight_tile_of<ROWS - 1, VECTORS>(rows);
  return add_outer_products<ROWS, VECTORS>;
}

inline AddOuterProducts weight_tile_of(int rows, int vectors) {
  switch (vectors) {
    case 1:
      return weight_tile_of<WEIGHT_ROWS[1], 1>(rows);
    case 2:
      return weight_tile_of<WEIGHT_ROWS[2], 2>(rows);
#if defined(__AVX512F__)
    case 3:
      return weight_tile_of<WEIGHT_ROWS[3], 3>(rows);
    default:
      return weight_tile_of<WEIGHT_ROWS[4], 4>(rows);
#else
    default:
      return weight_tile_of<WEIGHT_ROWS[2], 2>(rows);
#endif
  }
}

// `count` rows in tiles of nearly equal height, a few of which make a group: their rows lie side by side when packed.
struct WeightTiles {
  int count, tiles, together;
  int first(int tile) const { return static_cast<int>(static_cast<i64>(count) * least(tile, tiles) / tiles); }
  int rows(int tile) const { return first(tile + 1) - first(tile); }
  int groups() const { return static_cast<int>(blocks(tiles, together)); }
  int group_first(int group) const { return first(group * together); }
  int group_rows(int group) const { return group_first(group + 1) - group_first(group); }
};

inline WeightTiles weight_tiles(int count, int vectors) {
  constexpr int GROUP_ROWS = 28;
  return {count, static_cast<int>(blocks(count, WEIGHT_ROWS[vectors])), most(1, GROUP_ROWS / WEIGHT_ROWS[vectors])};
}
