// Normalisation of x (N, L, G, D) to mean 0 and variance 1 over L and D, for each n and g, then gain and offset (G*D,),
// a residual and relu; and the epilogue as a pass of its own. All of it is bound by memory. Two walks:
//
// * by columns where L > 1 (batch, group and instance norm): x[n] is a matrix of L rows of G*D channels. Blocks of rows
//   are summed channel by channel, a few rows first and these sums then, which rounds less than one long sum; the
//   blocks' sums are combined in double, and a second pass over memory writes. The sums are of x - shift, the shift
//   being the mean of a few rows of the block: data far from 0 loses no digits.
// * by rows where L is 1 (layer norm): the D neighbours of one n and g stay in the caches between the passes.
//
// What is added in which order follows from the shape alone, so that results do not depend on the number of threads.

constexpr i64 NORM_BLOCK = 65536;  // floats of one array in a work item: 256 KB, a part of the second-level cache
constexpr i64 NORM_RUN = 32;       // wide rows that are summed before their sums are added to the block's
constexpr i64 NORM_CHUNK = 256;    // columns of a work item that combines blocks
constexpr i64 NORM_BACKWARDS_BYTES = 64 << 20;  // of an array; larger ones are read faster in order
constexpr int TOGETHER = 2;    // rows that a loop over columns takes at once, so that it loads a sum less often
constexpr i64 WIDE_ROW = 256;  // floats: from memory, such rows are read faster one by one, in order

// A work item: `rows` wide rows of a matrix, and `rest` floats of the part of a row after them; `at` is where they
// begin in an array.
struct RowBlock {
  i64 number, matrix, at, rows, rest;
};

// Rows of channels that are not whole vectors are walked several at a time: `copies` rows side by side are a wide row
// of whole, aligned vectors. A matrix too short for that keeps its rows and ends each with a part of a vector.
struct ColumnWalk {
  i64 matrices, channels, copies, width;  // width = copies * channels
  i64 rows, rest;                         // whole wide rows of a matrix; floats of what is left, a part of one
  i64 block, pieces;                      // wide rows of a work item; work items of a matrix
  i64 size;                               // floats of a matrix
  bool streamed;                          // outputs go past the caches: those that are read twice take all of them
  bool in_order;                          // row after row

  // arrays: those that are read twice
  ColumnWalk(i64 matrices, i64 length, i64 channels, int arrays)
      : matrices(matrices), channels(channels), copies(1), size(length * channels) {
    while (copies * channels % V != 0) copies *= 2;
    if (length < 4 * copies) copies = 1;
    width = copies * channels;
    rows = length / copies;
    rest = length % copies * channels;
    block = most<i64>(1, NORM_BLOCK / (width * TOGETHER)) * TOGETHER;
    pieces = blocks(rows, block);
    streamed = arrays * matrices * size * 4 > STREAM_BYTES && width % V == 0 && size % V == 0;
    in_order = arrays * matrices * size * 4 > STREAM_BYTES && width >= WIDE_ROW;
  }

  // body(block) for each work item. `again`: the second time, for which each thread goes backwards from where it ended,
  // with what is still in its caches, unless that is too small a part of an array.
  template <class F>
  void each_block(bool again, const F& body) const {
    const bool backwards = again && matrices * size * 4 <= NORM_BACKWARDS_BYTES;
    const i64 items = matrices * pieces, threads = least<i64>(cnn::thread_count(), items);
    const auto first_of = [=](i64 thread) { return items * thread / threads; };  // as run_items divides
    parallel(items, matrices * size * 8, [&](i64 i) {
      i64 thread = i * threads / items;
      if (first_of(thread + 1) <= i) thread++;
      const i64 item = backwards ? first_of(thread) + first_of(thread + 1) - 1 - i : i;
      const i64 matrix = item / pieces, first = item % pieces * block, count = least(block, rows - first);
      body(RowBlock{item, matrix, matrix * size + first * width, count, first + count == rows ? rest : 0});
    });
  }

