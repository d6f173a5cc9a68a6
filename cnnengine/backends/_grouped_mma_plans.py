"""Which kernel of csrc/cuda/conv2d/grouped_mma.cuh runs a shape, on which rectangles of pixels. As everywhere the plan
follows from the shape, the dtype and the alignment alone."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..shapes import CACHED_SHAPES, INT32_MAX, Conv2dShape
from . import _kernel_plans as plans
from ._depthwise_plans import Axis, Weights
from ._kernel_library import GROUPED_MMA
from ._kernel_plans import FULL_GPU, Plan

FAMILY = "conv2d/grouped_mma"
CHANNELS, PIXELS, TAPS = 64, 128, 9  # GROUPED_MMA_CHANNELS, _PIXELS and _TAPS: most of a block
WARPS = {8: 4, 16: 4, 32: 8}  # GroupedWeightTile::WARPS
INPUT_BYTES = 2 * CHANNELS  # of a pixel in shared memory
ROWS_BYTES = 16 * (CHANNELS + 8) * 4  # FragmentRows of a warp
SHARED_BYTES = 65536  # that every GPU of compute capability 7.5 or more gives a block that asks
LOADING = 6  # taps of a pixel that are multiplied while one input is brought from L2, an estimate


class Rectangle(NamedTuple):
    """Outputs that a block makes, height x width, in how many blocks a pass makes all, and their shared memory."""

    height: int
    width: int
    blocks: int
    shared_bytes: int

    @property
    def threads(self) -> int:
        return 32 * -(-self.height * self.width // 32)


class Side(NamedTuple):
    """One axis of the outputs of a phase: how many there are, and the inputs under them (GroupedAxis)."""

    phases: int
    outputs: int
    scale: int
    step: int
    taps: int

    @classmethod
    def of(cls, forward: bool, outputs: int, taps: int, stride: int, dilation: int) -> Side:
        if forward:
            return cls(1, outputs, stride, dilation, taps)
        axis = Axis.of(stride, dilation)
        return cls(min(stride, outputs), -(-outputs // stride), 1, axis.spacing, -(-taps // axis.phases))

    def under(self, length: int) -> int:
        return (length - 1) * self.scale + (self.taps - 1) * self.step + 1


def takes(verb: str, shape: Conv2dShape, dtype: str, alignment: int) -> bool:
    """Whether the kernels take the shape; where they do not, those of grouped.cuh do."""
    s, group = shape, shape.C // shape.groups
    if dtype == "float32" or s.groups == 1 or s.C != s.K:
        return False
    if group not in GROUPED_MMA or alignment % 16 != 0 or s.K * s.reduction > INT32_MAX // 16:
        return False
    return rectangle(verb, s) is not None


def plan(verb: str, shape: Conv2dShape) -> tuple[Plan, tuple[int, int]]:
    """Of forward or backward_input, of a shape that it takes: the launch, and the rectangle's height and width, which
    the kernel is given."""
    found = rectangle(verb, shape)
    assert found is not None
    kernel = f"{verb}_grouped_mma<{{T}}, Conv2dShape, {shape.C // shape.groups}>"
    blocks = plans.blocks(found.blocks * -(-shape.C // CHANNELS))
    return Plan(kernel, blocks, (found.threads, 1, 1), found.shared_bytes), (found.height, found.width)


def backward_weight(shape: Conv2dShape) -> tuple[Weights, tuple[int, int]]:
    """Of a shape that it takes, as ``plan``; as few blocks as fill a GPU, since each leaves partial sums."""
    found = rectangle("conv2d_backward_weight", shape)
    assert found is not None
    group = shape.C // shape.groups
    count = -(-shape.C // CHANNELS) * -(-shape.R * shape.S // TAPS)
    splits = max(1, min(-(-2 * FULL_GPU // count), found.blocks))
    items = -(-found.blocks // splits)
    splits = -(-found.blocks // items)
    kernel = f"conv2d_backward_weight_grouped_mma<{{T}}, Conv2dShape, {group}>"
    launch = Plan(kernel, plans.blocks(count * splits), (32 * WARPS[group], 1, 1), found.shared_bytes)
    return Weights(launch, splits, items), (found.height, found.width)


@lru_cache(CACHED_SHAPES)
def rectangle(verb: str, s: Conv2dShape) -> Rectangle | None:
    """The one with the least to multiply and to load, padding included; None where none fits in shared memory. Of
    backward_weight the outputs are those of forward, which are added."""
    forward, weights = verb != "conv2d_backward_input", verb == "conv2d_backward_weight"
    rows, columns = (s.P, s.Q) if forward else (s.H, s.W)
    h = Side.of(forward, rows, s.R, s.stride_h, s.dilation_h)
    v = Side.of(forward, columns, s.S, s.stride_w, s.dilation_w)
    filters = CHANNELS * (s.reduction // 8 | 1) * 16
    images = s.N * h.phases * v.phases
    best: tuple[int, Rectangle] | None = None
    for width in range(1, min(v.outputs, PIXELS) + 1):
        for height in range(1, min(h.outputs, PIXELS // width) + 1):
            inputs = h.under(height) * v.under(width)
            warps = -(-height * width // 32)
            if weights:  # zeros, and the gradients in steps of 16
                shared = (1 + -(-height * width // 16) * 16 + inputs) * INPUT_BYTES
            else:
                shared = max(filters + inputs * INPUT_BYTES, warps * ROWS_BYTES)
            if shared > SHARED_BYTES:
                break
            count = -(-h.outputs // height) * -(-v.outputs // width)
            cost = count * (warps * 32 * h.taps * v.taps + LOADING * inputs)
            if best is None or cost < best[0]:
                best = cost, Rectangle(height, width, images * count, shared)
    return None if best is None else best[1]
