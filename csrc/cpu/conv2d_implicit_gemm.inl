// Convolution as a matrix product that is never laid out: a row of the left matrix is an output pixel, its terms are
// the input values under the filter, read where they lie (or from a zero-padded copy of the few image rows a work
// item needs); the right matrix is the filter, packed in the order the register tile reads it. Forward and
// backward_input are the same gathering sum, see Gather. Two operations a term; 6 x 64 tiles of AVX-512 need one
// 64-byte load for 2.4 multiply-adds, so the product is bound by arithmetic once the filter block sits in the
// second-level cache.

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

// What one call fixes for all its work items.
struct GatherPlan {
  Gather g;
  Terms terms;
  Columns blocks_of_k;
  const float* filter;
  Epilogue epilogue;
  bool padded;                    // read x through a zero-padded copy
  int images, rows, columns;      // of a work item, at most
  int bands, strips, splits;      // items along the grid's rows and columns, and along the column blocks
  int panel_rows, panel_columns;  // of the padded copy of one image's part
  const i64 *pixel, *at, *run;    // addresses: of an item's pixels in x or the panel, and in y; of the runs
};

// Copies the rows that an item reads into the panel (images, panel_rows, panel_columns, Cg), zero outside the image.
void fill_panel(const GatherPlan& plan, float* panel, i64 n, int images, int i, int rows, int j, int group) {
  const Gather& g = plan.g;
  const int Cg = g.Cg(), top = i * g.step_h + g.row[0], left = j * g.step_w + g.column[0];
  const int needed = (rows - 1) * g.step_h + g.row[g.taps_h - 1] - g.row[0] + 1;
  const int before = least(most(-left, 0), plan.panel_columns);
  const int inside = most(0, least(plan.panel_columns - before, g.W - (left + before)));
  const int after = plan.panel_columns - before - inside;
  for (int image = 0; image < images; image++)
    for (int r = 0; r < needed; r++) {
      float* out = panel + (static_cast<i64>(image) * plan.panel_rows + r) * plan.panel_columns * Cg;
      const int h = top + r;
      if (h < 0 || h >= g.H) {
        __builtin_memset(out, 0, sizeof(float) * plan.panel_columns * Cg);
        continue;
      }
      const float* in = g.x + (((n + image) * g.H + h) * g.W + left + before) * g.C + static_cast<i64>(group) * Cg;
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

void gather_item(const GatherPlan& plan, i64 item) {
  const Gather& g = plan.g;
  const int Cg = g.Cg(), Kg = g.Kg();
  const int split = static_cast<int>(item % plan.splits);
  item /= plan.splits;
  const int group = static_cast<int>(item % g.groups);
  item /= g.groups;
  const int j = static_cast<int>(item % plan.strips) * plan.columns, columns = least(plan.columns, g.columns - j);
  item /= plan.strips;
  const int i = static_cast<int>(item % plan.bands) * plan.rows, rows = least(plan.rows, g.rows - i);
  const i64 n = item / plan.bands * plan.images;
  const int images = static_cast<int>(least<i64>(plan.images, g.N - n));

  Operands o;
  if (plan.padded) {
    float* panel =
        scratch<float>(cnn::PANEL, static_cast<i64>(plan.images) * plan.panel_rows * plan.panel_columns * Cg);
    fill_panel(plan, panel, n, images, i, rows, j, group);
    o.a = panel;
  } else {
    o.a = g.x + ((n * g.H + static_cast<i64>(i) * g.step_h) * g.W + static_cast<i64>(j) * g.step_w) * g.C +
          static_cast<i64>(group) * Cg;
  }
  o.a_step = 1;
  const i64 base = ((n * g.Y_H + g.y_row + static_cast<i64>(i) * g.y_step_h) * g.Y_W + g.y_column +
                    static_cast<i64>(j) * g.y_step_w) *
                       g.K +
                   static_cast<i64>(group) * Kg;
  const i64 pixels = static_cast<i64>(images) * rows * columns;
  const Terms& t = plan.terms;
  const Columns& cut = plan.blocks_of_k;
  const float* filter = plan.filter + group * blocks(Kg, V) * V * t.total();
  const int first = split * cut.count / plan.splits, last = (split + 1) * cut.count / plan.splits;
  for (int block = first; block < last; block++) {
    const int k = block * cut.width;
    const Epilogue& e = plan.epilogue;
    const i64 channel = static_cast<i64>(group) * Kg + k;
    TileOutput out;
    out.y = g.y + base + k;
    out.lanes = least(cut.width, Kg - k);
    out.epilogue = {e.bias ? e.bias + channel : nullptr, e.scale ? e.scale + channel : nullptr,
                    e.shift ? e.shift + channel : nullptr, e.residual ? e.residual + base + k : nullptr, e.activation};
    const bool has_epilogue = e.bias || e.scale || e.shift || e.residual || e.activation.kind;
    const i64 width = blocks(out.lanes, V) * V;
    o.b = filter + static_cast<i64>(k) * t.total();
    o.b_run = nullptr;
    i64 done = 0;
    for_each_block(t, [&](int run, int runs, int term, int terms) {
      Operands part = o;
      part.a += term;
      part.a_run = plan.run + run;
      part.b_step = width;
      part.runs = runs;
      part.length = terms;
      out.accumulate = done > 0;
      done += static_cast<i64>(runs) * terms;
      out.finishes = has_epilogue && done == t.total();
      multiply_rows(part, pixels, plan.pixel, plan.at, out);
      o.b += width * runs * terms;
    });
  }
}

// Chooses the work items and lays out the tables. An item's pixels share one pass over a filter block, so it wants many
// of them, but its input should stay in the second-level cache and there should be items for every thread.
void run_gather(const Gather& g, const float* filter, const Epilogue& epilogue) {
  GatherPlan plan;
  plan.g = g;
  plan.terms = terms_of(g);
  plan.blocks_of_k = columns_for(g.Kg());
  plan.filter = filter;
  plan.epilogue = epilogue;
  plan.padded = g.row[0] < 0 || g.column[0] < 0 || (g.rows - 1) * g.step_h + g.row[g.taps_h - 1] >= g.H ||
                (g.columns - 1) * g.step_w + g.column[g.taps_w - 1] >= g.W ||
                (g.groups > 1 && plan.terms.merged && g.taps_w > 1);
  const i64 total = static_cast<i64>(g.N) * g.rows * g.columns, image = static_cast<i64>(g.rows) * g.columns;
  const i64 wanted = most<i64>(48, least<i64>(least<i64>(1024, 65536 / g.Cg()), blocks(total, 16)));
  plan.images = static_cast<int>(most<i64>(1, least<i64>(g.N, wanted / image)));
  plan.columns = g.columns <= 2 * wanted ? g.columns : static_cast<int>(blocks(g.columns, blocks(g.columns, wanted)));
  plan.rows = plan.columns < g.columns ? 1 : static_cast<int>(most<i64>(1, least<i64>(g.rows, wanted / g.columns)));
  plan.rows = static_cast<int>(blocks(g.rows, blocks(g.rows, plan.rows)));
  plan.bands = static_cast<int>(blocks(g.rows, plan.rows));
  plan.strips = static_cast<int>(blocks(g.columns, plan.columns));
  const i64 places = blocks(g.N, plan.images) * plan.bands * plan.strips * g.groups;
  plan.splits = static_cast<int>(most<i64>(1, least<i64>(plan.blocks_of_k.count, blocks(16, places))));
  plan.panel_rows = (plan.rows - 1) * g.step_h + g.row[g.taps_h - 1] - g.row[0] + 1;
  plan.panel_columns = (plan.columns - 1) * g.step_w + g.column[g.taps_w - 1] - g.column[0] + 1;

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
