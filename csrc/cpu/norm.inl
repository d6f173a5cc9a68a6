// Normalisation of x (N, L, G, D) to mean 0 and variance 1 over L and D, for each n and g, then gain and offset (G*D,),
// a residual and relu; and the epilogue as a pass of its own. All of it is bound by memory. Two walks:
//
// * by columns where L > 1 (batch, group and instance norm): x[n] is a matrix of L rows of G*D channels. Blocks of rows
//   are summed channel by channel, the blocks' sums are combined in double, and a second pass over memory writes. The
//   sums are of x - shift, the shift being the mean of a few rows of the block: data far from 0 loses no digits.
// * by rows where L is 1 (layer norm): the D neighbours of one n and g stay in the caches between the passes.
//
// What is added in which order follows from the shape alone, so that results do not depend on the number of threads.

constexpr i64 NORM_BLOCK = 32768;  // floats of one array in a work item: 128 KB, a part of the second-level cache
constexpr i64 NORM_CHUNK = 256;    // columns of a work item that combines blocks
// Outputs larger than this are stored past the caches: they would take the room of the inputs, which are read twice.
constexpr i64 NORM_STREAM_BYTES = STREAM_BYTES / 2;
constexpr int TOGETHER = 4;  // rows that a loop over columns takes at once, so that it loads a sum only once

// Rows of channels that are not whole vectors are walked several at a time: `copies` rows side by side are a wide row
// of whole, aligned vectors. A matrix too short for that keeps its rows and ends each with a part of a vector.
struct ColumnWalk {
  i64 matrices, channels, copies, width;  // width = copies * channels
  i64 rows, rest;                         // whole wide rows of a matrix; floats of what is left, a part of one
  i64 block, pieces;                      // wide rows of a work item; work items of a matrix
  i64 size;                               // floats of a matrix
  bool streamed;                          // outputs go past the caches
  bool ahead;                             // the backward pass asks for its inputs ahead: the caches cannot hold them

  ColumnWalk(i64 matrices, i64 length, i64 channels)
      : matrices(matrices), channels(channels), copies(1), size(length * channels) {
    while (copies * channels % V != 0) copies *= 2;
    if (length < 4 * copies) copies = 1;
    width = copies * channels;
    rows = length / copies;
    rest = length % copies * channels;
    block = most<i64>(1, NORM_BLOCK / (width * TOGETHER)) * TOGETHER;
    pieces = blocks(rows, block);
    ahead = matrices * size * 4 > STREAM_BYTES;
    streamed = matrices * size * 4 > NORM_STREAM_BYTES && width % V == 0 && size % V == 0;
  }

  // body(item, matrix, offset into an array, wide rows, floats of the part of a row after them) for each work item.
  // `backwards`: each thread starts where it ended the last time, with what is still in its caches.
  template <class F>
  void each_block(i64 work, bool backwards, const F& body) const {
    const i64 items = matrices * pieces, threads = least<i64>(cnn::thread_count(), items);
    const auto first_of = [=](i64 thread) { return items * thread / threads; };  // as run_items divides
    parallel(items, matrices * size * work, [&](i64 i) {
      i64 thread = i * threads / items;
      if (first_of(thread + 1) <= i) thread++;
      const i64 item = backwards ? first_of(thread) + first_of(thread + 1) - 1 - i : i;
      const i64 matrix = item / pieces, first = item % pieces * block;
      const i64 count = least(block, rows - first);
      body(item, matrix, matrix * size + first * width, count, first + count == rows ? rest : 0);
    });
  }
};

// body(column, lanes) for each vector of a row, the last of which may be a part
template <class F>
inline void each_vector(i64 width, const F& body) {
  i64 j = 0;
  for (; j + V <= width; j += V) body(j, V);
  if (j < width) body(j, static_cast<int>(width - j));
}

inline void write(float* p, vec a, int lanes, bool stream) {
  if (stream && lanes == V) {
    store_stream(p, a);
  } else {
    store_first(p, a, lanes);
  }
}

// ---- one pass: y = activation((x + bias) * scale + shift + residual)