  // body(matrix, first, last) for some groups of D channels, [first, last) of a matrix, at most NORM_CHUNK of them
  template <class F>
  void each_chunk(i64 D, const F& body) const {
    const i64 groups = channels / D, together = most<i64>(1, NORM_CHUNK / D), chunks = blocks(groups, together);
    parallel(matrices * chunks, matrices * pieces * width * 8, [&](i64 item) {
      const i64 first = item % chunks * together;
      body(item / chunks, first, least(groups, first + together));
    });
  }

  // rows(r, count as a constant) for a block's rows: in_order singly, else TOGETHER at a time and the rest singly
  template <class F>
  void each_row(const RowBlock& block, const F& rows) const {
    i64 r = 0;
    for (; !in_order && r + TOGETHER <= block.rows; r += TOGETHER) rows(r, Constant<TOGETHER>());
    for (; r < block.rows; r++) rows(r, Constant<1>());
  }

  // each_row, and sums (count,) += those of NORM_RUN rows, which the rows add up in the (count,) floats behind sums,
  // and which begin anew with the next
  template <class F>
  void each_summed_row(const RowBlock& block, i64 count, float* sums, const F& rows) const {
    float* run = sums + count;
    for (i64 j = 0; j < 2 * count; j++) sums[j] = 0;
    for (i64 first = 0; first < block.rows; first += NORM_RUN) {
      const RowBlock part{block.number, block.matrix, 0, least(NORM_RUN, block.rows - first), 0};
      each_row(part, [&](i64 r, auto together) { rows(first + r, together); });
      for (i64 j = 0; j < count; j++) {
        sums[j] += run[j];
        run[j] = 0;
      }
    }
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
            const Activation& activation, bool again) {
  const bool stream = w.streamed && is_aligned(y);
  w.each_block(again, [&](const RowBlock& b) {
    const float* c = coefficients + b.matrix * 3 * w.width;
    const auto from = [&](i64 row) { return residual ? residual + b.at + row * w.width : nullptr; };
    const auto rows = [&](i64 r, auto count) {
      affine_rows<count.value>(x + b.at + r * w.width, from(r), y + b.at + r * w.width, w.width, w.width, c, activation,
                               stream);
    };
    w.each_row(b, rows);
    const i64 end = b.at + b.rows * w.width;
    if (b.rest) affine_rows<1>(x + end, from(b.rows), y + end, w.width, b.rest, c, activation, false);
    if (stream) stream_fence();
  });
}

void apply_epilogue(i64 rows, i64 channels, const float* x, float* y, const Epilogue& e) {
  const ColumnWalk w(1, rows, channels, 1);
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

// The sums of a block: shift, sum of d, sum of d^2, those two of a run of rows, (5, width). The shift is the mean of
// rows spread over it.
void sum_block(const ColumnWalk& w, const RowBlock& b, const float* x, float* sums) {
  constexpr i64 SAMPLES = 8;
  const i64 samples = least(b.rows, SAMPLES), width = w.width;
  each_vector(width, [&](i64 j, int lanes) {
    vec total{};
    for (i64 i = 0; i < samples; i++) total += load_first(x + b.at + i * b.rows / samples * width + j, lanes);
    store_first(sums + j, total / static_cast<float>(samples), lanes);
  });
  w.each_summed_row(b, 2 * width, sums + width, [&](i64 r, auto count) {
    add_rows<count.value>(x + b.at + r * width, width, sums, sums + 3 * width, sums + 4 * width);
  });
}

// Mean, and sum of squares about it, of channels [first, last) of one matrix from the sums of its blocks (pieces, 5,
// width) and its last rows: sum of (x - mean)^2 = sum of d^2 + (shift - mean) * (2 * sum of d + count * (shift -
// mean)).
void combine_blocks(const ColumnWalk& w, const float* sums, const float* last_rows, i64 first, i64 last, double* mean,
                    double* square) {
  const auto each_sum = [&](auto body) {  // body(rows, shift, sum of d, sum of d^2)
    for (i64 piece = 0; piece < w.pieces; piece++)
      for (i64 copy = 0; copy < w.width; copy += w.channels) {
        const float* shift = sums + piece * 5 * w.width + copy;
        body(static_cast<double>(least(w.block, w.rows - piece * w.block)), shift, shift + w.width,
             shift + 2 * w.width);
      }
  };
  const auto length = static_cast<double>(w.size / w.channels);
  for (i64 c = first; c < last; c++) mean[c] = square[c] = 0;
  each_sum([&](double count, const float* shift, const float* sum, const float*) {
    for (i64 c = first; c < last; c++) mean[c] += count * shift[c] + sum[c];
  });
  for (i64 row = 0; row < w.rest; row += w.channels)
    for (i64 c = first; c < last; c++) mean[c] += last_rows[row + c];
  for (i64 c = first; c < last; c++) mean[c] /= length;
  each_sum([&](double count, const float* shift, const float* sum, const float* squares) {
    for (i64 c = first; c < last; c++) {
      const double d = shift[c] - mean[c];
      square[c] += squares[c] + d * (2 * sum[c] + count * d);
    }
  });
  for (i64 row = 0; row < w.rest; row += w.channels)
    for (i64 c = first; c < last; c++) {
      const double d = last_rows[row + c] - mean[c];
      square[c] += d * d;
    }
}

struct NormOutput {
  float *y, *mean, *variance;
  double epsilon;
  int relu;
};

// Every copy but the first of `count` coefficients (count, width) of channels [first, last)
inline void repeat_coefficients(const ColumnWalk& w, int count, i64 first, i64 last, float* coefficients) {
  for (int i = 0; i < count; i++)
    for (i64 copy = w.channels; copy < w.width; copy += w.channels)
      for (i64 c = first; c < last; c++) coefficients[i * w.width + copy + c] = coefficients[i * w.width + c];
}

// mean and square (channels,) of one matrix -> mean and variance of its groups [first, last) and their part of the
// coefficients (3, width): y = (x - mean) * scale + offset, where what the float mean lacks goes into the offset
void finish_groups(const NormShape& s, const ColumnWalk& w, const double* mean, const double* square, i64 first,
                   i64 last, const float* gain, const float* offset, float* means, float* variances, double epsilon,
                   float* coefficients) {
  double middle[NORM_CHUNK], rstd[NORM_CHUNK];
  for (i64 g = first; g < last; g++) {
    double total = 0, squares = 0;
    for (i64 c = g * s.D; c < (g + 1) * s.D; c++) total += mean[c];
    total /= s.D;
    for (i64 c = g * s.D; c < (g + 1) * s.D; c++) squares += square[c] + s.L * (mean[c] - total) * (mean[c] - total);
    middle[g - first] = total;
    rstd[g - first] = squares;
  }
  const double all = static_cast<double>(s.L) * s.D;
  for (i64 i = 0; i < last - first; i++) rstd[i] /= all;
  for (i64 i = 0; i < last - first; i++) variances[first + i] = static_cast<float>(rstd[i]);
  for (i64 i = 0; i < last - first; i++) rstd[i] = 1 / __builtin_sqrt(rstd[i] + epsilon);
  for (i64 g = first; g < last; g++) {
    means[g] = static_cast<float>(middle[g - first]);
    const double lost = middle[g - first] - means[g];
    for (i64 c = g * s.D; c < (g + 1) * s.D; c++) {
      const double scale = gain ? rstd[g - first] * gain[c] : rstd[g - first];
      coefficients[c] = -means[g];
      coefficients[w.width + c] = static_cast<float>(scale);
      coefficients[2 * w.width + c] = static_cast<float>((offset ? offset[c] : 0) - lost * scale);
    }
  }
  repeat_coefficients(w, 3, first * s.D, last * s.D, coefficients);
}

void norm_forward_columns(const NormShape& s, const float* x, const float* gain, const float* offset,
                          const float* residual, const NormOutput& out) {
  const ColumnWalk w(s.N, s.L, static_cast<i64>(s.G) * s.D, 1);
  const i64 wide = w.width, pieces = w.pieces;
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, w.matrices * pieces * 5 * wide);
  double* columns = scratch<double>(cnn::COLUMN_TOTALS, w.matrices * 2 * w.channels);
  float* coefficients = scratch<float>(cnn::COEFFICIENTS, w.matrices * 3 * wide);
  w.each_block(false, [&](const RowBlock& b) { sum_block(w, b, x, sums + b.number * 5 * wide); });
  w.each_chunk(s.D, [&](i64 n, i64 first, i64 last) {
    double *mean = columns + n * 2 * w.channels, *square = mean + w.channels;
    combine_blocks(w, sums + n * pieces * 5 * wide, x + n * w.size + w.rows * wide, first * s.D, last * s.D, mean,
                   square);
    finish_groups(s, w, mean, square, first, last, gain, offset, out.mean + n * s.G, out.variance + n * s.G,
                  out.epsilon, coefficients + n * 3 * wide);
  });
  affine(w, x, residual, out.y, coefficients, {out.relu ? RELU : IDENTITY, 0}, true);
}

// ---- by columns, backward

struct NormGradients {
  float *dx, *dgain, *doffset, *dresidual;  // null where not wanted
};

// sum_dz and sum_dzu (columns,) += dz and dz * (x - mean) of ROWS rows; dz is dy, 0 where y <= 0, and goes to dresidual
template <int ROWS>
inline void add_gradients(const float* x, const float* y, const float* dy, float* dresidual, i64 width, i64 columns,
                          const float* mean, float* sum_dz, float* sum_dzu) {
  each_vector(columns, [&](i64 j, int lanes) {
    const vec centre = load_first(mean + j, lanes);
    vec s = load_first(sum_dz + j, lanes), u = load_first(sum_dzu + j, lanes);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      const i64 at = r * width + j;
      prefetch_l1(x + at + ELEMENTS_AHEAD);
      prefetch_l1(dy + at + ELEMENTS_AHEAD);
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
                            const float* coefficients, bool stream) {
  each_vector(columns, [&](i64 j, int lanes) {
    const auto coefficient = [&](int i) { return load_first(coefficients + i * width + j, lanes); };
    const vec mean = coefficient(0), p = coefficient(1), q = coefficient(2), constant = coefficient(3);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      const i64 at = r * width + j;
      prefetch_l1(x + at + ELEMENTS_AHEAD);
      prefetch_l1(dy + at + ELEMENTS_AHEAD);
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
        const float* part = sums + (piece * 4 + which) * w.width + copy * w.channels;
        for (i64 c = first; c < last; c++) total[c] += part[c];
      }
  }
}

// totals (2, channels) of dz and dz * (x - mean) of groups [first, last) -> p, q and r of the coefficients (4, width)
// of input_gradients; dz * (x - mean) becomes dz * u
void finish_gradients(const NormShape& s, const ColumnWalk& w, double* totals, i64 first, i64 last, const float* gain,
                      const float* variance, double epsilon, float* coefficients) {
  double *dz = totals, *dzu = totals + w.channels, rstd[NORM_CHUNK];
  const double share = 1 / (static_cast<double>(s.L) * s.D);
  for (i64 g = first; g < last; g++) rstd[g - first] = 1 / __builtin_sqrt(variance[g] + epsilon);
  for (i64 g = first; g < last; g++) {
    const double r = rstd[g - first];
    double average = 0, slope = 0;  // of du and du * (x - mean)
    for (i64 c = g * s.D; c < (g + 1) * s.D; c++) {
      average += gain ? dz[c] * gain[c] : dz[c];
      slope += gain ? dzu[c] * gain[c] : dzu[c];
      dzu[c] *= r;
    }
    for (i64 c = g * s.D; c < (g + 1) * s.D; c++) {
      coefficients[w.width + c] = static_cast<float>(gain ? r * gain[c] : r);
      coefficients[2 * w.width + c] = static_cast<float>(r * r * r * slope * share);
      coefficients[3 * w.width + c] = static_cast<float>(r * average * share);
    }
  }
  repeat_coefficients(w, 4, first * s.D, last * s.D, coefficients);
}

// result (channels,) = the sum of the matrices' totals, (matrices, 2, channels), which the first matrix's become
inline void add_matrices(const ColumnWalk& w, double* totals, float* result) {
  for (i64 n = 1; n < w.matrices; n++)
    for (i64 c = 0; c < w.channels; c++) totals[c] += totals[n * 2 * w.channels + c];
  for (i64 c = 0; c < w.channels; c++) result[c] = static_cast<float>(totals[c]);
}

void norm_backward_columns(const NormShape& s, const float* x, const float* gain, const float* mean,
                           const float* variance, const float* y, const float* dy, double epsilon,
                           const NormGradients& out) {
  const i64 C = static_cast<i64>(s.G) * s.D;
  const ColumnWalk w(s.N, s.L, C, 2);
  const i64 wide = w.width, pieces = w.pieces;
  float* sums = scratch<float>(cnn::PARTIAL_SUMS, w.matrices * pieces * 4 * wide);
  double* totals = scratch<double>(cnn::COLUMN_TOTALS, w.matrices * 2 * C);
  float* coefficients = scratch<float>(cnn::COEFFICIENTS, w.matrices * 4 * wide);
  parallel(w.matrices, w.matrices * wide, [&](i64 n) {
    float* m = coefficients + n * 4 * wide;
    for (i64 g = 0; g < s.G; g++)
      for (i64 d = 0; d < s.D; d++) m[g * s.D + d] = mean[n * s.G + g];
    repeat_coefficients(w, 1, 0, C, m);
  });
  w.each_block(false, [&](const RowBlock& b) {
    const float* m = coefficients + b.matrix * 4 * wide;
    float* total = sums + b.number * 4 * wide;  // of dz and of dz * (x - mean); behind them those of a run of rows
    const auto from = [&](auto* array, i64 r) { return array ? array + b.at + r * wide : nullptr; };
    const auto add = [&](i64 r, i64 columns, float* sum, auto count) {
      add_gradients<count.value>(from(x, r), from(y, r), from(dy, r), from(out.dresidual, r), wide, columns, m, sum,
                                 sum + wide);
    };
    w.each_summed_row(b, 2 * wide, total, [&](i64 r, auto count) { add(r, wide, total + 2 * wide, count); });
    if (b.rest) add(b.rows, b.rest, total, Constant<1>());
  });
  w.each_chunk(s.D, [&](i64 n, i64 first, i64 last) {
    double* total = totals + n * 2 * C;
    fold_gradients(w, sums + n * pieces * 4 * wide, first * s.D, last * s.D, total);
    finish_gradients(s, w, total, first, last, gain, variance + n * s.G, epsilon, coefficients + n * 4 * wide);
  });
  if (out.doffset) add_matrices(w, totals, out.doffset);
  if (out.dgain) add_matrices(w, totals + C, out.dgain);
  if (!out.dx) return;
  const bool stream = w.streamed && is_aligned(out.dx);
  const float* mask = out.dresidual ? nullptr : y;  // dresidual is dz already
  const float* dz = out.dresidual ? out.dresidual : dy;
  w.each_block(true, [&](const RowBlock& b) {
    const float* c = coefficients + b.matrix * 4 * wide;
    const auto from = [&](auto* array, i64 r) { return array ? array + b.at + r * wide : nullptr; };
    const auto write_rows = [&](i64 r, i64 columns, bool streams, auto count) {
      input_gradients<count.value>(from(x, r), from(mask, r), from(dz, r), from(out.dx, r), wide, columns, c, streams);
    };
    w.each_row(b, [&](i64 r, auto count) { write_rows(r, wide, stream, count); });
    if (b.rest) write_rows(b.rows, b.rest, false, Constant<1>());
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
  const bool stream = rows * D * 4 > STREAM_BYTES && D % V == 0 && is_aligned(out.y);
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
  const bool stream = s.N * C * 4 > STREAM_BYTES && D % V == 0 && is_aligned(out.dx);
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
