// The walk of every elementwise kernel that is bound by memory: y[i] = value(i, lanes) for i in [0, n), whole vectors
// but for the last. An output past STREAM_BYTES is written past the caches from its first aligned element on.

constexpr i64 PIECE = 16384;  // elements of a work item: 64 KB an array

// `cost`: the work of an element, see parallel. value(i, lanes) may read what y holds at [i, i + lanes) and before.
template <class F>
inline void map_elements(i64 n, i64 cost, float* y, const F& value) {
  const bool streams = n * static_cast<i64>(sizeof(float)) > STREAM_BYTES;
  const i64 past = static_cast<i64>(reinterpret_cast<u64>(y) / sizeof(float) % V);  // of y's place in a vector
  const i64 head = streams && past ? V - past : 0;                                  // elements before the first vector
  parallel(blocks(n - head, PIECE), n * cost, [&](i64 piece) {
    i64 i = head + piece * PIECE;
    const i64 end = least(n, i + PIECE);
    if (piece == 0 && head) store_first(y, value(0, static_cast<int>(head)), static_cast<int>(head));
    if (streams) {
      for (; i + V <= end; i += V) store_stream(y + i, value(i, V));
    } else {
      for (; i + V <= end; i += V) store(y + i, value(i, V));
    }
    if (i < end) store_first(y + i, value(i, static_cast<int>(end - i)), static_cast<int>(end - i));
    if (streams) stream_fence();
  });
}