// coefficients: bias, scale and shift, (3, width)
template <int ROWS>
inline void affine_rows(const float* x, const float* residual, float* y, i64 width, i64 columns,
                        const float* coefficients, const Activation& activation, bool stream) {
  each_vector(columns, [&](i64 j, int lanes) {
    const vec bias = load_first(coefficients + j, lanes), scale = load_first(coefficients + width + j, lanes);
    const vec shift = load_first(coefficients + 2 * width + j, lanes);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      const i64 at = r * width + j;
      prefetch_l1(x + at + ELEMENTS_AHEAD);
      vec t = (load_first(x + at, lanes) + bias) * scale + shift;
      if (residual) {
        prefetch_l1(residual + at + ELEMENTS_AHEAD);
        t += load_first(residual + at, lanes);
      }
      t = activate(activation, t);
      write(y + at, t, lanes, stream);
    }
  });
}

// coefficients (matrices, 3, width)
void affine(const ColumnWalk& w, const float* x, const float* residual, float* y, const float* coefficients,
            const Activation& activation, bool backwards) {
  const bool stream = w.streamed && is_aligned(y);
  w.each_block(8, backwards, [&](i64, i64 matrix, i64 at, i64 rows, i64 rest) {
    const float* c = coefficients + matrix * 3 * w.width;
    const auto from = [&](i64 row) { return residual ? residual + at + row * w.width : nullptr; };
    i64 r = 0;
    for (; r + TOGETHER <= rows; r += TOGETHER)
      affine_rows<TOGETHER>(x + at + r * w.width, from(r), y + at + r * w.width, w.width, w.width, c, activation,
                            stream);
    for (; r < rows; r++)
      affine_rows<1>(x + at + r * w.width, from(r), y + at + r * w.width, w.width, w.width, c, activation, stream);
    if (rest) affine_rows<1>(x + at + r * w.width, from(r), y + at + r * w.width, w.width, rest, c, activation, false);
    if (stream) stream_fence();
  });
}

void apply_epilogue(i64 rows, i64 channels, const float* x, float* y, const Epilogue& e) {
  const ColumnWalk w(1, rows, channels);
  float* coefficients = scratch<float>(cnn::COEFFICIENTS, 3 * w.width);
  const float* parts[3] = {e.bias, e.scale, e.shift};
  const float absent[3] = {-0.0f, 1, -0.0f};  // x + -0 is x, also where x is -0
  for (int part = 0; part < 3; part++)
    for (i64 copy = 0; copy < w.copies; copy++)
      for (i64 c = 0; c < channels; c++)
        coefficients[part * w.width + copy * channels + c] = parts[part] ? parts[part][c] : absent[part];
  affine(w, x, e.residual, y, coefficients, e.activation, false);
}

// ---- by columns, forward

// sum and square (width,) += d and d^2 of ROWS rows, d = x - shift
template <int ROWS>
inline void add_rows(const float* x, i64 width, const float* shift, float* sum, float* square) {
  each_vector(width, [&](i64 j, int lanes) {
    const vec centre = load_first(shift + j, lanes);
    vec s = load_first(sum + j, lanes), q = load_first(square + j, lanes);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      prefetch_l1(x + r * width + j + ELEMENTS_AHEAD);
      const vec d = load_first(x + r * width + j, lanes) - centre;
      s += d;
      q += d * d;
    }
    store_first(sum + j, s, lanes);
    store_first(square + j, q, lanes);
  });
}

// The sums of a block of rows: shift, sum of d, sum of d^2, (3, width). The shift is the mean of rows spread over it.
void sum_block(const float* x, i64 rows, i64 width, float* sums) {
  constexpr i64 SAMPLES = 8;
  const i64 samples = least(rows, SAMPLES);
  each_vector(width, [&](i64 j, int lanes) {
    vec total{};
    for (i64 i = 0; i < samples; i++) total += load_first(x + i * rows / samples * width + j, lanes);
    store_first(sums + j, total / static_cast<float>(samples), lanes);
    store_first(sums + width + j, vec{}, lanes);
    store_first(sums + 2 * width + j, vec{}, lanes);
  });
  i64 r = 0;
  for (; r + TOGETHER <= rows; r += TOGETHER)
    add_rows<TOGETHER>(x + r * width, width, sums, sums + width, sums + 2 * width);
  for (; r < rows; r++) add_rows<1>(x + r * width, width, sums, sums + width, sums + 2 * width);
}

