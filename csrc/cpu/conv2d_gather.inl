// The gathering sum that forward and backward_input are, and its filter, packed in the order in which a register tile
// reads it.

// y[n, i, j, k] = sum over tap rows t, tap columns u and c of
//   x[n, i * step_h + row[t], j * step_w + column[u], c] * filter[k, t, u, c]          x is zero outside
// over a grid of output pixels (i, j), which lie at image rows y_row + i * y_step_h and columns y_column + j *
// y_step_w.
struct Gather {
  const float* x;
  float* y;
  int N, H, W, C;     // x (N, H, W, C)
  int Y_H, Y_W, K;    // y (N, Y_H, Y_W, K)
  int rows, columns;  // of the grid
  int y_row, y_step_h, y_column, y_step_w;
  int step_h, step_w;
  int groups;
  int taps_h, taps_w;
  const int *row, *column;  // (taps_h,), (taps_w,), ascending
  int Cg() const { return C / groups; }
  int Kg() const { return K / groups; }
};

constexpr i64 MOST_TERMS = 1024;  // of a sum before it is added up in memory: 256 KB of filter for 64 columns

// The terms of a sum, cut into blocks; the packed filter has the same order: [group][column block][part][run][term].
// A run is what lies contiguous in x: the channels under one tap, or under a whole row of taps.
struct Terms {
  bool merged;       // runs are whole rows of taps
  int runs, length;  // length of a run
  int piece;         // terms of a run in a block: runs longer than MOST_TERMS are cut
  int together;      // runs of a block
  i64 total() const { return static_cast<i64>(runs) * length; }
};

inline Terms terms_of(const Gather& g) {
  Terms t;
  t.merged = g.taps_w == 1 || (g.Cg() < 64 && g.column[g.taps_w - 1] - g.column[0] == g.taps_w - 1);
  t.runs = t.merged ? g.taps_h : g.taps_h * g.taps_w;
  t.length = t.merged ? g.taps_w * g.Cg() : g.Cg();
  t.piece = static_cast<int>(blocks(t.length, blocks(t.length, MOST_TERMS)));
  t.together = static_cast<int>(blocks(t.runs, blocks(static_cast<i64>(t.runs) * t.piece, MOST_TERMS)));
  return t;
}

// Calls body(first run, runs, first term, terms) for every block of the sum, in the packed order.
template <class F>
inline void for_each_block(const Terms& t, const F& body) {
  for (int first = 0; first < t.length; first += t.piece)
    for (int run = 0; run < t.runs; run += t.together)
      body(run, least(t.together, t.runs - run), first, least(t.piece, t.length - first));
}

inline i64 packed_filter_size(const Terms& t, int groups, int Kg) {
  return groups * blocks(Kg, V) * V * t.total();
}

// The filter of a gathering sum before it is packed: w (K, R, S, C / groups) of the convolution. Forward reads it as it
// is (tap_row null: the sum's taps are the filter's); backward_input exchanges the channels and picks taps.
struct Filter {
  const float* w;
  int R, S;
  const int *tap_row, *tap_column;  // (taps_h,), (taps_w,) or null
};

// Columns k..k+lanes-1 of one block of terms (see for_each_block) of the forward filter, whose terms lie side by side:
// (terms, whole vectors), V filters at a time are transposed.
void pack_forward_part(const Gather& g, const Terms& t, const Filter& f, i64 group, int k, int lanes, int run, int runs,
                       int first, int terms, float* out) {
  const i64 total = t.total(), width = blocks(lanes, V) * V;
  const float* filters = f.w + (group * g.Kg() + k) * total + first;
  for (int r = run; r < run + runs; r++, out += width * terms)
    for (int v = 0; v < lanes; v += V)
      transpose_into(filters + v * total + static_cast<i64>(r) * t.length, total, lanes - v, terms, out + v, width);
}

void pack_forward_filter(const Gather& g, const Filter& f, float* packed) {
  const Terms t = terms_of(g);
  const Columns cut = columns_for(g.Kg());
  const i64 total = t.total(), padded_K = blocks(g.Kg(), V) * V;
  parallel(static_cast<i64>(g.groups) * cut.count, g.groups * padded_K * total * 2, [&](i64 item) {
    const i64 group = item / cut.count, k = item % cut.count * cut.width;
    const int lanes = static_cast<int>(least<i64>(cut.width, g.Kg() - k));
    float* out = packed + (group * padded_K + k) * total;
    for_each_block(t, [&](int run, int runs, int first, int terms) {
      pack_forward_part(g, t, f, group, static_cast<int>(k), lanes, run, runs, first, terms, out);
      out += blocks(lanes, V) * V * runs * terms;
    });
  });
}

// backward_input: the columns lie side by side, so w is read in its order and a term's columns go to their blocks.
void pack_backward_filter(const Gather& g, const Filter& f, float* packed) {
  const Terms t = terms_of(g);
  const int Cg = g.Cg(), Kg = g.Kg();
  const Columns cut = columns_for(Kg);
  const i64 total = t.total(), padded_K = blocks(Kg, V) * V;
  parallel_pieces(g.C, most<i64>(1, 16384 / (static_cast<i64>(g.taps_h) * g.taps_w * Kg)),
                  padded_K * g.taps_h * g.taps_w * 2, [&](i64 begin, i64 end) {
                    for (i64 c = begin; c < end; c++)
                      for (int tap = 0; tap < g.taps_h * g.taps_w; tap++) {
                        const int row = tap / g.taps_w, column = tap % g.taps_w;
                        const float* in = f.w + ((c * f.R + f.tap_row[row]) * f.S + f.tap_column[column]) * Kg;
                        const int run = t.merged ? row : tap,
                                  term = static_cast<int>(c % Cg) + (t.merged ? column * Cg : 0);
                        const int first = term / t.piece * t.piece;
                        const i64 place = static_cast<i64>(first) * t.runs +
                                          static_cast<i64>(run) * least(t.piece, t.length - first) + term - first;
                        for (int k = 0; k < Kg; k += cut.width) {
                          const int lanes = least(cut.width, Kg - k);
                          float* out = packed + (c / Cg * padded_K + k) * total + place * blocks(lanes, V) * V;
                          for (int v = 0; v < lanes; v += V) store(out + v, load_first(in + k + v, lanes - v));
                        }
                      }
                  });
}
