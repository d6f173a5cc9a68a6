// y = x * factor[c] + offset[c] of images of bytes, whose channels c = i % C are neighbours. Factors and offsets lie in
// tables that go on from the first channel after the last, so that a vector may begin at any channel.

typedef u8 bytes_of_vec __attribute__((vector_size(V), aligned(1), may_alias));

void normalize_images(i64 n, i64 channels, const u8* x, const float* factor, const float* offset, float* y) {
  const i64 length = channels + V - 1;
  float* tables = scratch<float>(cnn::COEFFICIENTS, 2 * length);
  for (i64 c = 0; c < length; c++) {
    tables[c] = factor[c % channels];
    tables[length + c] = offset[c % channels];
  }
  const float *factors = tables, *offsets = tables + length;
  const bool streams = n * static_cast<i64>(sizeof(float)) > STREAM_BYTES && is_aligned(y);
  parallel_pieces(n, PIECE, 6, [=](i64 begin, i64 end) {
    const i64 step = V % channels;
    i64 i = begin, c = begin % channels;
    for (; i + V <= end; i += V) {
      const vec value = __builtin_convertvector(*reinterpret_cast<const bytes_of_vec*>(x + i), vec);
      const vec result = value * load(factors + c) + load(offsets + c);
      if (streams) {
        store_stream(y + i, result);
      } else {
        store(y + i, result);
      }
      c += step;
      if (c >= channels) c -= channels;
    }
    if (streams) stream_fence();
    for (; i < end; i++) {
      y[i] = static_cast<float>(x[i]) * factors[c] + offsets[c];
      c = c + 1 == channels ? 0 : c + 1;
    }
  });
}
