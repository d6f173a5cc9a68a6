"""2-D convolution in NHWC: x (N, H, W, C), w (K, R, S, C/groups), y (N, P, Q, K); stride, padding, dilation, groups.

    forward          y[n,p,q,k]  = sum over r, s, c of x[n, p*stride_h - pad_h + r*dilation_h, ..., c] w[k,r,s,c]
    backward_input   dx[n,h,w,c] = sum over r, s, k of dy[n,p,q,k] w[k,r,s,c]   where p, q reach h, w by r, s
    backward_weight  dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] x[n, p*stride_h - pad_h + r*dilation_h, ..., c]

Rungs, simplest first:
    direct  conv2d_direct.py: one thread an output, every operand from global memory; chosen where a group is too narrow
            for a tile (depthwise) and to learn from
    tiled   conv2d_tiled.py: implicit GEMM on CUDA cores, tiles in shared memory; chosen otherwise
Roofline: 2 N P Q K R S C/groups flops over 4 (|x| + |w| + |y|) bytes. A 3x3 layer of 64 channels has 288 flops a byte,
over twenty times what separates 4.8 TB/s from 60 TFLOP/s: bound by arithmetic. ``direct`` reads 8 bytes for 2 flops and
lives on its caches; a 64 x 64 tile reads 1/64 of that.
"""

from . import conv2d_direct, conv2d_tiled
from .common import SIMULATED, THREADS, Conv2dShape, blocks, fuse
from .tile import BK, BLOCK, BM, BN

ALGORITHMS = ("direct", "tiled")
ENOUGH_BLOCKS = 4 if SIMULATED else 512  # of backward_weight before it is split no further
NARROW = BN // 4  # a group of fewer rows of b would leave most of a tile empty


def choose(algorithm, width):
    """The rung for a pass whose groups have ``width`` rows of b, where None was asked for."""
    return algorithm or ("direct" if width < NARROW else "tiled")


def forward(launch, shape, x, w, y, epilogue, algorithm):
    Kg = shape.K // shape.groups
    ints = launch.ints(Conv2dShape, shape)
    if choose(algorithm, Kg) == "direct":
        args = x, w, launch.out(y), *fuse(launch, epilogue, x.reshape(-1), y), ints
        launch(conv2d_direct.conv2d_forward_direct, blocks(y.size, THREADS), THREADS, *args)
        return
    pixels = shape.N * shape.P * shape.Q
    tiles = shape.groups * blocks(pixels, BM) * blocks(Kg, BN)
    w, y = w.reshape(shape.K, -1), y.reshape(pixels, shape.K)
    args = x, w, launch.out(y), *fuse(launch, epilogue, x.reshape(-1), y), ints
    launch(conv2d_tiled.conv2d_forward_tiled, tiles, BLOCK, *args)


def backward_input(launch, shape, dy, w, dx, algorithm):
    Cg = shape.C // shape.groups
    ints = launch.ints(Conv2dShape, shape)
    if choose(algorithm, Cg) == "direct":
        grid = blocks(dx.size, THREADS)
        launch(conv2d_direct.conv2d_backward_input_direct, grid, THREADS, dy, w, launch.out(dx), ints)
        return
    pixels = shape.N * shape.H * shape.W
    tiles = shape.groups * blocks(pixels, BM) * blocks(Cg, BN)
    args = dy, w.reshape(shape.K, -1, Cg), launch.out(dx.reshape(pixels, shape.C)), ints
    launch(conv2d_tiled.conv2d_backward_input_tiled, tiles, BLOCK, *args)


def backward_weight(launch, shape, x, dy, dw, algorithm):
    Kg = shape.K // shape.groups
    ints = launch.ints(Conv2dShape, shape)
    if choose(algorithm, Kg) == "direct":
        grid = blocks(dw.size, THREADS)
        launch(conv2d_direct.conv2d_backward_weight_direct, grid, THREADS, x, dy, launch.out(dw), ints)
        return
    pixels = shape.N * shape.P * shape.Q
    tiles = shape.groups * blocks(Kg, BM) * blocks(shape.reduction, BN)
    splits = max(min(ENOUGH_BLOCKS // tiles, pixels // (4 * BK)), 1)  # a range has at least four steps
    pixels_per_split = blocks(blocks(pixels, splits), BK) * BK
    splits = blocks(pixels, pixels_per_split)  # none is empty
    partial = dw if splits == 1 else launch.workspace((splits, *shape.w))
    partial = partial.reshape(splits, shape.K, shape.reduction)
    args = x, dy.reshape(pixels, shape.K), launch.out(partial), launch.integer(pixels_per_split), ints
    launch(conv2d_tiled.conv2d_backward_weight_tiled, splits * tiles, BLOCK, *args)
    if splits > 1:
        sums = conv2d_tiled.conv2d_backward_weight_sum
        out = launch.out(dw.reshape(-1))
        launch(sums, blocks(dw.size, THREADS), THREADS, partial.reshape(splits, -1), out)


SIGNATURES = conv2d_direct.SIGNATURES + conv2d_tiled.SIGNATURES
