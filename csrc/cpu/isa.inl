// Compiles every kernel for the instruction set that ISA names: isa_generic.cpp, isa_avx2.cpp and isa_avx512.cpp
// include this file under their own compiler flags. All kernels have internal linkage; only the table leaves the
// object.
#include "kernels.h"
#include "memory.h"
#include "threads.h"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace ISA {
namespace {

#include "simd.h"
#include "elementary.inl"
#include "elementwise.inl"
#include "activation.inl"
#include "tile.inl"

#include "binary.inl"
#include "conv2d.inl"
#include "dropout.inl"
#include "gemm.inl"
#include "layout.inl"
#include "norm.inl"
#include "normalize_images.inl"
#include "optimizer_step.inl"
#include "pool2d.inl"
#include "reduce.inl"
#include "softmax_cross_entropy.inl"

}  // namespace

extern const Kernels kernels = {
    ISA_NAME,
    V,
    conv2d_packed_size,
    conv2d_pack,
    conv2d_can,
    conv2d_chosen,
    conv2d_forward,
    conv2d_backward_input,
    conv2d_backward_weight,
    max_pool2d_forward,
    max_pool2d_backward,
    avg_pool2d_forward,
    avg_pool2d_backward,
    activation_forward,
    activation_backward,
    unary,
    binary,
    reduce,
    gemm,
    apply_epilogue,
    norm_forward,
    norm_backward,
    softmax_cross_entropy_forward,
    softmax_cross_entropy_backward,
    permute,
    dropout,
    normalize_images,
    sgd,
    adam,
};

}  // namespace ISA
