// A step of an optimizer over all parameters at once, in place; the contract has the formulas. Bound by memory: 20
// bytes an element for sgd with momentum, 12 without, 28 for adam. What is written was read just before and lies in the
// cache, so that stores past it gain nothing; asking ahead for all the arrays does, for those that are written in order
// to write: another thread's forward pass has read them, and taking them over later is one more way to its cache.
//   A state whose gradients have become 0, as behind a dead ReLU, decays geometrically into the denormal numbers, where
// it would stay: their arithmetic takes many times as long as that of others. So states below the smallest normal
// number become 0.

// Runs update(parameter, i, lanes) for the vectors of every parameter, which has so many states.
template <int STATES, class F>
void for_each_parameter(const StepParameter* parameters, i64 count, i64 cost, const F& update) {
  i64* first = scratch<i64>(cnn::OFFSETS, count + 1);  // the first item of each parameter
  i64 items = 0, elements = 0;
  for (i64 k = 0; k < count; k++) {
    first[k] = items;
    items += blocks(parameters[k].size, PIECE);  // an item never holds parts of two parameters
    elements += parameters[k].size;
  }
  first[count] = items;
  parallel(items, elements * cost, [=](i64 item) {
    i64 low = 0, high = count;  // first[low] <= item < first[high]
    while (high - low > 1) {
      const i64 middle = (low + high) / 2;
      (first[middle] <= item ? low : high) = middle;
    }
    const StepParameter parameter = parameters[low];
    i64 i = (item - first[low]) * PIECE;
    const i64 end = least(parameter.size, i + PIECE);
    for (; i + V <= end; i += V) {
      const i64 ahead = i + ELEMENTS_AHEAD;
      prefetch_to_write(parameter.p + ahead);
      prefetch_l1(parameter.gradient + ahead);
      if (STATES > 0) prefetch_to_write(parameter.first + ahead);
      if (STATES > 1) prefetch_to_write(parameter.second + ahead);
      update(parameter, i, V);
    }
    if (i < end) update(parameter, i, static_cast<int>(end - i));
  });
}

inline vec flushed(vec state) {
  return blend((state < __FLT_MIN__) & (state > -__FLT_MIN__), vec{}, state);  // NaN stays
}

template <bool MOMENTUM>
inline void sgd_vector(const SgdStep& s, const StepParameter& parameter, i64 i, int lanes) {
  const vec p = load_first(parameter.p + i, lanes);
  const vec g = load_first(parameter.gradient + i, lanes) * s.gradient_scale + p * s.decay;
  vec step = g;
  if (MOMENTUM) {
    const vec v = flushed(load_first(parameter.first + i, lanes) * s.momentum + g);
    store_first(parameter.first + i, v, lanes);
    step = s.nesterov != 0 ? v * s.momentum + g : v;
  }
  store_first(parameter.p + i, p - step * s.rate, lanes);
}

void sgd(const SgdStep& step, const StepParameter* parameters, i64 count) {
  const SgdStep s = step;
  if (count && parameters[0].first) {
    for_each_parameter<1>(parameters, count, 20, [=](const StepParameter& parameter, i64 i, int lanes) {
      sgd_vector<true>(s, parameter, i, lanes);
    });
  } else {
    for_each_parameter<0>(parameters, count, 12, [=](const StepParameter& parameter, i64 i, int lanes) {
      sgd_vector<false>(s, parameter, i, lanes);
    });
  }
}

void adam(const AdamStep& step, const StepParameter* parameters, i64 count) {
  const AdamStep s = step;
  for_each_parameter<2>(parameters, count, 40, [=](const StepParameter& parameter, i64 i, int lanes) {
    const vec p = load_first(parameter.p + i, lanes);
    const vec g = load_first(parameter.gradient + i, lanes) * s.gradient_scale + p * s.decay;
    const vec m = flushed(load_first(parameter.first + i, lanes) * s.beta1 + g * s.rest1);
    const vec v = flushed(load_first(parameter.second + i, lanes) * s.beta2 + g * g * s.rest2);
    store_first(parameter.first + i, m, lanes);
    store_first(parameter.second + i, v, lanes);
    const vec size = apply<SQRT>(v) * s.correction + s.epsilon;
    store_first(parameter.p + i, p * s.kept - m * s.rate / size, lanes);
  });
}
