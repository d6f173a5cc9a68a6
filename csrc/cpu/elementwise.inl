// The walk of every elementwise kernel that is bound by memory: y[i] = value(inputs[i]...) for i in [0, n), whole
// vectors but for the first and the last. An output past STREAM_BYTES is written past the caches from its first aligned
// element on, and its inputs are asked for ahead: an exponential between two loads fills the processor's window, which
// then sees too few loads to hide the way to memory.

constexpr i64 PIECE = 16384;         // elements of a work item: 64 KB an array
constexpr i64 ELEMENTS_AHEAD = 512;  // of prefetching

template <class F, class... Inputs>
inline void map_piece(i64 begin, i64 end, bool streams, float* y, const F& value, const Inputs*... inputs) {
  i64 i = begin;
  if (streams) {
    for (; i + V <= end; i += V) {
      (prefetch_l1(inputs + i + ELEMENTS_AHEAD), ...);
      store_stream(y + i, value(load(inputs + i)...));
    }
    stream_fence();
  } else {
    for (; i + V <= end; i += V) store(y + i, value(load(inputs + i)...));
  }
  if (i < end) {
    const int lanes = static_cast<int>(end - i);
    store_part(y + i, value(load_part(inputs + i, lanes)...), lanes);
  }
}

// `cost`: the work of an element, see parallel. y may be an input.
template <class F, class... Inputs>
inline void map_elements(i64 n, i64 cost, float* y, const F& value, const Inputs*... inputs) {
  const bool streams = n * static_cast<i64>(sizeof(float)) > STREAM_BYTES;
  const i64 past = static_cast<i64>(reinterpret_cast<u64>(y) / sizeof(float) % V);  // of y's place in a vector
  const i64 head = streams && past ? V - past : 0;                                  // elements before the first vector
  if (head) map_piece(0, head, false, y, value, inputs...);
  parallel_pieces(n - head, PIECE, cost,
                  [&](i64 begin, i64 end) { map_piece(head + begin, head + end, streams, y, value, inputs...); });
}
