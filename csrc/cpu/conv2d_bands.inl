// backward_weight takes the output pixels in bands: a few rows of an image, or a few small images. A band's part of x,
// copied with its zero padding or read where it lies, stays in the caches while all taps and filters pass over it; its
// sum starts from 0 and is then added to dw in memory, which keeps rounding errors small. Bands are shared out to
// partitions, as many as the shape asks for, whose sums are added up in order at the end.

constexpr i64 BAND_PIXELS = 200;
constexpr i64 BAND_LINE = 32;      // pixels of a line where lines follow each other in memory
constexpr i64 MOST_PANEL = 98304;  // floats of a band of several images: few outputs may read many padded inputs
constexpr i64 WEIGHT_ITEMS = 16;   // work items wanted: blocks of dw, times partitions

// Pixels wanted of a band whose vectors are read `pitch` floats apart.
inline i64 band_pixels(i64 pitch) {
  return most<i64>(BAND_PIXELS, least<i64>(512, 8192 / pitch));
}

struct Bands {
  Conv2dShape s;
  const float* x;
  bool in_place;     // no padding: x is read where it lies
  i64 pitch;         // floats of a pixel in the panel
  int phases;        // columns v, v + phases, ... of a panel line lie side by side: 1 or the stride
  int images, rows;  // of a band, at most: one of them is 1 or rows is P
  int per_image;     // bands of an image where images is 1
  i64 count;
  int panel_rows, phase_columns;  // of the panel of an image; a line has `phases` times as many columns
  i64 length;                     // output pixels of a line: Q, or a part of a band whose pixels follow each other
  i64 line() const { return (in_place ? s.W : phases * phase_columns) * pitch; }
  i64 sheet() const { return (in_place ? s.H : panel_rows) * line(); }
  i64 panel() const { return images * sheet(); }
  i64 pixels() const { return static_cast<i64>(images) * rows * s.Q; }  // of a band, at most
  i64 lines() const { return blocks(pixels(), length); }
  i64 step() const { return s.stride_w / phases * pitch; }  // from an output pixel to the next
  i64 at_tap(int r, int t) const {
    const int column = t * s.dilation_w;
    return r * s.dilation_h * line() + (column % phases * phase_columns + column / phases) * pitch;
  }
};

struct Band {
  i64 n;
  int images, p, rows;
};

inline bool reads_padding(const Conv2dShape& s) {
  return s.pad_h > 0 || s.pad_w > 0 || (s.P - 1) * s.stride_h + (s.R - 1) * s.dilation_h >= s.H ||
         (s.Q - 1) * s.stride_w + (s.S - 1) * s.dilation_w >= s.W;
}

// `pixels` are wanted of a band; phases must divide the stride.
inline Bands bands_of(const Conv2dShape& s, const float* x, bool in_place, i64 pitch, int phases, i64 pixels) {
  Bands b;
  b.s = s;
  b.x = x;
  b.in_place = in_place;
  b.pitch = pitch;
  b.phases = phases;
  b.rows = static_cast<int>(most<i64>(1, least<i64>(s.P, pixels / s.Q)));
  b.rows = static_cast<int>(blocks(s.P, blocks(s.P, b.rows)));
  b.per_image = static_cast<int>(blocks(s.P, b.rows));
  b.panel_rows = (b.rows - 1) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  b.phase_columns = static_cast<int>(blocks((s.Q - 1) * s.stride_w + (s.S - 1) * s.dilation_w + 1, phases));
  const i64 fit = in_place ? s.N : MOST_PANEL / b.sheet();
  b.images = static_cast<int>(most<i64>(1, least(least<i64>(s.N, fit), pixels / (static_cast<i64>(s.P) * s.Q))));
  b.images = static_cast<int>(blocks(s.N, blocks(s.N, b.images)));
  b.count = b.images > 1 ? blocks(s.N, b.images) : static_cast<i64>(s.N) * b.per_image;
  const bool follow = s.stride_h * b.line() == s.Q * b.step() && (b.images == 1 || b.sheet() == s.P * s.Q * b.step());
  b.length = follow ? BAND_LINE : s.Q;
  return b;
}

inline Band band_at(const Bands& b, i64 i) {
  if (b.images > 1) return {i * b.images, static_cast<int>(least<i64>(b.images, b.s.N - i * b.images)), 0, b.s.P};
  const int p = static_cast<int>(i % b.per_image) * b.rows;
  return {i / b.per_image, 1, p, least(b.rows, b.s.P - p)};
}

inline i64 pixels_of(const Bands& b, const Band& band) {
  return static_cast<i64>(band.images) * band.rows * b.s.Q;
}

// Where a band's lines begin in x: (lines,). Those of dy follow each other.
inline const i64* band_lines(const Bands& b) {
  i64* line = scratch<i64>(cnn::OFFSETS, b.lines());
  for (i64 i = 0; i < b.lines(); i++)
    line[i] =
        b.length != b.s.Q ? i * b.length * b.step() : i / b.rows * b.sheet() + i % b.rows * b.s.stride_h * b.line();
  return line;
}