// Mean, and sum of squares about it, of columns [first, last) of one matrix from the sums of its blocks (pieces, 3,
// width) and its last rows: sum of (x - mean)^2 = sum of d^2 + (shift - mean) * (2 * sum of d + count * (shift -
// mean)).
void combine_blocks(const ColumnWalk& w, const float* sums, const float* last_rows, i64 first, i64 last, double* mean,
                    double* square) {
  const auto rows_of = [&](i64 piece) { return static_cast<double>(least(w.block, w.rows - piece * w.block)); };
  for (i64 j = first; j < last; j++) mean[j] = j < w.rest ? last_rows[j] : 0;
  for (i64 piece = 0; piece < w.pieces; piece++) {
    const float *shift = sums + piece * 3 * w.width, *sum = shift + w.width;
    const double count = rows_of(piece);
    for (i64 j = first; j < last; j++) mean[j] += count * shift[j] + sum[j];
  }
  for (i64 j = first; j < last; j++) {
    mean[j] /= static_cast<double>(w.rows + (j < w.rest));
    const double d = j < w.rest ? last_rows[j] - mean[j] : 0;
    square[j] = d * d;
  }
  for (i64 piece = 0; piece < w.pieces; piece++) {
    const float *shift = sums + piece * 3 * w.width, *sum = shift + w.width, *squares = sum + w.width;
    const double count = rows_of(piece);
    for (i64 j = first; j < last; j++) {
      const double d = shift[j] - mean[j];
      square[j] += squares[j] + d * (2 * sum[j] + count * d);
    }
  }
}

// Groups of a work item that combines blocks
inline i64 groups_together(const NormShape& s) {
  return most<i64>(1, NORM_CHUNK / s.D);
}

struct NormOutput {
  float *y, *mean, *variance;
  double epsilon;
  int relu;
};

// mean, square (width,) of one matrix -> mean and variance of its groups [first, last) and their part of the
// coefficients (3, width): y = (x - mean) * scale + offset, where what the float mean lacks goes into the offset
void finish_groups(const NormShape& s, const ColumnWalk& w, const double* mean, const double* square, i64 first,
                   i64 last, const float* gain, const float* offset, float* means, float* variances, double epsilon,
                   float* coefficients) {
  const double all = static_cast<double>(s.L) * s.D;
  for (i64 g = first; g < last; g++) {
    const auto each = [&](auto body) {  // body(column, channel)
      for (i64 copy = 0; copy < w.copies; copy++)
        for (i64 c = g * s.D; c < (g + 1) * s.D; c++) body(copy * w.channels + c, c);
    };
    double middle = 0, squares = 0;
    each([&](i64 j, i64) { middle += mean[j] * static_cast<double>(w.rows + (j < w.rest)); });
    middle /= all;
    each([&](i64 j, i64) {
      const double d = mean[j] - middle;
      squares += square[j] + d * d * static_cast<double>(w.rows + (j < w.rest));
    });
    means[g] = static_cast<float>(middle);
    variances[g] = static_cast<float>(squares / all);
    const double rstd = 1 / __builtin_sqrt(squares / all + epsilon), lost = middle - means[g];
    each([&](i64 j, i64 c) {
      const double scale = gain ? rstd * gain[c] : rstd;
      coefficients[j] = -means[g];
      coefficients[w.width + j] = static_cast<float>(scale);
      coefficients[2 * w.width + j] = static_cast<float>((offset ? offset[c] : 0) - lost * scale);
    });
  }
}

