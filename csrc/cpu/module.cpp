// The extension cnnengine._native: checks arrays, releases the interpreter lock, calls the kernels of the instruction
// set in use. One function a verb of cnnengine/backends/contract.py, in its order.
#include <pybind11/stl.h>

#include <atomic>
#include <cstdlib>
#include <utility>
#include <vector>

#include "arrays.h"
#include "memory.h"
#include "threads.h"

namespace {

using Unlocked = py::gil_scoped_release;

// ---- the instruction set

struct Isa {
  const char* name;
  const Kernels* kernels;
  bool supported;
};

const std::vector<Isa>& isas() {  // the best last
  static const std::vector<Isa> all = [] {
    std::vector<Isa> list{{"generic", &isa_generic::kernels, true}};
#ifdef CNN_X86
    __builtin_cpu_init();
    list.push_back({"avx2", &isa_avx2::kernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
    list.push_back({"avx512", &isa_avx512::kernels,
                    __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")});
#endif
    return list;
  }();
  return all;
}

const Kernels* kernels = nullptr;
std::atomic<bool> winograd_allowed{true};

std::string supported_names() {
  std::string names;
  for (const Isa& isa : isas())
    if (isa.supported) names += (names.empty() ? "" : ", ") + std::string(isa.name);
  return names;
}

void set_isa(const std::string& name, const char* source = "set_isa") {
  for (const Isa& isa : isas())
    if (name == isa.name && isa.supported) {
      kernels = isa.kernels;
      return;
    }
  throw py::value_error(std::string(source) + ": expected an instruction set this CPU has (" + supported_names() +
                        "), received '" + name + "'");
}

// ---- convolution

constexpr const char* ALGORITHM_NAMES[ALGORITHMS] = {nullptr,   "direct",  "implicit_gemm", "depthwise",
                                                     "grouped", "columns", "winograd",      "winograd_6x6"};

Algorithm algorithm_named(const Call& call, const py::object& name) {
  if (name.is_none()) return AUTOMATIC;
  const auto text = name.cast<std::string>();
  for (int a = 1; a < ALGORITHMS; a++)
    if (text == ALGORITHM_NAMES[a]) return static_cast<Algorithm>(a);
  call.require(false, "unknown algorithm '" + text + "'");
  return AUTOMATIC;
}

Activation activation(const Call& call, int kind, float parameter) {
  call.require(kind >= IDENTITY && kind < ACTIVATION_KINDS, "no such activation");
  return {static_cast<ActivationKind>(kind), parameter};
}

struct ConvolutionCall : Call {
  Conv2dShape s;
  i64 x, w, y;  // elements
  ConvolutionCall(const char* verb, const py::bytes& packed) : Call(verb), s(shape<Conv2dShape>(packed)) {
    positive(s, 0, 9);    // N to stride_w
    positive(s, 11, 16);  // dilation_h to Q
    require(s.C % s.groups == 0 && s.K % s.groups == 0, "the channels do not divide into the groups");
    x = static_cast<i64>(s.N) * s.H * s.W * s.C;
    w = static_cast<i64>(s.K) * s.R * s.S * (s.C / s.groups);
    y = static_cast<i64>(s.N) * s.P * s.Q * s.K;
  }

  Algorithm chosen(int verb, const py::object& name) const {
    const Algorithm a =
        name.is_none() ? kernels->conv2d_chosen(verb, s, winograd_allowed) : algorithm_named(*this, name);
    if (!kernels->conv2d_can(verb, s, a))
      throw py::type_error(where(ALGORITHM_NAMES[a]) + " cannot compute this shape");
    return a;
  }
};

bool conv2d_can(int verb, const py::bytes& packed, const std::string& name) {
  const ConvolutionCall call("conv2d_can", packed);
  return kernels->conv2d_can(verb, call.s, algorithm_named(call, py::str(name)));
}

std::string conv2d_chosen(int verb, const py::bytes& packed) {
  const ConvolutionCall call("conv2d_chosen", packed);
  call.require(verb >= FORWARD && verb <= BACKWARD_WEIGHT, "no such verb");
  return ALGORITHM_NAMES[kernels->conv2d_chosen(verb, call.s, winograd_allowed)];
}

py::array conv2d_prepare(const py::bytes& packed, const py::array& w, const py::object& algorithm) {
  const ConvolutionCall call("conv2d_prepare", packed);
  const Algorithm a = call.chosen(FORWARD, algorithm);
  const float* pw = call.input(w, call.w, "w");
  py::array result = empty_floats(kernels->conv2d_packed_size(call.s, a));
  float* out = static_cast<float*>(result.mutable_data());
  Unlocked unlocked;
  kernels->conv2d_pack(call.s, a, pw, out);
  return result;
}

void conv2d_forward(const py::bytes& packed, const py::array& x, const py::array& w, const py::object& prepared,
                    py::array& y, const py::object& bias, const py::object& scale, const py::object& shift,
                    const py::object& residual, int activation_kind, float parameter, const py::object& algorithm) {
  const ConvolutionCall call("conv2d_forward", packed);
  const Algorithm a = call.chosen(FORWARD, algorithm);
  const float *px = call.input(x, call.x, "x"), *pw = call.input(w, call.w, "w");
  const float* pp =
      prepared.is_none() ? nullptr : call.optional(prepared, kernels->conv2d_packed_size(call.s, a), "prepared weight");
  float* py_ = call.output(y, call.y, "y");
  const int K = call.s.K;
  const Epilogue epilogue{call.optional(bias, K, "bias"), call.optional(scale, K, "scale"),
                          call.optional(shift, K, "shift"), call.optional(residual, call.y, "residual"),
                          activation(call, activation_kind, parameter)};
  Unlocked unlocked;
  kernels->conv2d_forward(call.s, a, px, pw, pp, py_, epilogue);
}

void conv2d_backward_input(const py::bytes& packed, const py::array& dy, const py::array& w, py::array& dx,
                           const py::object& algorithm) {
  const ConvolutionCall call("conv2d_backward_input", packed);
  const Algorithm a = call.chosen(BACKWARD_INPUT, algorithm);
  const float *pdy = call.input(dy, call.y, "dy"), *pw = call.input(w, call.w, "w");
  float* pdx = call.output(dx, call.x, "dx");
  Unlocked unlocked;
  kernels->conv2d_backward_input(call.s, a, pdy, pw, pdx);
}

void conv2d_backward_weight(const py::bytes& packed, const py::array& x, const py::array& dy, py::array& dw,
                            const py::object& algorithm) {
  const ConvolutionCall call("conv2d_backward_weight", packed);
  const Algorithm a = call.chosen(BACKWARD_WEIGHT, algorithm);
  const float *px = call.input(x, call.x, "x"), *pdy = call.input(dy, call.y, "dy");
  float* pdw = call.output(dw, call.w, "dw");
  Unlocked unlocked;
  kernels->conv2d_backward_weight(call.s, a, px, pdy, pdw);
}

// ---- pooling

struct PoolCall : Call {
  Pool2dShape s;
  i64 x, y;  // elements
  PoolCall(const char* verb, const py::bytes& packed) : Call(verb), s(shape<Pool2dShape>(packed)) {
    positive(s, 0, 8);    // N to stride_w
    positive(s, 10, 14);  // dilation_h to Q
    x = static_cast<i64>(s.N) * s.H * s.W * s.C;
    y = static_cast<i64>(s.N) * s.P * s.Q * s.C;
  }
  int index_bytes() const { return static_cast<i64>(s.R) * s.S <= 256 ? 1 : 4; }  // as Pool2dShape.index_dtype
};

void max_pool2d_forward(const py::bytes& packed, const py::array& x, py::array& y, const py::object& index) {
  const PoolCall call("pool2d_forward", packed);
  const float* px = call.input(x, call.x, "x");
  float* py_ = call.output(y, call.y, "y");
  void* pi = nullptr;
  if (!index.is_none()) {
    auto array = index.cast<py::array>();
    pi = call.index_bytes() == 1 ? static_cast<void*>(call.output<u8>(array, call.y, "index"))
                                 : call.output<int>(array, call.y, "index");
  }
  Unlocked unlocked;
  kernels->max_pool2d_forward(call.s, px, py_, pi, call.index_bytes());
}

void max_pool2d_backward(const py::bytes& packed, const py::array& dy, const py::array& index, py::array& dx) {
  const PoolCall call("pool2d_backward", packed);
  const float* pdy = call.input(dy, call.y, "dy");
  const void* pi = call.index_bytes() == 1 ? static_cast<const void*>(call.input<u8>(index, call.y, "index"))
                                           : call.input<int>(index, call.y, "index");
  float* pdx = call.output(dx, call.x, "dx");
  Unlocked unlocked;
  kernels->max_pool2d_backward(call.s, pdy, pi, call.index_bytes(), pdx);
}

void avg_pool2d_forward(const py::bytes& packed, const py::array& x, py::array& y) {
  const PoolCall call("pool2d_forward", packed);
  const float* px = call.input(x, call.x, "x");
  float* py_ = call.output(y, call.y, "y");
  Unlocked unlocked;
  kernels->avg_pool2d_forward(call.s, px, py_);
}

void avg_pool2d_backward(const py::bytes& packed, const py::array& dy, py::array& dx) {
  const PoolCall call("pool2d_backward", packed);
  const float* pdy = call.input(dy, call.y, "dy");
  float* pdx = call.output(dx, call.x, "dx");
  Unlocked unlocked;
  kernels->avg_pool2d_backward(call.s, pdy, pdx);
}

// ---- elementwise, reductions, products

void activation_forward(int kind, const py::array& x, py::array& y, float parameter) {
  const Call call("activation_forward");
  const Activation a = activation(call, kind, parameter);
  const i64 n = x.size();
  const float* px = call.input(x, n, "x");
  float* py_ = call.output(y, n, "y");
  Unlocked unlocked;
  kernels->activation_forward(a, n, px, py_);
}

void activation_backward(int kind, const py::array& saved, const py::array& dy, py::array& dx, float parameter) {
  const Call call("activation_backward");
  const Activation a = activation(call, kind, parameter);
  const i64 n = dy.size();
  const float *ps = call.input(saved, n, "saved"), *pdy = call.input(dy, n, "dy");
  float* pdx = call.output(dx, n, "dx");
  Unlocked unlocked;
  kernels->activation_backward(a, n, ps, pdy, pdx);
}

void unary(int op, const py::array& x, py::array& y) {
  const Call call("unary");
  call.require(op >= NEG && op <= SQRT, "no such operation");
  const i64 n = x.size();
  const float* px = call.input(x, n, "x");
  float* py_ = call.output(y, n, "y");
  Unlocked unlocked;
  kernels->unary(static_cast<UnaryOp>(op), n, px, py_);
}

void binary(int op, const py::bytes& packed, const py::array& a, const py::array& b, py::array& y) {
  const Call call("binary");
  call.require(op >= ADD && op <= EQUAL, "no such operation");
  const auto s = call.shape<BroadcastShape>(packed);
  call.positive(s, 0, 4);
  const i64 d[4] = {s.d0, s.d1, s.d2, s.d3}, sa[4] = {s.a0, s.a1, s.a2, s.a3}, sb[4] = {s.b0, s.b1, s.b2, s.b3};
  call.require(s.a3 <= 1 && s.b3 <= 1 && (s.a3 + s.b3 > 0 || s.d3 == 1),
               "along the innermost loop an operand moves by 1 or repeats, and one of them moves");
  i64 last_a = 0, last_b = 0;
  for (int i = 0; i < 4; i++) last_a += (d[i] - 1) * sa[i], last_b += (d[i] - 1) * sb[i];
  const float *pa = call.input(a, last_a + 1, "a"), *pb = call.input(b, last_b + 1, "b");
  float* py_ = call.output(y, d[0] * d[1] * d[2] * d[3], "y");
  Unlocked unlocked;
  kernels->binary(static_cast<BinaryOp>(op), s, pa, pb, py_);
}

void reduce(int op, const py::bytes& packed, const py::array& x, py::array& y) {
  const Call call("reduce");
  call.require(op == SUM || op == MAX, "no such operation");
  const auto s = call.shape<ReduceShape>(packed);
  call.positive(s, 0, 3);
  const float* px = call.input(x, static_cast<i64>(s.outer) * s.reduced * s.inner, "x");
  float* py_ = call.output(y, static_cast<i64>(s.outer) * s.inner, "y");
  Unlocked unlocked;
  kernels->reduce(static_cast<ReduceOp>(op), s, px, py_);
}

void gemm(const py::bytes& packed, const py::array& a, const py::array& b, py::array& c, const py::object& bias,
          const py::object& scale, const py::object& shift, const py::object& residual, int activation_kind,
          float parameter) {
  const Call call("gemm");
  const auto s = call.shape<GemmShape>(packed);
  call.positive(s, 0, 4);
  const i64 M = s.M, N = s.N, K = s.K;
  const float* pa = call.input(a, M * K * (s.shared_a ? 1 : s.batch), "a");
  const float* pb = call.input(b, K * N * (s.shared_b ? 1 : s.batch), "b");
  float* pc = call.output(c, s.batch * M * N, "c");
  const Epilogue epilogue{call.optional(bias, N, "bias"), call.optional(scale, N, "scale"),
                          call.optional(shift, N, "shift"), call.optional(residual, s.batch * M * N, "residual"),
                          activation(call, activation_kind, parameter)};
  Unlocked unlocked;
  kernels->gemm(s, pa, pb, pc, epilogue);
}

void apply_epilogue(const py::array& x, py::array& y, const py::object& bias, const py::object& scale,
                    const py::object& shift, const py::object& residual, int activation_kind, float parameter) {
  const Call call("apply_epilogue");
  const i64 size = x.size();
  call.require(x.ndim() > 0 && size > 0, "x must be (..., C) and not empty");
  const i64 C = x.shape(x.ndim() - 1);
  const float* px = call.input(x, size, "x");
  float* py_ = call.output(y, size, "y");
  const Epilogue epilogue{call.optional(bias, C, "bias"), call.optional(scale, C, "scale"),
                          call.optional(shift, C, "shift"), call.optional(residual, size, "residual"),
                          activation(call, activation_kind, parameter)};
  Unlocked unlocked;
  kernels->apply_epilogue(size / C, C, px, py_, epilogue);
}

// ---- normalisation

struct NormCall : Call {
  NormShape s;
  i64 x, statistics, channels;  // elements
  NormCall(const char* verb, const py::bytes& packed) : Call(verb), s(shape<NormShape>(packed)) {
    positive(s, 0, 4);
    statistics = static_cast<i64>(s.N) * s.G;
    channels = static_cast<i64>(s.G) * s.D;
    x = s.N * channels * s.L;
  }
};

void norm_forward(const py::bytes& packed, const py::array& x, const py::object& gain, const py::object& offset,
                  const py::object& residual, py::array& y, py::array& mean, py::array& variance, double epsilon,
                  bool relu) {
  const NormCall call("norm_forward", packed);
  const float* px = call.input(x, call.x, "x");
  const float *pg = call.optional(gain, call.channels, "gain"), *po = call.optional(offset, call.channels, "offset");
  const float* pr = call.optional(residual, call.x, "residual");
  float* py_ = call.output(y, call.x, "y");
  float *pm = call.output(mean, call.statistics, "mean"), *pv = call.output(variance, call.statistics, "variance");
  Unlocked unlocked;
  kernels->norm_forward(call.s, px, pg, po, pr, py_, pm, pv, epsilon, relu);
}

void norm_backward(const py::bytes& packed, const py::array& x, const py::object& gain, const py::array& mean,
                   const py::array& variance, const py::object& y, const py::array& dy, const py::object& dx,
                   const py::object& dgain, const py::object& doffset, const py::object& dresidual, double epsilon) {
  const NormCall call("norm_backward", packed);
  const float *px = call.input(x, call.x, "x"), *pg = call.optional(gain, call.channels, "gain");
  const float *pm = call.input(mean, call.statistics, "mean"), *pv = call.input(variance, call.statistics, "variance");
  const float *py_ = call.optional(y, call.x, "y"), *pdy = call.input(dy, call.x, "dy");
  float *pdx = call.optional_output(dx, call.x, "dx"), *pdg = call.optional_output(dgain, call.channels, "dgain");
  float *pdo = call.optional_output(doffset, call.channels, "doffset"),
        *pdr = call.optional_output(dresidual, call.x, "dresidual");
  Unlocked unlocked;
  kernels->norm_backward(call.s, px, pg, pm, pv, py_, pdy, pdx, pdg, pdo, pdr, epsilon);
}

// ---- loss, dropout, optimiser

// Rows of (M, C), after checking that labels are (M,) in [0, C).
i64 labelled_rows(const Call& call, const py::array& matrix, const py::array& labels) {
  call.require(matrix.ndim() == 2 && matrix.size() > 0, "the logits must be (M, C)");
  const i64 rows = matrix.shape(0), classes = matrix.shape(1);
  const i64* p = call.input<i64>(labels, rows, "labels");
  for (i64 i = 0; i < rows; i++)
    if (p[i] < 0 || p[i] >= classes)  // first: the message takes longer than the row's loss
      call.require(false, "label " + std::to_string(p[i]) + " of row " + std::to_string(i) + " is not in [0, " +
                              std::to_string(classes) + ")");
  return rows;
}

void softmax_cross_entropy_forward(const py::array& x, const py::array& labels, py::array& loss,
                                   py::array& probability) {
  const Call call("softmax_cross_entropy_forward");
  const i64 rows = labelled_rows(call, x, labels), size = x.size();
  const float* px = call.input(x, size, "x");
  float *pl = call.output(loss, rows, "loss"), *pp = call.output(probability, size, "probability");
  const i64* p = static_cast<const i64*>(labels.data());
  Unlocked unlocked;
  kernels->softmax_cross_entropy_forward(rows, size / rows, px, p, pl, pp);
}

void softmax_cross_entropy_backward(const py::array& probability, const py::array& labels, const py::array& dloss,
                                    py::array& dx) {
  const Call call("softmax_cross_entropy_backward");
  const i64 rows = labelled_rows(call, probability, labels), size = probability.size();
  const float *pp = call.input(probability, size, "probability"), *pd = call.input(dloss, rows, "dloss");
  float* pdx = call.output(dx, size, "dx");
  const i64* p = static_cast<const i64*>(labels.data());
  Unlocked unlocked;
  kernels->softmax_cross_entropy_backward(rows, size / rows, pp, p, pd, pdx);
}

void dropout(const py::array& x, py::array& y, u64 threshold, float scale, const py::array& state) {
  const Call call("dropout");
  const i64 n = x.size();
  const float* px = call.input(x, n, "x");
  float* py_ = call.output(y, n, "y");
  const u64* ps = call.input<u64>(state, 2, "state");
  const DropoutState d{ps[0], ps[1], threshold, scale};
  Unlocked unlocked;
  kernels->dropout(n, d, px, py_);
}

void normalize_images(const py::array& x, const py::array& factor, const py::array& offset, py::array& y) {
  const Call call("normalize_images");
  call.require(x.ndim() > 0 && x.size() > 0, "x must be (..., C)");
  const i64 n = x.size(), channels = x.shape(x.ndim() - 1);
  const u8* px = call.input<u8>(x, n, "x");
  const float *pf = call.input(factor, channels, "factor"), *po = call.input(offset, channels, "offset");
  float* py_ = call.output(y, n, "y");
  Unlocked unlocked;
  kernels->normalize_images(n, channels, px, pf, po, py_);
}

// The arrays of an optimizer's step: states holds `kinds` arrays a parameter, every parameter's first, then every
// second.
std::vector<StepParameter> step_parameters(const Call& call, const py::sequence& parameters,
                                           const py::sequence& gradients, const py::sequence& states, size_t kinds) {
  const size_t count = parameters.size();
  call.require(gradients.size() == count, "one gradient a parameter");
  call.require(states.size() == kinds * count, std::to_string(kinds) + " states a parameter");
  std::vector<StepParameter> list(count);
  for (size_t i = 0; i < count; i++) {
    auto p = parameters[i].cast<py::array>();
    const i64 size = p.size();
    const auto state = [&](size_t kind) {
      if (kind >= kinds) return static_cast<float*>(nullptr);
      auto a = states[kind * count + i].cast<py::array>();
      return call.output(a, size, "state");
    };
    list[i].p = call.output(p, size, "parameter");
    list[i].gradient = call.input(gradients[i].cast<py::array>(), size, "gradient");
    list[i].first = state(0);
    list[i].second = state(1);
    list[i].size = size;
  }
  return list;
}

void sgd(const py::sequence& parameters, const py::sequence& gradients, const py::sequence& states,
         const py::array& hyper) {
  const Call call("optimizer_step");
  const float* h = call.input(hyper, 5, "hyper");
  const SgdStep step{h[0], h[1], h[2], h[3], h[4]};
  const bool momentum = step.momentum != 0 || states.size() != 0;
  const auto list = step_parameters(call, parameters, gradients, states, momentum ? 1 : 0);
  Unlocked unlocked;
  kernels->sgd(step, list.data(), static_cast<i64>(list.size()));
}

void adam(const py::sequence& parameters, const py::sequence& gradients, const py::sequence& states,
          const py::array& hyper) {
  const Call call("optimizer_step");
  const float* h = call.input(hyper, 10, "hyper");
  const AdamStep step{h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9]};
  const auto list = step_parameters(call, parameters, gradients, states, 2);
  Unlocked unlocked;
  kernels->adam(step, list.data(), static_cast<i64>(list.size()));
}

// ---- order of axes

void permute(const py::array& x, py::array& y, const std::vector<int>& axes) {
  const Call call("permute");
  const float* px = call.input(x, x.size(), "x");
  float* py_ = call.output(y, x.size(), "y");
  call.require(axes.size() == static_cast<size_t>(x.ndim()) && x.ndim() <= 8,
               "expected an axis of y for each of x's 8");
  i64 strides[8], stride = 1;
  for (int axis = static_cast<int>(x.ndim()) - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= x.shape(axis);
  }
  PermuteWalk walk{1, {1}, {1}};
  unsigned seen = 0;
  for (const int axis : axes) {
    call.require(axis >= 0 && axis < x.ndim() && !(seen >> axis & 1), "no order of x's axes");
    seen |= 1u << axis;
    const i64 size = x.shape(axis);
    if (size == 1) continue;
    const int last = walk.rank - 1;
    if (walk.size[last] == 1 || walk.stride[last] == size * strides[axis]) {
      walk.size[last] *= size;
      walk.stride[last] = strides[axis];
    } else {
      walk.size[walk.rank] = size;
      walk.stride[walk.rank++] = strides[axis];
    }
  }
  Unlocked unlocked;
  if (x.size() > 0) kernels->permute(walk, px, py_);
}

// ---- memory and threads

py::dict memory_stats() {
  const cnn::MemoryStats blocks = cnn::memory_stats();
  const cnn::ScratchBytes scratch = cnn::scratch_held();
  py::dict stats;
  stats["in_use"] = blocks.in_use;
  stats["cached"] = blocks.cached;
  stats["peak"] = blocks.peak;
  stats["limit"] = blocks.limit;
  stats["allocations"] = blocks.allocations;
  stats["reuses"] = blocks.reuses;
  stats["scratch_activations"] = scratch.activations;
  stats["scratch_weights"] = scratch.weights;
  return stats;
}

void empty_cache() {
  cnn::free_cached_blocks();
  cnn::free_own_scratch();
  Unlocked unlocked;
  cnn::stop_workers();
}

// (activations, weights): bytes of scratch memory that the kernels called by run() ask for
std::pair<size_t, size_t> workspace_of(const py::function& run) {
  cnn::start_measuring();
  run();
  const cnn::ScratchBytes bytes = cnn::scratch_measured();
  return {bytes.activations, bytes.weights};
}

PyMethodDef empty_method = {"empty", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(empty_array)),
                            METH_FASTCALL, "empty(shape, dtype): an array that is not initialised"};

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Convolutional-network kernels for the CPU; the public face is cnnengine.backends.native";
  const char* override_name = std::getenv("CNNENGINE_ISA");
  if (override_name && *override_name) {
    set_isa(override_name, "CNNENGINE_ISA");
  } else {
    for (const Isa& isa : isas())
      if (isa.supported) kernels = isa.kernels;
  }
  cnn::thread_count();  // reports a wrong CNNENGINE_NUM_THREADS now

  m.def("isa", [] { return kernels->name; });
  m.def("isas", [] {
    py::list names;
    for (const Isa& isa : isas())
      if (isa.supported) names.append(isa.name);
    return names;
  });
  m.def("set_isa", [](const std::string& name) { set_isa(name); });
  m.def("get_num_threads", &cnn::thread_count);
  cnn::memory_stats();  // reports a wrong CNNENGINE_MEMORY_LIMIT now
  m.attr("empty") = py::reinterpret_steal<py::object>(PyCFunction_New(&empty_method, nullptr));
  m.def("memory_stats", &memory_stats);
  m.def("set_memory_limit", &cnn::set_memory_limit);
  m.def("empty_cache", &empty_cache);
  m.def("workspace_of", &workspace_of);
  m.def("set_num_threads", [](int count) {
    Unlocked unlocked;
    cnn::set_thread_count(count);
  });
  m.def("allow_winograd", [](bool allowed) { winograd_allowed = allowed; });
  m.def("conv2d_can", &conv2d_can);
  m.def("conv2d_chosen", &conv2d_chosen);
  m.def("conv2d_prepare", &conv2d_prepare);
  m.def("conv2d_forward", &conv2d_forward);
  m.def("conv2d_backward_input", &conv2d_backward_input);
  m.def("conv2d_backward_weight", &conv2d_backward_weight);
  m.def("max_pool2d_forward", &max_pool2d_forward);
  m.def("max_pool2d_backward", &max_pool2d_backward);
  m.def("avg_pool2d_forward", &avg_pool2d_forward);
  m.def("avg_pool2d_backward", &avg_pool2d_backward);
  m.def("activation_forward", &activation_forward);
  m.def("activation_backward", &activation_backward);
  m.def("unary", &unary);
  m.def("binary", &binary);
  m.def("reduce", &reduce);
  m.def("gemm", &gemm);
  m.def("apply_epilogue", &apply_epilogue);
  m.def("norm_forward", &norm_forward);
  m.def("norm_backward", &norm_backward);
  m.def("softmax_cross_entropy_forward", &softmax_cross_entropy_forward);
  m.def("softmax_cross_entropy_backward", &softmax_cross_entropy_backward);
  m.def("permute", &permute);
  m.def("dropout", &dropout);
  m.def("normalize_images", &normalize_images);
  m.def("sgd", &sgd);
  m.def("adam", &adam);
}