// Whether a tap reads rows (or columns) i + stride * any.
inline bool is_read(int i, int taps, int dilation, int stride) {
  for (int t = 0; t < taps; t++)
    if ((i - t * dilation) % stride == 0) return true;
  return false;
}

// Copies n floats, few as a rule.
inline void copy_floats(const float* in, i64 n, float* out) {
  for (i64 i = 0; i < n; i += V) {
    const int lanes = static_cast<int>(least<i64>(V, n - i));
    store_first(out + i, load_first(in + i, lanes), lanes);
  }
}

inline void clear_floats(i64 n, float* out) {
  for (i64 i = 0; i < n; i += V) store_first(out + i, vec{}, static_cast<int>(least<i64>(V, n - i)));
}

// `lanes` channels of pixels that lie in_step apart, to panels of `pitch` channels.
inline void copy_pixels(const float* in, i64 in_step, int pixels, int lanes, float* out, i64 pitch, i64 panel) {
  if (in_step == pitch && lanes == pitch) return copy_floats(in, pixels * pitch, out);
  for (int v = 0; v < pixels; v++, in += in_step, out += pitch) {
    float* to = out;
    for (i64 c = 0; c < lanes; c += pitch, to += panel) copy_floats(in + c, least<i64>(pitch, lanes - c), to);
  }
}

// Copies `lanes` channels from `channel` on of what a band reads into panels (images, panel_rows, phases,
// phase_columns, pitch), zero outside the image: one panel, or one after the other for every `pitch` channels. Rows and
// phases that no tap reads are left out.
void fill_band(const Bands& b, const Band& band, int channel, int lanes, float* panel) {
  const Conv2dShape& s = b.s;
  const i64 pitch = b.pitch, panels = blocks(lanes, pitch);
  const int needed = (band.rows - 1) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  for (int image = 0; image < band.images; image++)
    for (int r = 0; r < needed; r++) {
      if (!is_read(r, s.R, s.dilation_h, s.stride_h)) continue;
      const int h = band.p * s.stride_h - s.pad_h + r;
      const float* in = b.x + ((band.n + image) * s.H + h) * s.W * s.C + channel;
      float* out = panel + image * b.sheet() + r * b.line();
      for (int phase = 0; phase < b.phases; phase++, out += b.phase_columns * pitch) {
        if (!is_read(phase, s.S, s.dilation_w, b.phases)) continue;
        // column j of the phase is column first + j * phases of x
        const int first = phase - s.pad_w, columns = h < 0 || h >= s.H ? 0 : b.phase_columns;
        const int before = least<int>(columns, first < 0 ? blocks(-first, b.phases) : 0);
        const int end = most<int>(before, least<int>(columns, s.W > first ? blocks(s.W - first, b.phases) : 0));
        for (i64 i = 0; i < panels; i++) {
          clear_floats(before * pitch, out + i * b.panel());
          clear_floats((b.phase_columns - end) * pitch, out + i * b.panel() + end * pitch);
        }
        if (end > before)
          copy_pixels(in + (first + static_cast<i64>(before) * b.phases) * s.C, static_cast<i64>(b.phases) * s.C,
                      end - before, lanes, out + before * pitch, pitch, b.panel());
      }
    }
}

// What a band reads of `channels` channels from x on, for `advances` lines of pixels that are computed before it.
inline BandAhead ahead_of_x(const Bands& b, const Band& band, i64 channel, i64 channels, i64 advances) {
  const Conv2dShape& s = b.s;
  const bool whole = band.images > 1;
  const i64 begin = static_cast<i64>(band.p) * s.stride_h - s.pad_h;
  const i64 end = begin + (band.rows - 1) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  const i64 top = whole ? 0 : least<i64>(s.H, most<i64>(0, begin));
  const i64 rows = whole ? static_cast<i64>(band.images) * s.H : most<i64>(0, least<i64>(s.H, end) - top);
  return band_ahead(b.x + (band.n * s.H + top) * s.W * s.C + channel, rows * s.W, s.C, channels, advances);
}
inline BandAhead ahead_of_dy(const Bands& b, const Band& band, const float* dy, i64 k, i64 filters, i64 advances) {
  return band_ahead(dy + (band.n * b.s.P + band.p) * b.s.Q * b.s.K + k, pixels_of(b, band), b.s.K, filters, advances);
}

// dw = the sum of the partitions' results (partitions, size), in order
void add_partitions(const float* partial, i64 size, i64 partitions, float* dw) {
  if (partitions == 1) return;
  parallel_pieces(size, 4096, partitions * 4, [=](i64 begin, i64 end) {
    for (i64 i = begin; i < end; i += V) {
      const int lanes = static_cast<int>(least<i64>(V, end - i));
      vec total = load_first(partial + i, lanes);
      for (i64 p = 1; p < partitions; p++) total += load_first(partial + p * size + i, lanes);
      store_first(dw + i, total, lanes);
    }
  });
}