void norm_forward_columns(const NormShape& s, const float* x, const float* gain, const float* offset,
                          const float* residual, const NormOutput& out) {
  const ColumnWalk w(s.N, s.L, static_cast<i64>(s.G) * s.D);
  const i64 wide = w.width, pieces = w.pieces;
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, w.matrices * pieces * 3 * wide);
  double* columns = scratch<double>(cnn::COLUMN_TOTALS, w.matrices * 2 * wide);
  float* coefficients = scratch<float>(cnn::COEFFICIENTS, w.matrices * 3 * wide);
  w.each_block(4, false,
               [&](i64 item, i64, i64 at, i64 rows, i64) { sum_block(x + at, rows, wide, sums + item * 3 * wide); });
  const i64 chunks = blocks(wide, NORM_CHUNK);
  parallel(w.matrices * chunks, w.matrices * pieces * wide * 8, [&](i64 item) {
    const i64 n = item / chunks, first = item % chunks * NORM_CHUNK;
    double* mean = columns + n * 2 * wide;
    combine_blocks(w, sums + n * pieces * 3 * wide, x + n * w.size + w.rows * wide, first,
                   least(wide, first + NORM_CHUNK), mean, mean + wide);
  });
  const i64 together = groups_together(s), parts = blocks(s.G, together);
  parallel(w.matrices * parts, w.matrices * wide * 16, [&](i64 item) {
    const i64 n = item / parts, first = item % parts * together;
    const double* mean = columns + n * 2 * wide;
    finish_groups(s, w, mean, mean + wide, first, least<i64>(s.G, first + together), gain, offset, out.mean + n * s.G,
                  out.variance + n * s.G, out.epsilon, coefficients + n * 3 * wide);
  });
  affine(w, x, residual, out.y, coefficients, {out.relu ? RELU : IDENTITY, 0},
         true);  // backwards: the end of x is still in the caches
}

// ---- by columns, backward

struct NormGradients {
  float *dx, *dgain, *doffset, *dresidual;  // null where not wanted
};

// sum_dz and sum_dzu (width,) += dz and dz * (x - mean) of ROWS rows; dz is dy, 0 where y <= 0, and goes to dresidual
template <int ROWS>
inline void add_gradients(const float* x, const float* y, const float* dy, float* dresidual, i64 width, i64 columns,
                          const float* mean, float* sum_dz, float* sum_dzu, bool ahead) {
  each_vector(columns, [&](i64 j, int lanes) {
    const vec centre = load_first(mean + j, lanes);
    vec s = load_first(sum_dz + j, lanes), u = load_first(sum_dzu + j, lanes);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      const i64 at = r * width + j;
      if (ahead) {
        prefetch_l1(x + at + ELEMENTS_AHEAD);
        prefetch_l1(dy + at + ELEMENTS_AHEAD);
      }
      vec dz = load_first(dy + at, lanes);
      if (y) dz = blend(load_first(y + at, lanes) <= 0, vec{}, dz);
      if (dresidual) store_first(dresidual + at, dz, lanes);
      s += dz;
      u += dz * (load_first(x + at, lanes) - centre);
    }
    store_first(sum_dz + j, s, lanes);
    store_first(sum_dzu + j, u, lanes);
  });
}

// dx = dz * p - ((x - mean) * q + r); coefficients: mean, p, q, r, (4, width)
template <int ROWS>
inline void input_gradients(const float* x, const float* y, const float* dy, float* dx, i64 width, i64 columns,
                            const float* coefficients, bool stream, bool ahead) {
  each_vector(columns, [&](i64 j, int lanes) {
    const auto coefficient = [&](int i) { return load_first(coefficients + i * width + j, lanes); };
    const vec mean = coefficient(0), p = coefficient(1), q = coefficient(2), constant = coefficient(3);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      const i64 at = r * width + j;
      if (ahead) {
        prefetch_l1(x + at + ELEMENTS_AHEAD);
        prefetch_l1(dy + at + ELEMENTS_AHEAD);
      }
      vec dz = load_first(dy + at, lanes);
      if (y) dz = blend(load_first(y + at, lanes) <= 0, vec{}, dz);
      const vec t = dz * p - ((load_first(x + at, lanes) - mean) * q + constant);
      write(dx + at, t, lanes, stream);
    }
  });
}

// Sums over a matrix's blocks, folded to channels [first, last): total (2, channels) of dz and of dz * (x - mean).
void fold_gradients(const ColumnWalk& w, const float* sums, i64 first, i64 last, double* total) {
  for (int which = 0; which < 2; which++, total += w.channels) {
    for (i64 c = first; c < last; c++) total[c] = 0;
    for (i64 piece = 0; piece < w.pieces; piece++)
      for (i64 copy = 0; copy < w.copies; copy++) {
        const float* part = sums + (piece * 2 + which) * w.width + copy * w.channels;
        for (i64 c = first; c < last; c++) total[c] += part[c];
      }
  }
}

