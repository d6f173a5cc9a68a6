// Activations of n floats, forward and backward; y may be x, dx may be dy. docs/semantics.md defines them,
// ACTIVATION_SAVES of the contract says whether `saved` is x or y. Bound by memory: 8 bytes an element forward, 12
// backward. `activate` is what epilogues call, a vector at a time.

// gelu_tanh(x) = x logistic(2 sqrt(2 / pi) (x + 0.044715 x^3)); its argument has reached 0 or 1 long before |x| = 20,
// and x^3 does not overflow there.
inline vec within_gelu(vec x) {
  return at_most(at_least(x, -20.0f), 20.0f);
}
inline vec gelu_argument(vec x) {
  x = within_gelu(x);
  return x * (1.59576912161f + 0.0713548162726f * (x * x));
}

template <ActivationKind KIND>
inline vec activated(vec x, float parameter) {
  if constexpr (KIND == RELU) return relu(x);
  if constexpr (KIND == RELU6) return at_most(relu(x), 6.0f);
  if constexpr (KIND == LEAKY_RELU) return blend(x > 0.0f, x, x * parameter);
  if constexpr (KIND == SILU) return x * logistic(x);
  if constexpr (KIND == GELU) {
    vec bell;
    return x * normal_distribution(x, bell);
  }
  if constexpr (KIND == GELU_TANH) return x * logistic(gelu_argument(x));
  if constexpr (KIND == SIGMOID) return logistic(x);
  if constexpr (KIND == TANH) return hyperbolic_tangent(x);
  if constexpr (KIND == HARDSWISH) return x * (at_most(relu(x + 3.0f), 6.0f) * (1 / 6.0f));
  if constexpr (KIND == HARDSIGMOID) return at_most(relu(x + 3.0f), 6.0f) * (1 / 6.0f);
  if constexpr (KIND == ELU) {
    const vec lower = blend(x > -0.34f, exponential_minus_1(x), exponential(x) - 1.0f);
    return blend(x > 0.0f, x, lower * parameter);
  }
  return x;
}

// dx of the saved array s
template <ActivationKind KIND>
inline vec derived(vec s, vec dy, float parameter) {
  if constexpr (KIND == RELU) return blend(s <= 0.0f, vec{}, dy);
  if constexpr (KIND == RELU6) return blend((s > 0.0f) & (s < 6.0f), dy, vec{});
  if constexpr (KIND == LEAKY_RELU) return blend(s > 0.0f, dy, dy * parameter);
  if constexpr (KIND == SILU) {
    const vec y = logistic(s);
    return dy * (y * (1.0f + s * (1.0f - y)));
  }
  if constexpr (KIND == GELU) {
    vec bell;
    const vec below = normal_distribution(s, bell);
    return dy * (below + s * (bell * 0.398942280401f));  // 1 / sqrt(2 pi)
  }
  if constexpr (KIND == GELU_TANH) {
    const vec x = within_gelu(s), y = logistic(gelu_argument(x));
    return dy * (y + s * (y * (1.0f - y)) * (1.59576912161f + 0.214064448818f * (x * x)));
  }
  if constexpr (KIND == SIGMOID) return dy * (s * (1.0f - s));
  if constexpr (KIND == TANH) return dy * (1.0f - s * s);
  if constexpr (KIND == HARDSWISH) return blend(s >= 3.0f, dy, blend(s <= -3.0f, vec{}, dy * (s * (1 / 3.0f) + 0.5f)));
  if constexpr (KIND == HARDSIGMOID) return blend((s > 0.0f) & (s < 1.0f), dy * (1 / 6.0f), vec{});
  if constexpr (KIND == ELU) return blend(s > 0.0f, dy, dy * (s + parameter));
  return dy;
}

template <ActivationKind KIND>
struct OfKind {
  static constexpr ActivationKind value = KIND;
};

// Calls f(OfKind<kind>())
template <class F>
inline auto with_kind(ActivationKind kind, const F& f) {
  switch (kind) {
    case RELU:
      return f(OfKind<RELU>());
    case RELU6:
      return f(OfKind<RELU6>());
    case LEAKY_RELU:
      return f(OfKind<LEAKY_RELU>());
    case SILU:
      return f(OfKind<SILU>());
    case GELU:
      return f(OfKind<GELU>());
    case GELU_TANH:
      return f(OfKind<GELU_TANH>());
    case SIGMOID:
      return f(OfKind<SIGMOID>());
    case TANH:
      return f(OfKind<TANH>());
    case HARDSWISH:
      return f(OfKind<HARDSWISH>());
    case HARDSIGMOID:
      return f(OfKind<HARDSIGMOID>());
    case ELU:
      return f(OfKind<ELU>());
    default:
      return f(OfKind<IDENTITY>());
  }
}

__attribute__((noinline)) vec activate_by_kind(const Activation& a, vec x) {
  return with_kind(a.kind, [&](auto kind) { return activated<kind.value>(x, a.parameter); });
}

inline vec activate(const Activation& a, vec x) {
  if (a.kind == RELU) return relu(x);
  return a.kind == IDENTITY ? x : activate_by_kind(a, x);
}

void activation_forward(const Activation& a, i64 n, const float* x, float* y) {
  with_kind(a.kind, [&](auto kind) {
    constexpr ActivationKind KIND = kind.value;
    map_elements(n, KIND == RELU ? 8 : 24, y, [&](vec x) { return activated<KIND>(x, a.parameter); }, x);
  });
}

void activation_backward(const Activation& a, i64 n, const float* saved, const float* dy, float* dx) {
  with_kind(a.kind, [&](auto kind) {
    constexpr ActivationKind KIND = kind.value;
    const auto dx_of = [&](vec saved, vec dy) { return derived<KIND>(saved, dy, a.parameter); };
    map_elements(n, KIND == RELU ? 12 : 32, dx, dx_of, saved, dy);
  });
}
