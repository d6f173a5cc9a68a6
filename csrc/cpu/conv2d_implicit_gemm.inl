// Convolution as a matrix product that is never laid out: a row of the left matrix is an output pixel, its terms are
// the input values under the filter, read where they lie (or from a zero-padded copy of the few image rows a work
// item needs); the right matrix is the filter, packed in the order the register tile reads it. Forward and
// backward_input are the same gathering sum, see Gather. Two operations a term; 6 x 64 tiles of AVX-512 need one
// 64-byte load for 2.4 multiply-adds, so the product is bound by arithmetic as long as an item's pixels and a block of
// the filter sit in the second-level cache and what follows them is on its way.

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

constexpr i64 ITEM_BYTES = 768 << 10;      // of x that an item keeps in the second-level cache under all its columns
constexpr i64 RESIDENT_BYTES = 256 << 10;  // a filter up to here stays there too
constexpr i64 MOST_PIXELS = 1024;          // of an item
constexpr i64 ENOUGH_ITEMS = 16;           // for a few threads that take one after the other
constexpr i64 FEW_PLACES = 6;              // up to here forward packs a part of the filter for each, in the caches

// What one call fixes for all its work items. An item is a patch (some pixels of one group) and a range of column
// blocks; items of the same patch follow one on the other.
struct GatherPlan {
  Gather g;
  Terms terms;
  Columns blocks_of_k;
  Filter source;
  const float* filter;  // packed; null: items pack the part they need from the source
  Epilogue epilogue;
  bool padded;                    // read x through a zero-padded copy
  bool streams;                   // y is written past the caches
  int images, rows, columns;      // of a patch, at most
  int sheaves, bands, strips;     // places along the images, the grid's rows and columns
  int splits;                     // items along the column blocks
  int panel_rows, panel_columns;  // of the padded copy of one image's part
  const i64 *pixel, *at, *run;    // addresses: of an item's pixels in x or the panel, and in y; of the runs
  u64 call;                       // tells the panels of different calls apart
};

// Pixels i..i+rows-1, j..j+columns-1 of some images.
struct Patch {
  i64 n;
  int images, i, rows, j, columns, group;
};

// Where part number i of n things begins, which `parts` share as evenly as can be.
inline int part(int n, int parts, i64 i) {
  return static_cast<int>(n * i / parts);
}

inline Patch patch_of(const GatherPlan& plan, i64 number) {
  const Gather& g = plan.g;
  Patch p;
  p.group = static_cast<int>(number % g.groups);
  number /= g.groups;
  p.j = part(g.columns, plan.strips, number % plan.strips);
  p.columns = part(g.columns, plan.strips, number % plan.strips + 1) - p.j;
  number /= plan.strips;
  p.i = part(g.rows, plan.bands, number % plan.bands);
  p.rows = part(g.rows, plan.bands, number % plan.bands + 1) - p.i;
  number /= plan.bands;
  p.n = part(g.N, plan.sheaves, number);
  p.images = part(g.N, plan.sheaves, number + 1) - static_cast<int>(p.n);
  return p;
}

// Copies the rows of x under a patch into the panel (images, panel_rows, panel_columns, Cg), zero outside the image.
void fill_panel(const GatherPlan& plan, float* panel, const Patch& patch) {
  const Gather& g = plan.g;
  const int Cg = g.Cg(), top = patch.i * g.step_h + g.row[0], left = patch.j * g.step_w + g.column[0];
  const int needed = (patch.rows - 1) * g.step_h + g.row[g.taps_h - 1] - g.row[0] + 1;
  const int before = least(most(-left, 0), plan.panel_columns);
  const int inside = most(0, least(plan.panel_columns - before, g.W - (left + before)));
  const int after = plan.panel_columns - before - inside;
  for (int image = 0; image < patch.images; image++)
    for (int r = 0; r < needed; r++) {
      float* out = panel + (static_cast<i64>(image) * plan.panel_rows + r) * plan.panel_columns * Cg;
      const int h = top + r;
      if (h < 0 || h >= g.H) {
        __builtin_memset(out, 0, sizeof(float) * plan.panel_columns * Cg);
        continue;
      }
      const float* in =
          g.x + (((patch.n + image) * g.H + h) * g.W + left + before) * g.C + static_cast<i64>(patch.group) * Cg;
      __builtin_memset(out, 0, sizeof(float) * before * Cg);
      out += static_cast<i64>(before) * Cg;
      if (g.groups == 1) {
        __builtin_memcpy(out, in, sizeof(float) * inside * Cg);
      } else {
        for (int v = 0; v < inside; v++)
          __builtin_memcpy(out + static_cast<i64>(v) * Cg, in + static_cast<i64>(v) * g.C, sizeof(float) * Cg);
      }
      __builtin_memset(out + static_cast<i64>(inside) * Cg, 0, sizeof(float) * after * Cg);
    }
}

