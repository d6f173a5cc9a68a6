"""Which kernel of csrc/cuda/conv2d/depthwise.cuh runs a shape, on how many blocks. As everywhere the plan follows from
the shape, the dtype and the alignment alone.

Each verb has its plans by configuration, the documented choice first: forward and backward_input by the threads of a
block, backward_weight by the taps of a thread and the splits.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

from ..shapes import INT32_MAX, Conv2dShape
from . import _kernel_plans as plans
from ._kernel_library import DEPTHWISE_TAPS, ITEM_BYTES, depthwise_weight_vector
from ._kernel_plans import FULL_GPU, THREADS, Plan

FILTER_BYTES = 16384  # StagedFilters::BYTES: of the filter rows in shared memory at once
BLOCK_BYTES = 128  # most bytes of a pixel's channels that a block takes: a line of the cache
BLOCK_LINES = (8, 16, 4, 2)  # of the outputs: rows of the input that they share are read once from L2
BLOCK_PARTS = 8  # of filters in backward_weight: they share the elements of dy
LOADS = 4  # of an input and a gradient, which are turned into float32 and serve all taps of a thread
MOST_LINES = 64  # blockDim.z of CUDA
STRIP = {8: 3, 4: 4}  # Strip::LENGTH by VECTOR; else 8
RUN_LENGTH = 16  # of depthwise.cuh


class Axis(NamedTuple):
    """The struct of the same name in csrc/cuda/conv2d/sliding_window.cuh."""

    phases: int
    spacing: int

    @classmethod
    def of(cls, stride: int, dilation: int) -> Axis:
        common = gcd(stride, dilation)
        return cls(stride // common, dilation // common)


class Weights(NamedTuple):
    """The products of backward_weight: one launch, whose blocks add ``items`` runs of outputs each."""

    launch: Plan
    splits: int
    items: int


def refusal(shape: Conv2dShape, dtype: str) -> str | None:
    """None, or why the kernels do not take the shape."""
    s = shape
    if s.groups != s.C:
        return f"takes one input channel a group (groups == C), received groups {s.groups} and C {s.C}: {s.x}, {s.w}"
    if s.S * ITEM_BYTES[dtype] > FILTER_BYTES:
        return f"takes rows of filters of at most {FILTER_BYTES} bytes, received S {s.S} in {dtype}"
    pixels = s.N * max(s.H * s.W, s.P * s.Q)
    reach = s.W + s.Q * s.stride_w + s.pad_w + (s.S + 16 * s.stride_w) * s.dilation_w  # strips end past their lines
    if max(pixels, reach) > INT32_MAX // 2:
        return f"counts pixels and columns up to 2^30, received {pixels} pixels, columns up to {reach}"
    return None


def vector(shape: Conv2dShape, dtype: str, alignment: int) -> int:
    """Channels that a thread takes: 16 bytes, 4 bytes or one element. Filters that share a channel are taken singly."""
    for nbytes in (16, 4):
        count = nbytes // ITEM_BYTES[dtype]
        if alignment % nbytes == 0 and shape.C % count == 0 and shape.K == shape.C and shape.S * nbytes <= FILTER_BYTES:
            return count
    return 1


def forward(shape: Conv2dShape, dtype: str, alignment: int) -> dict[str, Plan]:
    spacing = Axis.of(shape.stride_w, shape.dilation_w).spacing
    return _strips("conv2d_forward", shape, dtype, alignment, (shape.N * shape.P, shape.Q, shape.K, spacing))


def backward_input(shape: Conv2dShape, dtype: str, alignment: int) -> dict[str, Plan]:
    step = Axis.of(shape.stride_w, shape.dilation_w).spacing * shape.stride_w
    return _strips("conv2d_backward_input", shape, dtype, alignment, (shape.N * shape.H, shape.W, shape.C, step))


def backward_weight(shape: Conv2dShape, dtype: str, alignment: int) -> dict[str, Weights]:
    """Taps a thread by cost, loads of x and dy counting as LOADS taps; as few blocks as fill a GPU, since each leaves
    partial sums."""
    axis = Axis.of(shape.stride_w, shape.dilation_w)
    longest = -(-shape.S // axis.phases)
    by_cost = sorted(DEPTHWISE_TAPS, key=lambda t: -(-longest // t) * (t + LOADS))
    found: dict[str, Weights] = {}
    for taps in by_cost:
        chosen = _weights(shape, dtype, alignment, taps, None)
        for splits in plans.splits_around(chosen.splits):
            weights = _weights(shape, dtype, alignment, taps, splits)
            found.setdefault(f"{taps} taps, {weights.splits} splits", weights)
    return found


def _weights(shape: Conv2dShape, dtype: str, alignment: int, taps: int, wanted: int | None) -> Weights:
    axis = Axis.of(shape.stride_w, shape.dilation_w)
    phases, longest = min(axis.phases, shape.S), -(-shape.S // axis.phases)
    size = ITEM_BYTES[dtype]
    length = depthwise_weight_vector(vector(shape, dtype, alignment), taps, dtype)
    x = _across(shape.K, length, size)
    parts = shape.R * phases * -(-longest // taps)
    z = even(parts, min(BLOCK_PARTS, THREADS // x))
    y = THREADS // (x * z)
    count = -(-shape.K // (x * length)) * -(-parts // z)

    most = -(-shape.Q // axis.spacing)
    runs = shape.N * shape.P * min(axis.spacing, shape.Q) * -(-most // RUN_LENGTH)
    splits = max(1, min(-(-FULL_GPU // count) if wanted is None else wanted, runs // y))
    items = -(-runs // splits)
    splits = -(-runs // items)
    kernel = f"conv2d_backward_weight_depthwise<{{T}}, Conv2dShape, {length}, {taps}>"
    shared = x * y * z * taps * length * 4
    return Weights(Plan(kernel, plans.blocks(count * splits), (x, y, z), shared), splits, items)


def _strips(
    verb: str, shape: Conv2dShape, dtype: str, alignment: int, walk: tuple[int, int, int, int]
) -> dict[str, Plan]:
    """The walk of Strip in csrc/cuda/conv2d/sliding_window.cuh over an array (lines, width, channels), ``step`` from
    one pixel of a strip to the next."""
    lines, width, channels, step = walk
    length, size = vector(shape, dtype, alignment), ITEM_BYTES[dtype]
    x = _across(channels, length, size)
    x = max(1, min(x, FILTER_BYTES // (shape.S * length * size)))
    pixels = -(-width // step)  # from each offset on
    along = -(-pixels // STRIP.get(length, 8))
    rows = min(shape.R, FILTER_BYTES // (shape.S * x * length * size))
    tiles = -(-channels // (x * length)) * min(step, width)
    known = 16 // size == length and shape.dilation_w == 1 and shape.stride_w <= 2 and shape.S in DEPTHWISE_TAPS
    taps, stride = (shape.S, shape.stride_w) if known else (0, 0)
    kernel = f"{verb}_depthwise<{{T}}, Conv2dShape, {length}, {taps}, {stride}>"
    found: dict[str, Plan] = {}
    for block_lines in BLOCK_LINES:
        y = min(along, max(1, THREADS // x // block_lines))
        z = min(lines, THREADS // (x * y), MOST_LINES)
        grid = plans.blocks(tiles * -(-along // y) * -(-lines // z))
        plan = Plan(kernel, grid, (x, y, z), rows * shape.S * x * length * size)
        found.setdefault(f"{x} x {y} x {z} threads", plan)
    return found


def _across(channels: int, length: int, size: int) -> int:
    """Threads side by side over the channels."""
    return even(-(-channels // length), max(1, BLOCK_BYTES // (length * size)))


def even(count: int, most: int) -> int:
    """``count`` in parts of at most ``most``, as equal as they can be: the size of one."""
    return -(-count // -(-count // most))
