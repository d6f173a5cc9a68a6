"""2-D convolution in NHWC: x (N, H, W, C), w (K, R, S, C/groups), y (N, P, Q, K); stride, padding, dilation, groups.

    forward          y[n,p,q,k]  = sum over r, s, c of x[n, p*stride_h - pad_h + r*dilation_h, ..., c] w[k,r,s,c]
    backward_input   dx[n,h,w,c] = sum over r, s, k of dy[n,p,q,k] w[k,r,s,c]   where p, q reach h, w by r, s
    backward_weight  dw[k,r,s,c] = sum over n, p, q of dy[n,p,q,k] x[n, p*stride_h - pad_h + r*dilation_h, ..., c]

Rungs, simplest first:
    direct              conv2d_direct.py: one thread an output, every operand from global memory; chosen where a group
                        is too narrow for a tile, and to learn from
    depthwise           conv2d_depthwise.py: one input channel a group, strips of outputs under a window of inputs, both
                        in registers; chosen where there are several such groups of fewer than eight filters
    tiled               conv2d_tiled.py: implicit GEMM on CUDA cores, tiles in shared memory; chosen where outputs fill
                        less than half of implicit_gemm's tile along either side
    implicit_gemm       conv2d_implicit_gemm.py: the same with more sums a thread, loads of 16 bytes from shared memory,
                        a step fetched while another is multiplied, no product with a zero in backward_input; chosen
                        else
    implicit_gemm_tf32  conv2d_implicit_gemm_mma.py: the same on tensor cores, operands rounded to TF32; only on request
Roofline: 2 N P Q K R S C/groups flops over 4 (|x| + |w| + |y|) bytes. A 3x3 layer of 64 channels has 144 flops a byte,
ten times what separates 4.8 TB/s from 60 TFLOP/s: bound by arithmetic. ``direct`` reads 8 bytes for 2 flops and lives
on its caches; a 64 x 64 tile reads 1/64 of that.

The host functions take ``block``, the block size of the rung: a number of threads (``direct``, ``depthwise``), a Tile
(``tiled``), a SimtTile (``implicit_gemm``) or an MmaTile (``implicit_gemm_tf32``); None is the rung's own.
"""

from math import gcd

from ..errors import Unsupported
from . import (
    conv2d_depthwise,
    conv2d_direct,
    conv2d_implicit_gemm,
    conv2d_implicit_gemm_mma,
    conv2d_tiled,
    mma_tile,
    simt_tile,
    tile,
)
from .common import SIMULATED, THREADS, Conv2dShape, blocks, fuse
from .phases import most_pixels, phases
from .sliding_window import STAGED

MMA = "implicit_gemm_tf32"
ALGORITHMS = ("direct", "depthwise", "tiled", "implicit_gemm", MMA)
RUNGS = {"tiled": conv2d_tiled, "implicit_gemm": conv2d_implicit_gemm, MMA: conv2d_implicit_gemm_mma}
TILES = {"tiled": tile.TILE, "implicit_gemm": simt_tile.TILE, MMA: mma_tile.TILE}
ENOUGH_BLOCKS = 4 if SIMULATED else 512  # of backward_weight before it is split no further
NARROW = tile.TILE.BN // 4  # a group of fewer channels would leave most of a tile empty
FEW_FILTERS = 8  # of a group of one channel, from which on a tile pays


def choose(algorithm, shape, width, rows, columns):
    """The rung for a pass whose groups have ``width`` channels and make ``rows`` x ``columns`` outputs, where None was
    asked for. Raises Unsupported where a rung does not take the shape."""
    if algorithm is None:
        if 1 < shape.groups == shape.C and shape.K // shape.C < FEW_FILTERS and shape.S <= STAGED:
            return "depthwise"
        if width < NARROW:
            return "direct"
        large = simt_tile.TILE
        return "implicit_gemm" if 2 * rows >= large.BM and 2 * columns >= large.BN else "tiled"
    if algorithm == "depthwise" and (shape.groups != shape.C or shape.S > STAGED):
        raise Unsupported(
            f"depthwise: takes one input channel a group (groups == C) and filters of at most {STAGED} columns,"
            f" received groups {shape.groups}, C {shape.C}, S {shape.S}: x {shape.x}, w {shape.w}"
        )
    return algorithm


def threads_of(rung, block):
    """The launch's block of a rung that has tiles"""
    return tile.block_of(block) if rung == "tiled" else block.THREADS


