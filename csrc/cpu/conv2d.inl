// Convolution: which algorithm computes which shape, and which is chosen. docs/kernels/conv2d-cpu.md tells the whole.
//   depthwise      one channel and one filter a group; chosen for all of these
//   grouped        groups narrower than a vector; chosen for up to eight channels and filters a group
//   columns        backward_input, one group, no dilation along the width; chosen for few channels
//   winograd       one group, no stride and dilation: F(4 x 4, 3 x 3) for 3 x 3 filters, F(2 x 2, 5 x 5) for 5 x 5,
//                  F(3 x 3, 3 x 3) for the gradients of filters from 3 x 3 on; chosen where products are counted to
//                  weigh more than transforms, unless forbidden
//   winograd_6x6   3 x 3 filters, F(6 x 6, 3 x 3); fewer products and ten times the rounding: only on request
//   implicit_gemm  any shape; chosen otherwise
//   direct         any shape; the definition
#include "conv2d_direct.inl"
#include "conv2d_gather.inl"
#include "conv2d_patches.inl"
#include "conv2d_implicit_gemm.inl"
#include "conv2d_taps.inl"
#include "conv2d_batch_lanes.inl"
#include "conv2d_widened.inl"
#include "conv2d_weight_tile.inl"
#include "conv2d_bands.inl"
#include "conv2d_weight_by_channels.inl"
#include "conv2d_weight_by_images.inl"
#include "conv2d_weight_by_filters.inl"
#include "conv2d_columns.inl"
#include "conv2d_lanes.inl"
#include "conv2d_depthwise.inl"
#include "conv2d_depthwise_weight.inl"
#include "conv2d_winograd_transforms.inl"
#include "conv2d_winograd.inl"
#include "conv2d_winograd_weight.inl"

inline bool is_depthwise(const Conv2dShape& s) {
  return s.groups > 1 && s.groups == s.C && s.groups == s.K;
}

bool conv2d_can(int verb, const Conv2dShape& s, Algorithm algorithm) {
  switch (algorithm) {
    case DIRECT:
    case IMPLICIT_GEMM:
      return true;
    case DEPTHWISE:
      return is_depthwise(s);
    case GROUPED:
      return s.groups > 1 && !is_depthwise(s) && grouped_can(verb, s);
    case COLUMNS:
      return verb == BACKWARD_INPUT && columns_can(s);
    case WINOGRAD:
      return verb == BACKWARD_WEIGHT ? winograd_weight_can(s) : winograd_can(s);
    case WINOGRAD_6X6:
      return verb != BACKWARD_WEIGHT && winograd_can(s, 3);
    default:
      return false;
  }
}

Algorithm conv2d_chosen(int verb, const Conv2dShape& s, bool winograd) {
  if (is_depthwise(s)) return DEPTHWISE;
  if (conv2d_can(verb, s, GROUPED) && most(s.C, s.K) / s.groups <= least(8, V)) return GROUPED;
  if (verb == BACKWARD_INPUT && columns_can(s) && s.S > 1 && s.C < V) return COLUMNS;
  if (winograd && (verb == BACKWARD_WEIGHT ? winograd_weight_wins(s) : winograd_wins(verb, s))) return WINOGRAD;
  return IMPLICIT_GEMM;
}

i64 conv2d_packed_size(const Conv2dShape& s, Algorithm algorithm) {
  switch (algorithm) {
    case IMPLICIT_GEMM:
      return forward_packed_size(s);
    case DEPTHWISE:
    case GROUPED:
      return grouped_filter_size(s);
    case WINOGRAD:
      return filter_size(6, s.C, s.K);
    case WINOGRAD_6X6:
      return filter_size(8, s.C, s.K);
    default:
      return 0;
  }
}

void conv2d_pack(const Conv2dShape& s, Algorithm algorithm, const float* w, float* packed) {
  if (algorithm == IMPLICIT_GEMM) pack_forward(s, w, packed);
  if (algorithm == DEPTHWISE || algorithm == GROUPED) pack_grouped_forward(s, w, packed);
  if (algorithm == WINOGRAD)
    (s.R == 3 ? transform_all_filters<6, 3> : transform_all_filters<6, 5>)(w, s.C, s.K, false, packed);
  if (algorithm == WINOGRAD_6X6) transform_all_filters<8, 3>(w, s.C, s.K, false, packed);
}

void conv2d_forward(const Conv2dShape& s, Algorithm algorithm, const float* x, const float* w, const float* packed,
                    float* y, const Epilogue& e) {
  switch (algorithm) {
    case IMPLICIT_GEMM:
      return implicit_gemm_forward(s, x, w, packed, y, e);
    case DEPTHWISE:
    case GROUPED:
      return grouped_forward(s, x, w, packed, y, e);
    case WINOGRAD:
      return winograd(FORWARD, s, x, w, packed, y, e);
    case WINOGRAD_6X6:
      return winograd_gather<6, 3>(FORWARD, s, x, w, packed, y, e);
    default:
      return direct_forward(s, x, w, y, e);
  }
}

void conv2d_backward_input(const Conv2dShape& s, Algorithm algorithm, const float* dy, const float* w, float* dx) {
  switch (algorithm) {
    case IMPLICIT_GEMM:
      return implicit_gemm_backward_input(s, dy, w, dx);
    case DEPTHWISE:
    case GROUPED:
      return grouped_backward_input(s, dy, w, dx);
    case COLUMNS:
      return columns_backward_input(s, dy, w, dx);
    case WINOGRAD:
      return winograd(BACKWARD_INPUT, s, dy, w, nullptr, dx, Epilogue{});
    case WINOGRAD_6X6:
      return winograd_gather<6, 3>(BACKWARD_INPUT, s, dy, w, nullptr, dx, Epilogue{});
    default:
      return direct_backward_input(s, dy, w, dx);
  }
}

void conv2d_backward_weight(const Conv2dShape& s, Algorithm algorithm, const float* x, const float* dy, float* dw) {
  switch (algorithm) {
    case IMPLICIT_GEMM:
      return implicit_gemm_backward_weight(s, x, dy, dw);
    case DEPTHWISE:
    case GROUPED:
      return grouped_backward_weight(s, x, dy, dw);
    case WINOGRAD:
      return winograd_backward_weight<3>(s, x, dy, dw);
    default:
      return direct_backward_weight(s, x, dy, dw);
  }
}