void norm_backward_columns(const NormShape& s, const float* x, const float* gain, const float* mean,
                           const float* variance, const float* y, const float* dy, double epsilon,
                           const NormGradients& out) {
  const i64 C = static_cast<i64>(s.G) * s.D;
  const ColumnWalk w(s.N, s.L, C);
  const i64 wide = w.width, pieces = w.pieces;
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, w.matrices * pieces * 2 * wide);
  double* totals = scratch<double>(cnn::COLUMN_TOTALS, w.matrices * 2 * C);
  float* coefficients = scratch<float>(cnn::COEFFICIENTS, w.matrices * 4 * wide);
  parallel(w.matrices, w.matrices * wide, [&](i64 n) {
    float* m = coefficients + n * 4 * wide;
    for (i64 copy = 0; copy < w.copies; copy++)
      for (i64 g = 0; g < s.G; g++)
        for (i64 d = 0; d < s.D; d++) m[copy * C + g * s.D + d] = mean[n * s.G + g];
  });
  w.each_block(8, false, [&](i64 item, i64 n, i64 at, i64 rows, i64 rest) {
    const float* m = coefficients + n * 4 * wide;
    float *dz = sums + item * 2 * wide, *dzu = dz + wide;
    for (i64 j = 0; j < 2 * wide; j++) dz[j] = 0;
    const auto from = [&](auto* array, i64 r) { return array ? array + at + r * wide : nullptr; };
    i64 r = 0;
    for (; r + TOGETHER <= rows; r += TOGETHER)
      add_gradients<TOGETHER>(from(x, r), from(y, r), from(dy, r), from(out.dresidual, r), wide, wide, m, dz, dzu,
                              w.ahead);
    for (; r < rows; r++)
      add_gradients<1>(from(x, r), from(y, r), from(dy, r), from(out.dresidual, r), wide, wide, m, dz, dzu, w.ahead);
    if (rest)
      add_gradients<1>(from(x, r), from(y, r), from(dy, r), from(out.dresidual, r), wide, rest, m, dz, dzu, w.ahead);
  });
  const i64 together = groups_together(s), parts = blocks(s.G, together);
  parallel(w.matrices * parts, w.matrices * pieces * wide * 8, [&](i64 item) {
    const i64 n = item / parts, first = item % parts * together, last = least<i64>(s.G, first + together);
    double *dz = totals + n * 2 * C, *dzu = dz + C;
    fold_gradients(w, sums + n * pieces * 2 * wide, first * s.D, last * s.D, dz);
    const double all = static_cast<double>(s.L) * s.D;
    float* coefficient = coefficients + n * 4 * wide;
    for (i64 g = first; g < last; g++) {
      const double rstd = 1 / __builtin_sqrt(variance[n * s.G + g] + epsilon);
      double average = 0, slope = 0;  // of du and du * (x - mean)
      for (i64 c = g * s.D; c < (g + 1) * s.D; c++) {
        average += gain ? dz[c] * gain[c] : dz[c];
        slope += gain ? dzu[c] * gain[c] : dzu[c];
        dzu[c] *= rstd;
      }
      const auto q = static_cast<float>(rstd * rstd * rstd * slope / all);
      const auto constant = static_cast<float>(rstd * average / all);
      for (i64 copy = 0; copy < w.copies; copy++)
        for (i64 c = g * s.D; c < (g + 1) * s.D; c++) {
          float* column = coefficient + copy * C + c;
          column[wide] = static_cast<float>(gain ? rstd * gain[c] : rstd);
          column[2 * wide] = q;
          column[3 * wide] = constant;
        }
    }
  });
  const auto over_matrices = [&](const double* first, float* result) {
    for (i64 c = 0; c < C; c++) {
      double total = 0;
      for (i64 n = 0; n < w.matrices; n++) total += first[n * 2 * C + c];
      result[c] = static_cast<float>(total);
    }
  };
  if (out.doffset) over_matrices(totals, out.doffset);
  if (out.dgain) over_matrices(totals + C, out.dgain);
  if (!out.dx) return;
  const bool stream = w.streamed && is_aligned(out.dx);
  const float* mask = out.dresidual ? nullptr : y;  // dresidual is dz already
  const float* dz = out.dresidual ? out.dresidual : dy;
  w.each_block(8, true, [&](i64, i64 n, i64 at, i64 rows, i64 rest) {
    const float* c = coefficients + n * 4 * wide;
    const auto from = [&](auto* array, i64 r) { return array ? array + at + r * wide : nullptr; };
    i64 r = 0;
    for (; r + TOGETHER <= rows; r += TOGETHER)
      input_gradients<TOGETHER>(from(x, r), from(mask, r), from(dz, r), from(out.dx, r), wide, wide, c, stream,
                                w.ahead);
    for (; r < rows; r++)
      input_gradients<1>(from(x, r), from(mask, r), from(dz, r), from(out.dx, r), wide, wide, c, stream, w.ahead);
    if (rest) input_gradients<1>(from(x, r), from(mask, r), from(dz, r), from(out.dx, r), wide, rest, c, false, false);
    if (stream) stream_fence();
  });
}