def forward(launch, shape, x, w, y, epilogue, algorithm, block=None):
    Kg = shape.K // shape.groups
    pixels = shape.N * shape.P * shape.Q
    ints = launch.ints(Conv2dShape, shape)
    rung = choose(algorithm, shape, Kg, pixels, Kg)
    channels = x.reshape(-1)  # stands in for an absent bias
    if rung == "direct":
        threads = block or THREADS
        args = x, w, launch.out(y), *fuse(launch, epilogue, channels, y), ints
        launch(conv2d_direct.conv2d_forward_direct, blocks(y.size, threads), threads, *args)
        return
    if rung == "depthwise":
        spacing = shape.dilation_w // gcd(shape.stride_w, shape.dilation_w)
        length = conv2d_depthwise.LENGTH
        walk = shape.N * shape.P, shape.Q, shape.K, spacing, shape.S, length, block or THREADS
        y = y.reshape(-1)
        args = channels, w.reshape(-1), launch.out(y), *fuse(launch, epilogue, channels, y), ints
        launch(conv2d_depthwise.forward(length), *conv2d_depthwise.strips(*walk), *args)
        return
    block = block or TILES[rung]
    tiles = shape.groups * blocks(pixels, block.BM) * blocks(Kg, block.BN)
    y = y.reshape(pixels, shape.K) if rung == "tiled" else y.reshape(-1)
    args = (x, w.reshape(shape.K, -1)) if rung == "tiled" else (channels, w.reshape(-1))
    args = *args, launch.out(y), *fuse(launch, epilogue, channels, y), ints
    launch(RUNGS[rung].forward(block), tiles, threads_of(rung, block), *args)


def backward_input(launch, shape, dy, w, dx, algorithm, block=None):
    Cg = shape.C // shape.groups
    pixels = shape.N * shape.H * shape.W
    ints = launch.ints(Conv2dShape, shape)
    rung = choose(algorithm, shape, Cg, most_pixels(shape), Cg)
    if rung == "direct":
        threads = block or THREADS
        args = dy, w, launch.out(dx), ints
        launch(conv2d_direct.conv2d_backward_input_direct, blocks(dx.size, threads), threads, *args)
        return
    if rung == "depthwise":
        step = shape.dilation_w // gcd(shape.stride_w, shape.dilation_w) * shape.stride_w
        length = conv2d_depthwise.LENGTH
        walk = shape.N * shape.H, shape.W, shape.C, step, shape.S, length, block or THREADS
        args = dy.reshape(-1), w.reshape(-1), launch.out(dx.reshape(-1)), ints
        launch(conv2d_depthwise.backward_input(length), *conv2d_depthwise.strips(*walk), *args)
        return
    block = block or TILES[rung]
    if rung == "tiled":
        tiles = shape.groups * blocks(pixels, block.BM) * blocks(Cg, block.BN)
        args = dy, w.reshape(shape.K, -1, Cg)
    else:
        tiles = shape.groups * blocks(most_pixels(shape), block.BM) * phases(shape) * blocks(Cg, block.BN)
        args = dy.reshape(-1), w.reshape(-1)
    args = *args, launch.out(dx.reshape(pixels, shape.C)), ints
    launch(RUNGS[rung].backward_input(block), tiles, threads_of(rung, block), *args)


def backward_weight(launch, shape, x, dy, dw, algorithm, block=None):
    Kg = shape.K // shape.groups
    pixels = shape.N * shape.P * shape.Q
    ints = launch.ints(Conv2dShape, shape)
    rung = choose(algorithm, shape, Kg, Kg, shape.reduction)
    if rung == "direct":
        threads = block or THREADS
        args = x, dy, launch.out(dw), ints
        launch(conv2d_direct.conv2d_backward_weight_direct, blocks(dw.size, threads), threads, *args)
        return
    if rung == "depthwise":
        common = gcd(shape.stride_w, shape.dilation_w)
        phase_count, spacing = shape.stride_w // common, shape.dilation_w // common
        taps = conv2d_depthwise.TAPS
        plan = shape, phase_count, spacing, taps, block or THREADS, ENOUGH_BLOCKS
        splits, each, tiles, threads = conv2d_depthwise.weight_blocks(*plan)
        kernel, args = conv2d_depthwise.backward_weight(taps), (x.reshape(-1), dy.reshape(-1))
    else:
        block = block or TILES[rung]
        tiles = shape.groups * blocks(Kg, block.BM) * blocks(shape.reduction, block.BN)
        splits = max(min(ENOUGH_BLOCKS // tiles, pixels // (4 * block.BK)), 1)  # a range has at least four steps
        each = blocks(blocks(pixels, splits), block.BK) * block.BK
        splits = blocks(pixels, each)  # none is empty
        kernel, threads = RUNGS[rung].backward_weight(block), threads_of(rung, block)
        args = (x, dy.reshape(pixels, shape.K)) if rung == "tiled" else (x.reshape(-1), dy.reshape(-1))
    partial = dw if splits == 1 else launch.workspace((splits, *shape.w))
    axes = (splits, dw.size) if rung == "depthwise" else (splits, shape.K, shape.reduction)
    launch(kernel, splits * tiles, threads, *args, launch.out(partial.reshape(axes)), launch.integer(each), ints)
    if splits > 1:
        sums = conv2d_tiled.conv2d_backward_weight_sum
        out = launch.out(dw.reshape(-1))
        launch(sums, blocks(dw.size, THREADS), THREADS, partial.reshape(splits, -1), out)


SIGNATURES = conv2d_direct.SIGNATURES + [
    signature
    for rung in (conv2d_depthwise, conv2d_tiled, conv2d_implicit_gemm, conv2d_implicit_gemm_mma)
    for signature in rung.SIGNATURES
]
