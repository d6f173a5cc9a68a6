// The shapes that kernels read. Every member is an int, in the order of the class of the same name in
// cnnengine/shapes.py (tests/test_shapes.py compares the two); Python hands them over packed, by pointer to the
// native kernels and by value to the CUDA kernels. Letters: N batch, H W input, C in-channels, K out-channels, R S
// filter, P Q output.
#pragma once

// x (N, H, W, C), w (K, R, S, C/groups), y (N, P, Q, K)
struct Conv2dShape {
  int N, H, W, C, K, R, S;
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
  int P, Q;
};

// x (N, H, W, C), y (N, P, Q, C); adaptive windows cover rows floor(p*H/P) to ceil((p+1)*H/P) - 1; an average is over
// `divisor`, or where that is 0 over the elements that count
struct Pool2dShape {
  int N, H, W, C, R, S;
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int P, Q;
  int adaptive, count_include_pad, divisor;
};

// c (batch, M, N) = op(a) @ op(b); shared_*: one matrix, without the batch axis, for the whole batch
struct GemmShape {
  int batch, M, N, K;
  int transpose_a, transpose_b, shared_a, shared_b;
};

// y (d0, d1, d2, d3) = a op b; a stride of 0 repeats the operand along that axis
struct BroadcastShape {
  int d0, d1, d2, d3;
  int a0, a1, a2, a3;
  int b0, b1, b2, b3;
};

// x (outer, reduced, inner) -> y (outer, inner)
struct ReduceShape {
  int outer, reduced, inner;
};

// x (N, L, G, D): one mean and variance for each n and g, over L and D; gain and offset (G*D,)
struct NormShape {
  int N, L, G, D;
};
