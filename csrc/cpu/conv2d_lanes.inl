// Groups narrower than a vector: the lanes of a vector are output channels of one group or of several side by side, so
// that depthwise convolution (one channel and one filter a group) fills whole vectors, and four filters a group do too.
// The input under a lane is one of its own group's: of the channels under the vector, which lie side by side in x, a
// permutation brings channel `input` of every group under all of that group's lanes.

// How the output channels of one sum are cut into vectors.
struct Lanes {
  int groups, inputs, outputs;  // inputs and outputs of a group
  int together;                 // groups of a vector, whole ones; the last vector overlaps the one before
  int vectors;
  veci source;                                      // lane -> its group's first channel under the vector
  int count() const { return together * outputs; }  // lanes in use
  int span() const { return together * inputs; }    // channels under the vector
  int group(int vector) const { return least(vector * together, groups - together); }
  bool own() const { return inputs == 1 && outputs == 1 && together == V; }  // lane and channel are the same
};

inline Lanes lanes_of(int groups, int inputs, int outputs) {
  const int together = least(groups, V / outputs);
  Lanes l{groups, inputs, outputs, together, static_cast<int>(blocks(groups, together)), {}};
  for (int i = 0; i < l.count(); i++) l.source[i] = i / outputs * inputs;
  return l;
}

inline bool lanes_can(int groups, int inputs, int outputs) {
  return outputs <= V && static_cast<i64>(least(groups, V / outputs)) * inputs <= 2 * V;
}

// What a vector reads at a pixel of the inputs, and of the outputs. Depthwise: the channels as they lie.
struct OwnChannel {
  static constexpr bool OWN = true;
  explicit OwnChannel(const Lanes&) {}
  static constexpr int inputs() { return 1; }
  vec input(const float* x, int) const { return load(x); }
  vec output(const float* y) const { return load(y); }
};

// Channel `number` of each lane's group; the channels under the vector fill at most one vector, or two.
template <bool TWO>
struct GroupChannel {
  static constexpr bool OWN = false;
  veci source;
  int count, lanes, first, second;
  explicit GroupChannel(const Lanes& l)
      : source(l.source), count(l.inputs), lanes(l.count()), first(least(V, l.span())), second(l.span() - V) {}
  int inputs() const { return count; }
  vec input(const float* x, int number) const {
    const vec a = load_first(x, first);
    return shuffle(a, TWO ? load_first(x + V, second) : a, source + number);
  }
  vec output(const float* y) const { return load_first(y, lanes); }
};

// ---- the filter, (vectors, taps_h, inputs, taps_w, V)

inline i64 lane_filter_size(const Lanes& l, int taps_h, int taps_w) {
  return static_cast<i64>(l.vectors) * taps_h * l.inputs * taps_w * V;
}

// w (K, R, S, Cg) where lanes are filters: the filters under a vector are transposed, then laid out in the order of the
// taps.
void pack_filter_lanes(const Conv2dShape& s, const Lanes& l, int taps_h, const int* tap_row, int taps_w,
                       const int* tap_column, const float* w, float* packed) {
  const i64 terms = static_cast<i64>(s.R) * s.S * l.inputs, size = lane_filter_size(l, taps_h, taps_w) / l.vectors;
  parallel_pieces(l.vectors, 4, terms * V * 4, [&](i64 begin, i64 end) {
    float* transposed = scratch<float>(cnn::PANEL, terms * V);
    float* out = packed + begin * size;
    for (i64 vector = begin; vector < end; vector++) {
      const float* filters = w + l.group(static_cast<int>(vector)) * l.outputs * terms;
      transpose_into(filters, terms, l.count(), terms, transposed, V);
      for (int t = 0; t < taps_h; t++)
        for (int input = 0; input < l.inputs; input++)
          for (int u = 0; u < taps_w; u++, out += V)
            store(out, load(transposed + ((tap_row[t] * s.S + tap_column[u]) * l.inputs + input) * V));
    }
  });
}

// w (K, R, S, Cg) where lanes are channels and the inputs are the filters of their group.
void pack_channel_lanes(const Conv2dShape& s, const Lanes& l, int taps_h, const int* tap_row, int taps_w,
                        const int* tap_column, const float* w, float* packed) {
  const i64 terms = static_cast<i64>(s.R) * s.S * l.outputs, size = lane_filter_size(l, taps_h, taps_w) / l.vectors;
  parallel_pieces(l.vectors, 4, size * 4, [&](i64 begin, i64 end) {
    float* out = packed + begin * size;
    for (i64 vector = begin; vector < end; vector++)
      for (int t = 0; t < taps_h; t++)
        for (int input = 0; input < l.inputs; input++)
          for (int u = 0; u < taps_w; u++, out += V) {
            store(out, vec{});
            const i64 tap = static_cast<i64>(tap_row[t]) * s.S + tap_column[u];
            for (int i = 0; i < l.together; i++) {
              const i64 k = (l.group(static_cast<int>(vector)) + static_cast<i64>(i)) * l.inputs + input;
              for (int o = 0; o < l.outputs; o++) out[i * l.outputs + o] = w[k * terms + tap * l.outputs + o];
            }
          }
  });
}
