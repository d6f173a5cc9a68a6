"""2-D convolution in NHWC: x (N, H, W, C), w (K, R, S, C/groups), y (N, P, Q, K); stride, padding, dilation, groups.

    forward          y[n,p,q,k]  = sum over r, s, c of x[n, p*stride_h - pad_h + r*dilation_h, ..., c] w[k,r,s,c]
    backward_input   dx[n,h,w,c] = sum over r, s, k of dy[n,p,q,k] w[k,r,s,c]   where p, q reach h, w by r, s
    backward_weight  dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] x[n, p*stride_h - pad_h + r*dilation_h, ..., c]

Rungs, simplest first, one file each with its kernels and the host functions that launch them:
    direct         conv2d_direct.py: one thread an output, every operand from global memory; chosen where a group is too
                   narrow for a tile, and to learn from
    depthwise      conv2d_depthwise.py: one input channel a group: strips of outputs under a window of inputs, both in
                   registers; chosen where there are several such groups, of few filters each
    tiled          conv2d_tiled.py: implicit GEMM on CUDA cores, tiles in shared memory; chosen where outputs fill at
                   most half of the next rung's small tile along either side
    implicit_gemm  conv2d_implicit_gemm.py: the same with tiles of up to 128 x 128, two buffers, and no product with a
                   zero in backward_input; chosen otherwise
    implicit_gemm_tf32  conv2d_implicit_gemm_mma.py: the same on tensor cores, whose operands are rounded to TF32; never
                   chosen, only asked for
Roofline: 2 N P Q K R S C/groups flops over 4 (|x| + |w| + |y|) bytes. A 3x3 layer of 64 channels has 288 flops a byte,
over twenty times what separates 4.8 TB/s from 60 TFLOP/s: bound by arithmetic. ``direct`` reads 8 bytes for 2 flops and
lives on its caches; a 64 x 64 tile reads 1/64 of that, one of 128 x 128 1/128.
"""

from . import conv2d_depthwise, conv2d_direct, conv2d_implicit_gemm, conv2d_implicit_gemm_mma, conv2d_tiled
from .simt_tile import SMALL
from .tile import BN

RUNGS = {
    "direct": conv2d_direct,
    "depthwise": conv2d_depthwise,
    "tiled": conv2d_tiled,
    "implicit_gemm": conv2d_implicit_gemm,
    "implicit_gemm_tf32": conv2d_implicit_gemm_mma,
}
ALGORITHMS = tuple(RUNGS)
NARROW = BN // 4  # a group of fewer rows of b would leave most of a tile empty


def choose(algorithm, shape, rows, columns, narrow):
    """The rung for outputs (rows, columns) of a group, where None was asked for.

    ``narrow``: channels of the group along its tiles' columns.
    """
    if algorithm is not None:
        return algorithm
    if shape.groups == shape.C > 1 and shape.K // shape.groups < NARROW and shape.S <= conv2d_depthwise.MOST_TAPS:
        return "depthwise"
    if narrow < NARROW:
        return "direct"
    return "tiled" if rows <= SMALL.BM // 2 or columns <= SMALL.BN // 2 else "implicit_gemm"


def choose_forward(algorithm, shape):
    Kg = shape.K // shape.groups
    return choose(algorithm, shape, shape.N * shape.P * shape.Q, Kg, Kg)


def forward(launch, shape, x, w, y, epilogue, algorithm):
    RUNGS[choose_forward(algorithm, shape)].forward(launch, shape, x, w, y, epilogue)


def backward_input(launch, shape, dy, w, dx, algorithm):
    Cg = shape.C // shape.groups
    rung = choose(algorithm, shape, shape.N * shape.H * shape.W, Cg, Cg)
    RUNGS[rung].backward_input(launch, shape, dy, w, dx)


def backward_weight(launch, shape, x, dy, dw, algorithm):
    Kg = shape.K // shape.groups
    rung = choose(algorithm, shape, Kg, shape.reduction, Kg)
    RUNGS[rung].backward_weight(launch, shape, x, dy, dw)