// The panel of a patch, filled unless this thread's last item left it there.
const float* panel_of(const GatherPlan& plan, i64 number, const Patch& patch) {
  thread_local u64 call = 0;
  thread_local i64 filled = 0;
  float* panel =
      scratch<float>(cnn::PANEL, static_cast<i64>(plan.images) * plan.panel_rows * plan.panel_columns * plan.g.Cg());
  if (call != plan.call || filled != number) {
    fill_panel(plan, panel, patch);
    call = plan.call;
    filled = number;
  }
  return panel;
}

// The rows of x under the patch after this one, or the share of them that falls to one of its items.
inline Lines next_input(const GatherPlan& plan, const Patch& patch, int split) {
  const Gather& g = plan.g;
  if (g.groups > 1 || (plan.strips > 1 && g.rows > 1)) return {nullptr, 0};
  const i64 columns = static_cast<i64>(g.W) * g.C, rows = g.N * static_cast<i64>(g.H);
  i64 first = (patch.n * g.H + static_cast<i64>(patch.i + patch.rows) * g.step_h) * columns;
  i64 count = static_cast<i64>(plan.rows) * g.step_h * columns;
  if (plan.strips > 1) {  // the grid is one long row
    first = static_cast<i64>(patch.j + patch.columns) * g.step_w * g.C;
    count = static_cast<i64>(plan.columns) * g.step_w * g.C;
  } else if (plan.bands == 1) {
    first = (patch.n + patch.images) * g.H * columns;
    count = static_cast<i64>(plan.images) * g.H * columns;
  }
  first += count * split / plan.splits;
  count = least(blocks(count, plan.splits), rows * columns - first);
  return lines_of(g.x + first, count);
}

