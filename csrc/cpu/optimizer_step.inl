// Stochastic gradient descent over all parameters at once, in place:
//   g = gradient * scale + decay * p;  v = momentum * v + g;  p -= rate * (nesterov ? g + momentum * v : v)
// Bound by memory: 20 bytes an element with momentum, 12 without.

template <bool MOMENTUM>
void sgd_piece(const SgdStep& s, const SgdParameter& parameter, i64 begin, i64 end) {
  const bool nesterov = s.nesterov != 0;
  for (i64 i = begin; i < end; i += V) {
    const int lanes = static_cast<int>(least<i64>(V, end - i));
    const vec p = load_first(parameter.p + i, lanes);
    const vec g = load_first(parameter.gradient + i, lanes) * s.gradient_scale + p * s.decay;
    vec step = g;
    if (MOMENTUM) {
      const vec v = load_first(parameter.velocity + i, lanes) * s.momentum + g;
      store_first(parameter.velocity + i, v, lanes);
      step = nesterov ? v * s.momentum + g : v;
    }
    store_first(parameter.p + i, p - step * s.rate, lanes);
  }
}

void sgd(const SgdStep& step, const SgdParameter* parameters, i64 count) {
  const SgdStep s = step;
  constexpr i64 PART = 16384;  // elements of a work item; an item never holds parts of two parameters
  i64* first = scratch<i64>(cnn::OFFSETS, count + 1);  // the first item of each parameter
  i64 items = 0, elements = 0;
  for (i64 k = 0; k < count; k++) {
    first[k] = items;
    items += blocks(parameters[k].size, PART);
    elements += parameters[k].size;
  }
  first[count] = items;
  parallel(items, elements * 20, [=](i64 item) {
    i64 low = 0, high = count;  // first[low] <= item < first[high]
    while (high - low > 1) {
      const i64 middle = (low + high) / 2;
      (first[middle] <= item ? low : high) = middle;
    }
    const SgdParameter& p = parameters[low];
    const i64 begin = (item - first[low]) * PART, end = least(p.size, begin + PART);
    p.velocity ? sgd_piece<true>(s, p, begin, end) : sgd_piece<false>(s, p, begin, end);
  });
}