// ---- by rows

// Sums of d and d^2, d = x - shift, over one row of n floats: four chains, their totals in double.
inline void sum_row(const float* x, i64 n, float shift, double* sum_d, double* sum_square) {
  constexpr i64 CHAINS = 4, PIECE = 4096;
  *sum_d = *sum_square = 0;
  for (i64 start = 0; start < n; start += PIECE) {
    const i64 end = least(n, start + PIECE);
    vec s[CHAINS]{}, q[CHAINS]{};
    i64 i = start;
    for (; i + V * CHAINS <= end; i += V * CHAINS)
      for (int c = 0; c < CHAINS; c++) {
        prefetch_l1(x + i + c * V + ELEMENTS_AHEAD);
        const vec d = load(x + i + c * V) - shift;
        s[c] += d;
        q[c] += d * d;
      }
    for (; i < end; i += V) {
      const int lanes = static_cast<int>(least<i64>(V, end - i));
      const vec d = blend(LANE_NUMBERS < lanes, load_first(x + i, lanes) - shift, vec{});
      s[0] += d;
      q[0] += d * d;
    }
    *sum_d += sum((s[0] + s[1]) + (s[2] + s[3]));
    *sum_square += sum((q[0] + q[1]) + (q[2] + q[3]));
  }
}

void norm_forward_rows(const NormShape& s, const float* x, const float* gain, const float* offset,
                       const float* residual, const NormOutput& out) {
  const i64 D = s.D, rows = static_cast<i64>(s.N) * s.G;
  const bool stream = rows * D * 4 > NORM_STREAM_BYTES && D % V == 0 && is_aligned(out.y);
  parallel_pieces(rows, most<i64>(1, NORM_BLOCK / D), D * 16, [&](i64 begin, i64 end) {
    for (i64 row = begin; row < end; row++) {
      const i64 at = row * D, channel = row % s.G * D;
      double sum_d, square;
      sum_row(x + at, D, 0, &sum_d, &square);
      const auto shift = static_cast<float>(sum_d / static_cast<double>(D));
      sum_row(x + at, D, shift, &sum_d, &square);
      const double error = sum_d / static_cast<double>(D), mean = shift + error;
      const double variance = square / static_cast<double>(D) - error * error;
      out.mean[row] = static_cast<float>(mean);
      out.variance[row] = static_cast<float>(variance);
      const auto rstd = static_cast<float>(1 / __builtin_sqrt(variance + out.epsilon));
      const float less = static_cast<float>(-error) * rstd;
      each_vector(D, [&](i64 i, int lanes) {
        vec t = (load_first(x + at + i, lanes) - shift) * rstd + less;
        if (gain) t *= load_first(gain + channel + i, lanes);
        if (offset) t += load_first(offset + channel + i, lanes);
        if (residual) t += load_first(residual + at + i, lanes);
        if (out.relu) t = relu(t);
        write(out.y + at + i, t, lanes, stream);
      });
    }
    if (stream) stream_fence();
  });
}

