// 2-D convolution in NHWC: x (N, H, W, C), w (K, R, S, C/groups), y (N, P, Q, K); stride, padding, dilation, groups.
//
//   conv2d_forward           y[n,p,q,k]  = sum over r, s, c of x[n,i,j,c] w[k,r,s,c]
//   conv2d_backward_input    dx[n,i,j,c] = sum over r, s, k of dy[n,p,q,k] w[k,r,s,c]
//   conv2d_backward_weight   dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] x[n,i,j,c]
//
// where i = p*stride_h - pad_h + r*dilation_h, j = q*stride_w - pad_w + s*dilation_w, and x is 0 outside.
//
// Rungs, simplest first:
//   direct                one thread an output, every operand from global memory; chosen where a group is too narrow
//                         for a tile, and to learn from
//   depthwise             one input channel a group: strips of outputs under a window of inputs, both in registers
//   grouped               narrow groups, several of them a block: strips as in depthwise; of 8, 16 or 32 channels in
//                         16 bits rectangles on tensor cores
//   tiled                 implicit GEMM on CUDA cores: the matrix of patches is never built, its elements are found
//                         while they are loaded into shared memory; chosen for float32 where outputs are few
//   implicit_gemm         the same with tiles of up to 128 x 128, four elements a load, and no product with a zero in
//                         backward_input; chosen for float32
//   winograd              3x3 in float32 by F(2x2, 3x3), 2.25 times fewer multiply-adds; chosen where that pays
//   implicit_gemm_mma     implicit GEMM on tensor cores
//   implicit_gemm_wgmma   the same on Hopper's, with TMA
//
// All but direct and tiled are families of their own, conv2d/RUNG.cuh.
// Roofline: 2 N P Q K R S C/groups flops over 4 (|x| + |w| + |y|) bytes in float32. A 3x3 layer of 64 channels has 144
// flops a byte, ten times what separates 4.8 TB/s from 60 TFLOP/s: bound by arithmetic. `direct` reads 8 bytes for
// 2 flops and lives on its caches; a 64 x 64 tile reads 1/64 of that, one of 128 x 128 1/128.
#pragma once
#include "conv2d/direct.cuh"
#include "conv2d/tiled.cuh"
