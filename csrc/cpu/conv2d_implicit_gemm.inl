// Convolution as a matrix product that is never laid out: a row of the left matrix is an output pixel, its terms are
// the input values under the filter, read where they lie (or from a zero-padded copy of the few image rows a work
// item needs); the right matrix is the filter, packed in the order the register tile reads it. Forward and
// backward_input are the same gathering sum, see Gather. Two operations a term; 6 x 64 tiles of AVX-512 need one
// 64-byte load for 2.4 multiply-adds, so the product is bound by arithmetic as long as an item's pixels and a block of
// the filter sit in the second-level cache and what follows them is on its way.

constexpr i64 ITEM_BYTES = 768 << 10;      // of x that an item keeps in the second-level cache under all its columns
constexpr i64 RESIDENT_BYTES = 256 << 10;  // a filter up to here stays there too
constexpr i64 MOST_PIXELS = 1024;          // of an item
constexpr i64 ENOUGH_ITEMS = 16;           // for a few threads that take one after the other
constexpr i64 FEW_PLACES = 6;              // up to here forward packs a part of the filter for each, in the caches

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
  const i64 base = ((patch.n * g.Y_H + g.y_row + static_cast<i64>(patch.i) * g.y_step_h) * g.Y_W + g.y_column +
                    static_cast<i64>(patch.j) * g.y_step_w) *
                       g.K +
                   group * Kg;
  const PixelList list = pixels_of(plan, item / plan.splits, patch);
  const Terms& t = plan.terms;
  const Columns& cut = plan.blocks_of_k;
  const i64 filter_size = blocks(Kg, V) * V * t.total();
  const float* filter = plan.filter ? plan.filter + group * filter_size : nullptr;
  const int first = split * cut.count / plan.splits, last = (split + 1) * cut.count / plan.splits;
  Ahead ahead{{nullptr, 0}, next_input(plan, patch, split)};
  o.ahead = &ahead;
  const Epilogue& e = plan.epilogue;
  const bool has_epilogue = e.bias || e.scale || e.shift || e.residual || e.activation.kind;
  i64 *a_run = scratch<i64>(cnn::RUNS, 2 * t.together), *b_run = a_run + t.together;
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
    o.b_step = width;
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
    for (i64 i = 0; i < list.count; i++) {
      const PixelClass& c = list.classes[i];
      o.runs = plan.sorted ? runs_of(plan, c, run, runs, width * terms, a_run, b_run) : runs;
      o.a_run = plan.sorted ? a_run : plan.run + run;
      o.b_run = plan.sorted ? b_run : nullptr;
      multiply_rows(o, c.end - c.begin, list.pixel + c.begin, list.at + c.begin, out);
    }
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
  const bool reads_outside = g.row[0] < 0 || g.column[0] < 0 || (g.rows - 1) * g.step_h + g.row[g.taps_h - 1] >= g.H ||
                             (g.columns - 1) * g.step_w + g.column[g.taps_w - 1] >= g.W;
  plan.padded = reads_outside || (g.groups > 1 && plan.terms.merged && g.taps_w > 1);
  cut_grid(plan);
  plan.sorted = reads_outside && sorts_pixels(plan);
  plan.padded = plan.padded && !plan.sorted;
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

  plan.pitch = plan.padded ? g.Cg() : g.C;
  plan.line = plan.pitch * (plan.padded ? plan.panel_columns : g.W);
  plan.sheet = plan.line * (plan.padded ? plan.panel_rows : g.H);
  const int top = plan.padded ? g.row[0] : 0, left = plan.padded ? g.column[0] : 0;
  i64* run = scratch<i64>(cnn::OFFSETS, plan.terms.runs);
  for (int r = 0; r < plan.terms.runs; r++) {
    const int t = plan.terms.merged ? r : r / g.taps_w, u = plan.terms.merged ? 0 : r % g.taps_w;
    run[r] = (g.row[t] - top) * plan.line + (g.column[u] - left) * plan.pitch;
  }
  plan.run = run;
  const i64 work = total * g.K * plan.terms.total() / 4;
  parallel(places * plan.splits, work, [&](i64 item) { gather_item(plan, item); });
}