// One row's dx, and its share of dgain and doffset (D,) added to theirs.
inline void gradient_row(const float* x, const float* gain, const float* y, const float* dy, i64 D, float mean,
                         double rstd, float* dx, float* dresidual, float* dgain, float* doffset, bool stream) {
  const auto scale = static_cast<float>(rstd);
  const auto masked = [&](i64 i, int lanes) {
    const vec dz = load_first(dy + i, lanes);
    return y ? blend(load_first(y + i, lanes) <= 0, vec{}, dz) : dz;
  };
  vec average{}, slope{};  // of du and du * (x - mean)
  each_vector(D, [&](i64 i, int lanes) {
    prefetch_l1(x + i + ELEMENTS_AHEAD);
    prefetch_l1(dy + i + ELEMENTS_AHEAD);
    const vec dz = masked(i, lanes), du = gain ? dz * load_first(gain + i, lanes) : dz;
    const vec d = blend(LANE_NUMBERS < lanes, load_first(x + i, lanes) - mean, vec{});
    average += du;
    slope += du * d;
    store_first(dgain + i, load_first(dgain + i, lanes) + dz * (d * scale), lanes);
    store_first(doffset + i, load_first(doffset + i, lanes) + dz, lanes);
    if (dresidual) store_first(dresidual + i, dz, lanes);
  });
  if (!dx) return;
  const auto all = static_cast<double>(D);
  const auto q = static_cast<float>(rstd * rstd * rstd * sum(slope) / all);
  const auto constant = static_cast<float>(rstd * sum(average) / all);
  each_vector(D, [&](i64 i, int lanes) {
    vec du = masked(i, lanes);
    if (gain) du *= load_first(gain + i, lanes);
    const vec t = du * scale - ((load_first(x + i, lanes) - mean) * q + constant);
    write(dx + i, t, lanes, stream);
  });
}

void norm_backward_rows(const NormShape& s, const float* x, const float* gain, const float* mean, const float* variance,
                        const float* y, const float* dy, double epsilon, const NormGradients& out) {
  const i64 D = s.D, C = s.G * D, size = most<i64>(most<i64>(1, NORM_BLOCK / C), blocks(s.N, 256));
  const i64 pieces = blocks(s.N, size);  // of the n, at most 256: each has sums of its own, (pieces, 2, C)
  const bool stream = s.N * C * 4 > NORM_STREAM_BYTES && D % V == 0 && is_aligned(out.dx);
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, pieces * 2 * C);
  parallel(pieces, s.N * C * 16, [&](i64 item) {
    float *dgain = sums + item * 2 * C, *doffset = dgain + C;
    for (i64 c = 0; c < 2 * C; c++) dgain[c] = 0;
    for (i64 row = item * size * s.G; row < least<i64>(s.N, (item + 1) * size) * s.G; row++) {
      const i64 at = row * D, channel = row % s.G * D;
      gradient_row(x + at, gain ? gain + channel : nullptr, y ? y + at : nullptr, dy + at, D, mean[row],
                   1 / __builtin_sqrt(variance[row] + epsilon), out.dx ? out.dx + at : nullptr,
                   out.dresidual ? out.dresidual + at : nullptr, dgain + channel, doffset + channel, stream);
    }
    if (stream) stream_fence();
  });
  parallel_pieces(C, NORM_CHUNK, pieces * 8, [&](i64 begin, i64 end) {
    for (int which = 0; which < 2; which++) {
      float* result = which == 0 ? out.dgain : out.doffset;
      if (!result) continue;
      for (i64 c = begin; c < end; c++) {
        double total = 0;
        for (i64 piece = 0; piece < pieces; piece++) total += sums[(piece * 2 + which) * C + c];
        result[c] = static_cast<float>(total);
      }
    }
  });
}

void norm_forward(const NormShape& s, const float* x, const float* gain, const float* offset, const float* residual,
                  float* y, float* mean, float* variance, double epsilon, int relu_after) {
  const NormOutput out{y, mean, variance, epsilon, relu_after};
  s.L == 1 ? norm_forward_rows(s, x, gain, offset, residual, out)
           : norm_forward_columns(s, x, gain, offset, residual, out);
}

void norm_backward(const NormShape& s, const float* x, const float* gain, const float* mean, const float* variance,
                   const float* y, const float* dy, float* dx, float* dgain, float* doffset, float* dresidual,
                   double epsilon) {
  const NormGradients out{dx, dgain, doffset, dresidual};
  s.L == 1 ? norm_backward_rows(s, x, gain, mean, variance, y, dy, epsilon, out)
           : norm_backward_columns(s, x, gain, mean, variance, y, dy, epsilon, out);
}
