"""Which shapes csrc/cuda/conv2d/winograd.cuh takes, on how many blocks, and where it should be faster than
implicit_gemm."""

from __future__ import annotations

from typing import NamedTuple

from ..shapes import INT32_MAX, Conv2dShape
from . import _kernel_plans as plans
from ._kernel_library import SIMT_TILES, SimtTile
from ._kernel_plans import FULL_GPU, THREADS, Plan

FAMILY = "conv2d/winograd"
TILES, FILTERS, CHANNELS = 32, 64, 8  # WINOGRAD_TILES, _FILTERS and _CHANNELS: of a block, of a step
FREQUENCIES = 16
SHARED_BYTES = 4 * FREQUENCIES * CHANNELS * (TILES + 4 + FILTERS) + 16 * TILES  # WinogradShared
FILTER_SHARED_BYTES = 4 * FREQUENCIES * CHANNELS * (FILTERS + 4)  # WinogradFilterShared
MULTIPROCESSORS = FULL_GPU // 2
ENDING = 32  # channels whose products take as long as a block's first loads and its way back to outputs


class Winograd(NamedTuple):
    """Two launches: filters to the workspace, and the convolution, which reads them there."""

    filters: Plan
    convolution: Plan
    workspace: int  # bytes


class Pass(NamedTuple):
    """What a pass makes: tiles of 2 x 2 outputs of ``filters`` filters, of sums over ``channels``."""

    tiles: int
    channels: int
    filters: int

    @classmethod
    def of(cls, verb: str, s: Conv2dShape) -> Pass:
        forward = verb == "conv2d_forward"
        rows, columns = (s.P, s.Q) if forward else (s.H, s.W)
        tiles = s.N * -(-rows // 2) * -(-columns // 2)
        return cls(tiles, s.C, s.K) if forward else cls(tiles, s.K, s.C)

    @property
    def blocks(self) -> int:
        return -(-self.tiles // TILES) * -(-self.filters // FILTERS)

    @property
    def steps(self) -> int:
        return -(-self.channels // CHANNELS)


def refusal(shape: Conv2dShape, dtype: str) -> str | None:
    """None, or why the kernels do not take the shape."""
    s = shape
    if dtype != "float32":
        return f"takes float32, received {dtype}"
    geometry = s.R, s.S, s.stride_h, s.stride_w, s.dilation_h, s.dilation_w, s.groups
    if geometry != (3, 3, 1, 1, 1, 1, 1):
        return (
            "takes 3x3 filters without stride, dilation and groups, received"
            f" {s.R}x{s.S}, stride {s.stride_h, s.stride_w}, dilation {s.dilation_h, s.dilation_w}, groups {s.groups}"
        )
    if max(s.H + s.pad_h, s.W + s.pad_w, s.P, s.Q) > INT32_MAX // 2:
        return f"counts rows and columns up to 2^30, received {s.x} with padding {s.pad_h, s.pad_w}"
    return None


def plan(verb: str, shape: Conv2dShape) -> Winograd:
    """Of forward or backward_input."""
    work = Pass.of(verb, shape)
    transformed = -(-work.filters // FILTERS) * work.steps  # a block each
    turned = "false" if verb == "conv2d_forward" else "true"
    kernel = f"conv2d_winograd_filters<{turned}, Conv2dShape>"
    return Winograd(
        Plan(kernel, plans.blocks(transformed), (THREADS, 1, 1), FILTER_SHARED_BYTES),
        Plan(f"{verb}_winograd<Conv2dShape>", plans.blocks(work.blocks), (THREADS, 1, 1), SHARED_BYTES),
        transformed * FREQUENCIES * CHANNELS * FILTERS * 4,
    )


def wins(verb: str, shape: Conv2dShape) -> bool:
    """Whether the multiply-adds of the busiest multiprocessor, what is past the edges of tiles included, are fewer than
    those of implicit_gemm. Both spend about the same share of their instructions on them."""
    work = Pass.of(verb, shape)
    pixels = shape.N * (shape.P * shape.Q if verb == "conv2d_forward" else shape.H * shape.W)
    tile: SimtTile = plans.fitting(SIMT_TILES, pixels, work.filters, 1)
    others = -(-pixels // tile.m) * -(-work.filters // tile.n)
    ours = _rounds(work.blocks) * FREQUENCIES * TILES * FILTERS * (work.steps * CHANNELS + ENDING)
    return ours < _rounds(others) * tile.m * tile.n * 9 * work.channels


def _rounds(blocks: int) -> int:
    return -(-blocks // MULTIPROCESSORS)
