// The work items of a gathering sum: patches of pixels, what they read of x, and the order in which they are computed.
// A pixel at the image's edge misses taps. Where a run of the sum is one tap, pixels that see the same ones are
// computed together, without the others: no product with a zero, and x is read where it lies. Else x is read through a
// zero-padded copy.

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
  bool sorted;                    // read x where it lies; pixels that miss some of their taps are computed apart
  bool streams;                   // y is written past the caches
  int images, rows, columns;      // of a patch, at most
  int sheaves, bands, strips;     // places along the images, the grid's rows and columns
  int splits;                     // items along the column blocks
  int panel_rows, panel_columns;  // of the padded copy of one image's part
  i64 pitch, line, sheet;         // of what the tiles read: from a pixel, row and image to the next
  const i64* run;                 // addresses of the runs
  u64 call;                       // tells the patches of different calls apart
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

// Pixels begin..end-1 of a patch's list, whose taps t0..t1-1 x u0..u1-1 lie inside the image.
struct PixelClass {
  i64 begin, end;
  int t0, t1, u0, u1;
};

// The pixels of a patch, class by class, as addresses in x or the panel and in y.
struct PixelList {
  const i64 *pixel, *at;
  const PixelClass* classes;
  i64 count;  // of classes
};

// Grid positions begin..end-1 along one axis, which see the same taps first..last-1.
struct Segment {
  int begin, end, first, last;
};

// The segment that begins at `begin`, of positions up to `end`. offset: (taps,), ascending
inline Segment segment_at(int begin, int end, int step, const int* offset, int taps, int size) {
  const auto first_of = [&](int i, int bound) {  // the first tap at `bound` or beyond
    int t = 0;
    while (t < taps && i * step + offset[t] < bound) t++;
    return t;
  };
  Segment s{begin, begin + 1, first_of(begin, 0), first_of(begin, size)};
  if (s.first == 0 && s.last == taps)  // the middle, up to where the last tap leaves the image
    s.end = least(end, (size - 1 - (taps ? offset[taps - 1] : 0)) / step + 1);
  else
    while (s.end < end && first_of(s.end, 0) == s.first && first_of(s.end, size) == s.last) s.end++;
  return s;
}

inline int segments(int end, int step, const int* offset, int taps, int size) {
  int count = 0;
  for (int i = 0; i < end; count++) i = segment_at(i, end, step, offset, taps, size).end;
  return count;
}

inline Segment row_segment(const Gather& g, int begin, int end) {
  return segment_at(begin, end, g.step_h, g.row, g.taps_h, g.H);
}
inline Segment column_segment(const Gather& g, int begin, int end) {
  return segment_at(begin, end, g.step_w, g.column, g.taps_w, g.W);
}

// Whether classes are worth it: a run must be a tap, and a class have a few pixels.
inline bool sorts_pixels(const GatherPlan& plan) {
  const Gather& g = plan.g;
  if (plan.terms.merged && g.taps_w > 1) return false;
  const i64 classes = static_cast<i64>(segments(g.rows, g.step_h, g.row, g.taps_h, g.H)) *
                      segments(g.columns, g.step_w, g.column, g.taps_w, g.W);
  return classes * 8 <= static_cast<i64>(plan.images) * plan.rows * plan.columns;
}

// The list of a patch, made unless this thread's last item left it there. One class where pixels are not sorted.
PixelList pixels_of(const GatherPlan& plan, i64 number, const Patch& patch) {
  thread_local u64 call = 0;
  thread_local i64 made = 0, classes = 0;
  constexpr i64 WORDS = sizeof(PixelClass) / sizeof(i64);
  const Gather& g = plan.g;
  const i64 pixels = static_cast<i64>(patch.images) * patch.rows * patch.columns;
  i64* pixel = scratch<i64>(cnn::PIXELS, pixels * (2 + WORDS));
  i64* at = pixel + pixels;
  auto* list = reinterpret_cast<PixelClass*>(at + pixels);
  if (call == plan.call && made == number) return {pixel, at, list, classes};
  call = plan.call;
  made = number;
  classes = 0;
  i64 p = 0;
  const int bottom = patch.i + patch.rows, right = patch.j + patch.columns;
  for (Segment rows{0, patch.i, 0, 0}; rows.end < bottom;) {
    rows = plan.sorted ? row_segment(g, rows.end, bottom) : Segment{patch.i, bottom, 0, g.taps_h};
    for (Segment columns{0, patch.j, 0, 0}; columns.end < right;) {
      columns = plan.sorted ? column_segment(g, columns.end, right) : Segment{patch.j, right, 0, g.taps_w};
      const i64 begin = p;
      for (i64 n = 0; n < patch.images; n++)
        for (i64 i = rows.begin - patch.i; i < rows.end - patch.i; i++)
          for (i64 j = columns.begin - patch.j; j < columns.end - patch.j; j++, p++) {
            pixel[p] = n * plan.sheet + i * g.step_h * plan.line + j * g.step_w * plan.pitch;
            at[p] = ((n * g.Y_H + i * g.y_step_h) * g.Y_W + j * g.y_step_w) * g.K;
          }
      list[classes++] = {begin, p, rows.first, rows.last, columns.first, columns.last};
    }
  }
  return {pixel, at, list, classes};
}

// The runs of run..run+count-1 that a class sees: their addresses in x and in the filter, `size` floats apart, into
// (count,) each. Returns how many.
inline int runs_of(const GatherPlan& plan, const PixelClass& c, int run, int count, i64 size, i64* a_run, i64* b_run) {
  const int taps_w = plan.g.taps_w;
  int n = 0;
  for (int r = run; r < run + count; r++) {
    const int t = r / taps_w, u = r % taps_w;
    if (t < c.t0 || t >= c.t1 || u < c.u0 || u >= c.u1) continue;
    a_run[n] = plan.run[r];
    b_run[n++] = (r - run) * size;
  }
  return n;
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