void gather_item(const GatherPlan& plan, i64 item) {
  const Gather& g = plan.g;
  const int Cg = g.Cg(), Kg = g.Kg();
  const int split = static_cast<int>(item % plan.splits);
  const Patch patch = patch_of(plan, item / plan.splits);
  const i64 group = patch.group;

  Operands o;
  const float* a;
  if (plan.padded) {
    a = panel_of(plan, item / plan.splits, patch);
  } else {
    a = g.x +
        ((patch.n * g.H + static_cast<i64>(patch.i) * g.step_h) * g.W + static_cast<i64>(patch.j) * g.step_w) * g.C +
        group * Cg;
  }
  o.a_step = 1;
  o.b_run = nullptr;
  const i64 base = ((patch.n * g.Y_H + g.y_row + static_cast<i64>(patch.i) * g.y_step_h) * g.Y_W + g.y_column +
                    static_cast<i64>(patch.j) * g.y_step_w) *
                       g.K +
                   group * Kg;
  const i64 pixels = static_cast<i64>(patch.images) * patch.rows * patch.columns;
  const Terms& t = plan.terms;
  const Columns& cut = plan.blocks_of_k;
  const i64 filter_size = blocks(Kg, V) * V * t.total();
  const float* filter = plan.filter ? plan.filter + group * filter_size : nullptr;
  const int first = split * cut.count / plan.splits, last = (split + 1) * cut.count / plan.splits;
  Ahead ahead{{nullptr, 0}, next_input(plan, patch, split)};
  o.ahead = &ahead;
  const Epilogue& e = plan.epilogue;
  const bool has_epilogue = e.bias || e.scale || e.shift || e.residual || e.activation.kind;
  const bool cut_runs = t.piece < t.length;  // then a part of x stays in the second-level cache under all columns
  // one column block and one block of the sum
  const auto multiply = [&](int block, int run, int runs, int term, int terms) {
    const int k = block * cut.width;
    const i64 channel = group * Kg + k, done = static_cast<i64>(term) * t.runs + static_cast<i64>(run) * terms;
    TileOutput out;
    out.y = g.y + base + k;
    out.lanes = least(cut.width, Kg - k);
    out.accumulate = done > 0;
    out.finishes = has_epilogue && done + static_cast<i64>(runs) * terms == t.total();
    out.epilogue = {e.bias ? e.bias + channel : nullptr, e.scale ? e.scale + channel : nullptr,
                    e.shift ? e.shift + channel : nullptr, e.residual ? e.residual + base + k : nullptr, e.activation};
    out.streams = plan.streams;
    const i64 width = blocks(out.lanes, V) * V, size = width * runs * terms;
    o.a = a + term;
    o.a_run = plan.run + run;
    o.b_step = width;
    o.runs = runs;
    o.length = terms;
    if (filter) {
      o.b = filter + k * t.total() + width * done;
      const i64 next = o.b - filter + size;
      if (filter_size * static_cast<i64>(sizeof(float)) > RESIDENT_BYTES)
        ahead.b = lines_of(filter + (next < filter_size ? next : 0), size);
    } else {
      float* packed = scratch<float>(cnn::PACKED_WEIGHT, size);
      pack_forward_part(g, t, plan.source, group, k, out.lanes, run, runs, term, terms, packed);
      o.b = packed;
    }
    multiply_rows(o, pixels, plan.pixel, plan.at, out);
  };
  if (cut_runs) {
    for_each_block(t, [&](int run, int runs, int term, int terms) {
      for (int block = first; block < last; block++) multiply(block, run, runs, term, terms);
    });
  } else {
    for (int block = first; block < last; block++)
      for_each_block(t, [&](int run, int runs, int term, int terms) { multiply(block, run, runs, term, terms); });
  }
  if (plan.streams) stream_fence();
}

// Cuts the grid into patches and the column blocks into ranges. A patch's pixels share one pass over a filter block, so
// it has as many of them as the second-level cache holds; for too few items first the columns are cut, then the pixels.
void cut_grid(GatherPlan& plan) {
  const Gather& g = plan.g;
  const i64 image = static_cast<i64>(g.rows) * g.columns, total = g.N * image;
  const i64 bytes =
      static_cast<i64>(sizeof(float)) * least(g.Cg(), plan.terms.piece) * g.step_h * g.step_w;  // of x, for a pixel
  const i64 splits = most<i64>(1, least<i64>(plan.blocks_of_k.count, ENOUGH_ITEMS / most<i64>(1, g.groups)));
  i64 wanted = most<i64>(48, least(MOST_PIXELS, ITEM_BYTES / bytes));
  wanted = least(wanted, most<i64>(48, blocks(total, blocks(ENOUGH_ITEMS, splits))));
  const i64 most_images = plan.padded ? blocks(g.N, 2) : g.N;  // a panel of all images would be larger than x
  plan.images = static_cast<int>(most<i64>(1, least<i64>(most_images, wanted / image)));
  plan.columns = g.columns <= 2 * wanted ? g.columns : static_cast<int>(blocks(g.columns, blocks(g.columns, wanted)));
  plan.rows = plan.columns < g.columns ? 1 : static_cast<int>(most<i64>(1, least<i64>(g.rows, wanted / g.columns)));
  plan.rows = static_cast<int>(blocks(g.rows, blocks(g.rows, plan.rows)));
  plan.sheaves = static_cast<int>(blocks(g.N, plan.images));
  if (plan.sheaves > 1 && plan.sheaves < g.N) plan.sheaves += plan.sheaves % 2;  // so that two threads have as many
  plan.images = static_cast<int>(blocks(g.N, plan.sheaves));
  plan.bands = static_cast<int>(blocks(g.rows, plan.rows));
  plan.strips = static_cast<int>(blocks(g.columns, plan.columns));
}

