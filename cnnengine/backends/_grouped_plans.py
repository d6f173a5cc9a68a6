"""Which kernel of csrc/cuda/conv2d/grouped.cuh runs a shape, on how many blocks. As everywhere the plan follows from
the shape, the dtype and the alignment alone."""

from __future__ import annotations

from ..shapes import INT32_MAX, Conv2dShape
from . import _kernel_plans as plans
from ._depthwise_plans import BLOCK_BYTES, BLOCK_LINES, MOST_LINES, RUN_LENGTH, Axis, Weights, even
from ._kernel_library import GROUPED_STRIPS, GROUPED_TAPS, ITEM_BYTES
from ._kernel_plans import FULL_GPU, Plan

FAMILY = "conv2d/grouped"
FILTER_BYTES = 24576  # GroupedFilters::BYTES: of the weights in shared memory at once
STRIP, STRIP_OF_ANY = 7, 4  # GROUPED_STRIP
THREADS = 128  # GROUPED_THREADS
LOADS = 2  # of an input and a gradient, which serve all taps of a thread


def refusal(shape: Conv2dShape) -> str | None:
    """None, or why the kernels do not take the shape."""
    s = shape
    if not 1 < s.groups < s.C:
        return (
            f"takes groups of several channels (1 < groups < C), received groups {s.groups} and C {s.C}: {s.x}, {s.w}"
        )
    if s.S * 4 > FILTER_BYTES:
        return f"takes rows of filters of at most {FILTER_BYTES // 4} taps, received S {s.S}"
    pixels = s.N * max(s.H * s.W, s.P * s.Q)
    reach = s.W + s.Q * s.stride_w + s.pad_w + (s.S + 16 * s.stride_w) * s.dilation_w  # strips end past their lines
    if max(pixels, reach, s.C * s.K // s.groups) > INT32_MAX // 2:
        return f"counts pixels and columns up to 2^30, received {pixels} pixels, columns up to {reach}"
    return None


def vector(shape: Conv2dShape, dtype: str, alignment: int) -> int:
    """Channels of a group that are loaded, and made, at a time."""
    aligned = alignment % (4 * ITEM_BYTES[dtype]) == 0 and shape.S * 4 * 4 * 4 <= FILTER_BYTES
    return 4 if aligned and shape.C // shape.groups % 4 == 0 and shape.K // shape.groups % 4 == 0 else 1


def forward(shape: Conv2dShape, dtype: str, alignment: int) -> Plan:
    spacing = Axis.of(shape.stride_w, shape.dilation_w).spacing
    units = shape.R * (shape.C // shape.groups)
    walk = (shape.N * shape.P, shape.Q, shape.K, spacing)
    return _strips("conv2d_forward", shape, dtype, alignment, walk, units)


def backward_input(shape: Conv2dShape, dtype: str, alignment: int) -> Plan:
    step = Axis.of(shape.stride_w, shape.dilation_w).spacing * shape.stride_w
    units = shape.R * (shape.K // shape.groups)
    walk = (shape.N * shape.H, shape.W, shape.C, step)
    return _strips("conv2d_backward_input", shape, dtype, alignment, walk, units)


def backward_weight(shape: Conv2dShape, dtype: str, alignment: int) -> Weights:
    """As few blocks as fill a GPU, since each leaves partial sums."""
    axis = Axis.of(shape.stride_w, shape.dilation_w)
    phases, longest = min(axis.phases, shape.S), -(-shape.S // axis.phases)
    taps = min(GROUPED_TAPS, key=lambda t: -(-longest // t) * (t + LOADS))
    length = vector(shape, dtype, alignment)
    pairs = shape.C // length * (shape.K // shape.groups // length)
    x = even(pairs, BLOCK_BYTES // (length * ITEM_BYTES[dtype]))
    parts = shape.R * phases * -(-longest // taps)
    z = even(parts, min(4, THREADS // x))
    y = THREADS // (x * z)
    count = -(-pairs // x) * -(-parts // z)

    most = -(-shape.Q // axis.spacing)
    runs = shape.N * shape.P * min(axis.spacing, shape.Q) * -(-most // RUN_LENGTH)
    splits = max(1, min(-(-2 * FULL_GPU // count), runs // y))
    items = -(-runs // splits)
    splits = -(-runs // items)
    kernel = f"conv2d_backward_weight_grouped<{{T}}, Conv2dShape, {length}, {taps}>"
    shared = (-(-x * y * z // 32) * 32 + 8) * length * length * 4
    return Weights(Plan(kernel, plans.blocks(count * splits), (x, y, z), shared), splits, items)


def _strips(
    verb: str, shape: Conv2dShape, dtype: str, alignment: int, walk: tuple[int, int, int, int], units: int
) -> Plan:
    """The walk of Strip in csrc/cuda/conv2d/sliding_window.cuh; ``units``: rows of filters times channels added."""
    lines, width, channels, step = walk
    length = vector(shape, dtype, alignment)
    known = (length, shape.S, shape.stride_w) in GROUPED_STRIPS and shape.dilation_w == 1
    taps, stride, strip = (shape.S, shape.stride_w, STRIP) if known else (0, 0, STRIP_OF_ANY)
    unit = 4 * shape.S * length * length  # bytes of one for a thread's channels
    x = even(-(-channels // length), min(BLOCK_BYTES // (length * ITEM_BYTES[dtype]), FILTER_BYTES // unit))
    pixels = -(-width // step)  # from each offset on
    along = -(-pixels // strip)
    y = min(along, max(1, THREADS // x // BLOCK_LINES[0]))
    z = min(lines, THREADS // (x * y), MOST_LINES)
    at_once = min(units // length, FILTER_BYTES // (unit * x))
    blocks = -(-channels // (x * length)) * min(step, width) * -(-along // y) * -(-lines // z)
    kernel = f"{verb}_grouped<{{T}}, Conv2dShape, {length}, {taps}, {stride}>"
    return Plan(kernel, plans.blocks(blocks), (x, y, z), at_once * unit * x)
