// backward_weight takes the output pixels in bands: a few rows of an image, or a few small images. A band's part of x,
// copied with its zero padding, stays in the first-level cache while all taps and filters pass over it; its sum starts
// from 0 and is then added to dw in memory, which keeps rounding errors small. Bands are shared out to partitions, as
// many as the shape asks for, whose sums are added up in order at the end.

constexpr i64 BAND_PIXELS = 128;  // 32 KB of x for 64 columns
constexpr i64 WEIGHT_ITEMS = 16;  // work items wanted: blocks of dw, times partitions

struct Bands {
  Conv2dShape s;
  const float* x;
  i64 pitch;         // floats of a pixel in the panel
  int images, rows;  // of a band, at most: one of them is 1 or rows is P
  int per_image;     // bands of an image where images is 1
  i64 count;
  int panel_rows, panel_columns;
  i64 lines() const { return static_cast<i64>(images) * rows; }  // output rows of a band, at most
  i64 line() const { return panel_columns * pitch; }
  i64 panel() const { return static_cast<i64>(images) * panel_rows * line(); }
};

struct Band {
  i64 n;
  int images, p, rows;
  i64 lines() const { return static_cast<i64>(images) * rows; }
};

inline Bands bands_of(const Conv2dShape& s, const float* x, i64 pitch) {
  Bands b;
  b.s = s;
  b.x = x;
  b.pitch = pitch;
  b.images = static_cast<int>(most<i64>(1, least<i64>(s.N, BAND_PIXELS / (static_cast<i64>(s.P) * s.Q))));
  b.rows = static_cast<int>(most<i64>(1, least<i64>(s.P, BAND_PIXELS / s.Q)));
  b.rows = static_cast<int>(blocks(s.P, blocks(s.P, b.rows)));
  b.per_image = static_cast<int>(blocks(s.P, b.rows));
  b.count = b.images > 1 ? blocks(s.N, b.images) : static_cast<i64>(s.N) * b.per_image;
  b.panel_rows = (b.rows - 1) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  b.panel_columns = (s.Q - 1) * s.stride_w + (s.S - 1) * s.dilation_w + 1;
  return b;
}

inline Band band_at(const Bands& b, i64 i) {
  if (b.images > 1) return {i * b.images, static_cast<int>(least<i64>(b.images, b.s.N - i * b.images)), 0, b.s.P};
  const int p = static_cast<int>(i % b.per_image) * b.rows;
  return {i / b.per_image, 1, p, least(b.rows, b.s.P - p)};
}

// Where a band's lines begin in dy (pixel pitch K) and in the panel: (lines,) each.
inline void band_lines(const Bands& b, i64* dy_run, i64* x_run) {
  for (i64 i = 0; i < b.lines(); i++) {
    dy_run[i] = i * b.s.Q * b.s.K;  // a band's images follow each other in dy
    x_run[i] = (i / b.rows * b.panel_rows + i % b.rows * b.s.stride_h) * b.line();
  }
}

// Copies `lanes` channels from `channel` on of what a band reads into panels (images, panel_rows, panel_columns,
// pitch), zero outside the image: one panel, or one after the other for every `pitch` channels.
void fill_band(const Bands& b, const Band& band, int channel, int lanes, float* panel) {
  const Conv2dShape& s = b.s;
  const int top = band.p * s.stride_h - s.pad_h, needed = (band.rows - 1) * s.stride_h + (s.R - 1) * s.dilation_h + 1;
  const int before = least(s.pad_w, b.panel_columns);
  const int inside = most(0, least(b.panel_columns - before, s.W + s.pad_w - before));
  const int after = b.panel_columns - before - inside;
  const i64 pitch = b.pitch, panels = blocks(lanes, pitch);
  for (int image = 0; image < band.images; image++)
    for (int r = 0; r < needed; r++) {
      const int h = top + r;
      const bool outside = h < 0 || h >= s.H;
      float* line = panel + (static_cast<i64>(image) * b.panel_rows + r) * b.line();
      for (i64 i = 0; i < panels; i++) {
        float* out = line + i * b.panel();
        __builtin_memset(out, 0, sizeof(float) * (outside ? b.panel_columns : before) * pitch);
        if (!outside) __builtin_memset(out + (before + inside) * pitch, 0, sizeof(float) * after * pitch);
      }
      if (outside) continue;
      const float* in = b.x + ((band.n + image) * s.H + h) * s.W * s.C + channel;
      line += before * pitch;
      if (lanes == s.C && pitch == s.C) {
        __builtin_memcpy(line, in, sizeof(float) * inside * pitch);
      } else if (pitch % V == 0) {
        for (i64 v = 0; v < inside; v++)  // all channels of a pixel, as they lie in memory
          for (i64 i = 0; i < panels; i++)
            for (i64 c = i * pitch; c < least<i64>(lanes, (i + 1) * pitch); c += V)
              store(line + i * b.panel() + v * pitch + c - i * pitch,
                    load_first(in + v * s.C + c, static_cast<int>(lanes - c)));
      } else {
        for (i64 v = 0; v < inside; v++) __builtin_memcpy(line + v * pitch, in + v * s.C, sizeof(float) * lanes);
      }
    }
}