// filter: packed, or null where it is still to be packed from `source`.
void run_gather(const Gather& g, const float* filter, const Filter& source, const Epilogue& epilogue) {
  static u64 calls = 0;
  GatherPlan plan;
  plan.g = g;
  plan.terms = terms_of(g);
  plan.blocks_of_k = columns_for(g.Kg());
  plan.source = source;
  plan.epilogue = epilogue;
  plan.call = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
  plan.padded = g.row[0] < 0 || g.column[0] < 0 || (g.rows - 1) * g.step_h + g.row[g.taps_h - 1] >= g.H ||
                (g.columns - 1) * g.step_w + g.column[g.taps_w - 1] >= g.W ||
                (g.groups > 1 && plan.terms.merged && g.taps_w > 1);
  cut_grid(plan);
  const i64 places = static_cast<i64>(plan.sheaves) * plan.bands * plan.strips * g.groups;
  const i64 wanted = most<i64>(1, least<i64>(plan.blocks_of_k.count, blocks(ENOUGH_ITEMS, places)));
  plan.splits = static_cast<int>(blocks(plan.blocks_of_k.count, plan.blocks_of_k.count / wanted));
  plan.panel_rows = (plan.rows - 1) * g.step_h + g.row[g.taps_h - 1] - g.row[0] + 1;
  plan.panel_columns = (plan.columns - 1) * g.step_w + g.column[g.taps_w - 1] - g.column[0] + 1;
  if (!filter && (source.tap_row || places > FEW_PLACES * g.groups)) {
    float* packed = scratch<float>(cnn::PACKED_WEIGHT, packed_filter_size(plan.terms, g.groups, g.Kg()));
    if (source.tap_row) {
      pack_backward_filter(g, source, packed);
    } else {
      pack_forward_filter(g, source, packed);
    }
    filter = packed;
  }
  plan.filter = filter;
  const i64 total = static_cast<i64>(g.N) * g.rows * g.columns;
  plan.streams = total * g.K * static_cast<i64>(sizeof(float)) > STREAM_BYTES && g.K % V == 0 && g.Kg() % V == 0 &&
                 is_aligned(g.y) && plan.terms.total() <= MOST_TERMS;

  // row and column pitches of what the tiles read
  const i64 pitch = plan.padded ? g.Cg() : g.C, line = pitch * (plan.padded ? plan.panel_columns : g.W);
  const i64 sheet = line * (plan.padded ? plan.panel_rows : g.H);
  const int top = plan.padded ? g.row[0] : 0, left = plan.padded ? g.column[0] : 0;
  const i64 pixels = static_cast<i64>(plan.images) * plan.rows * plan.columns;
  i64* pixel = scratch<i64>(cnn::OFFSETS, 2 * pixels + plan.terms.runs);
  i64 *at = pixel + pixels, *run = at + pixels;
  i64 p = 0;
  for (int n = 0; n < plan.images; n++)
    for (int i = 0; i < plan.rows; i++)
      for (int j = 0; j < plan.columns; j++, p++) {
        pixel[p] = n * sheet + static_cast<i64>(i) * g.step_h * line + static_cast<i64>(j) * g.step_w * pitch;
        at[p] = ((static_cast<i64>(n) * g.Y_H + static_cast<i64>(i) * g.y_step_h) * g.Y_W +
                 static_cast<i64>(j) * g.y_step_w) *
                g.K;
      }
  for (int r = 0; r < plan.terms.runs; r++) {
    const int t = plan.terms.merged ? r : r / g.taps_w, u = plan.terms.merged ? 0 : r % g.taps_w;
    run[r] = (g.row[t] - top) * line + (g.column[u] - left) * pitch;
  }
  plan.pixel = pixel;
  plan.at = at;
  plan.run = run;
  const i64 work = total * g.K * plan.terms.total() / 4;
  parallel(places * plan.splits, work, [&](i64 item) { gather_item(plan, item); });
}
