// Everything an instruction set offers, as one table of plain functions. Only plain structs and pointers cross this
// border: no STL and no inline function, which a linker could take from an object that this CPU cannot run.
#pragma once
#include "shapes.h"

typedef long long i64;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned char u8;

// In the order of ACTIVATIONS of cnnengine/backends/contract.py
enum ActivationKind {
  IDENTITY,
  RELU,
  RELU6,
  LEAKY_RELU,
  SILU,
  GELU,
  GELU_TANH,
  SIGMOID,
  TANH,
  HARDSWISH,
  HARDSIGMOID,
  ELU,
  ACTIVATION_KINDS
};

struct Activation {
  ActivationKind kind;
  float parameter;  // slope of LEAKY_RELU, scale of ELU
};

// y = activation((y + bias) * scale + shift + residual); a null pointer is an absent part. bias, scale, shift (K,),
// residual as y.
struct Epilogue {
  const float *bias, *scale, *shift, *residual;
  Activation activation;
};

// How a convolution is computed; AUTOMATIC chooses by shape, see conv2d.inl.
enum Algorithm { AUTOMATIC, DIRECT, IMPLICIT_GEMM, DEPTHWISE, GROUPED, COLUMNS, WINOGRAD, WINOGRAD_6X6, ALGORITHMS };

enum UnaryOp { NEG, EXP, LOG, SQRT };
enum BinaryOp { ADD, SUB, MUL, DIV, POW, EQUAL };
enum ReduceOp { SUM, MAX };

// y[i] = x[i] kept and scaled, or 0: see dropout.inl
struct DropoutState {
  u64 seed, offset, threshold;
  float scale;
};

// lr, momentum and so on of a stochastic gradient descent step
struct SgdStep {
  float rate, momentum, decay, nesterov, gradient_scale;
};

// As the contract's hyper of "adam"
struct AdamStep {
  float rate, beta1, rest1, beta2, rest2, correction, epsilon, decay, kept, gradient_scale;
};

struct StepParameter {
  float* p;
  const float* gradient;
  float* first;   // velocity of "sgd", null where momentum is 0; first moment of "adam"
  float* second;  // second moment of "adam"
  i64 size;
};

// y's axes, the last one innermost, with their strides in x, in elements; one of them is 1
struct PermuteWalk {
  int rank;
  i64 size[8], stride[8];
};

struct Kernels {
  const char* name;
  int lanes;  // floats in a vector

  // floats that conv2d_pack fills, 0 where the algorithm reads w as it is; packed may be null in conv2d_forward
  i64 (*conv2d_packed_size)(const Conv2dShape&, Algorithm);
  void (*conv2d_pack)(const Conv2dShape&, Algorithm, const float* w, float* packed);
  // whether the algorithm can compute this shape; chosen is what AUTOMATIC means, Winograd's where it is
  // allowed
  bool (*conv2d_can)(int verb, const Conv2dShape&, Algorithm);
  Algorithm (*conv2d_chosen)(int verb, const Conv2dShape&, bool winograd);
  void (*conv2d_forward)(const Conv2dShape&, Algorithm, const float* x, const float* w, const float* packed, float* y,
                         const Epilogue&);
  void (*conv2d_backward_input)(const Conv2dShape&, Algorithm, const float* dy, const float* w, float* dx);
  void (*conv2d_backward_weight)(const Conv2dShape&, Algorithm, const float* x, const float* dy, float* dw);

  // index: u8 or int (index_bytes 1 or 4), or null
  void (*max_pool2d_forward)(const Pool2dShape&, const float* x, float* y, void* index, int index_bytes);
  void (*max_pool2d_backward)(const Pool2dShape&, const float* dy, const void* index, int index_bytes, float* dx);
  void (*avg_pool2d_forward)(const Pool2dShape&, const float* x, float* y);
  void (*avg_pool2d_backward)(const Pool2dShape&, const float* dy, float* dx);

  void (*activation_forward)(const Activation&, i64 n, const float* x, float* y);
  void (*activation_backward)(const Activation&, i64 n, const float* saved, const float* dy, float* dx);
  void (*unary)(UnaryOp, i64 n, const float* x, float* y);
  void (*binary)(BinaryOp, const BroadcastShape&, const float* a, const float* b, float* y);
  void (*reduce)(ReduceOp, const ReduceShape&, const float* x, float* y);
  void (*gemm)(const GemmShape&, const float* a, const float* b, float* c, const Epilogue&);
  void (*apply_epilogue)(i64 rows, i64 channels, const float* x, float* y, const Epilogue&);
  // gain, offset, residual and gradients may be null; y of norm_backward is null unless relu followed
  void (*norm_forward)(const NormShape&, const float* x, const float* gain, const float* offset, const float* residual,
                       float* y, float* mean, float* variance, double epsilon, int relu);
  void (*norm_backward)(const NormShape&, const float* x, const float* gain, const float* mean, const float* variance,
                        const float* y, const float* dy, float* dx, float* dgain, float* doffset, float* dresidual,
                        double epsilon);
  void (*softmax_cross_entropy_forward)(i64 rows, i64 classes, const float* x, const i64* labels, float* loss,
                                        float* probability);
  void (*softmax_cross_entropy_backward)(i64 rows, i64 classes, const float* probability, const i64* labels,
                                         const float* dloss, float* dx);
  void (*permute)(const PermuteWalk&, const float* x, float* y);
  void (*dropout)(i64 n, const DropoutState&, const float* x, float* y);
  void (*normalize_images)(i64 n, i64 channels, const u8* x, const float* factor, const float* offset, float* y);
  void (*sgd)(const SgdStep&, const StepParameter*, i64 parameters);
  void (*adam)(const AdamStep&, const StepParameter*, i64 parameters);
};

enum ConvolutionVerb { FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT };

namespace isa_generic {
extern const Kernels kernels;
}
namespace isa_avx2 {
extern const Kernels kernels;
}
namespace isa_avx512 {
extern const Kernels kernels;
}
