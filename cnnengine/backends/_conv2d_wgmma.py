"""Plans of the rung ``implicit_gemm_wgmma`` (csrc/cuda/conv2d/implicit_gemm_wgmma.cuh): tensor maps, geometry, grid.

A tile is 128 rows by 64, 128 or 256 columns, in backward_weight also 64 rows; blocks stay on their multiprocessor and
take tiles in turn, alone or in clusters of two that bring the operand of their common columns only once. Of all tiles,
clusters or not, and splits of backward_weight, the ones are taken with which the busiest multiprocessor of an H200 ends
first, of equal ones those in clusters; or those that are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import gcd
from typing import NamedTuple

from ..jit.tensor_map import Im2colMap, TensorMap, TiledMap
from ..shapes import CACHED_SHAPES, INT32_MAX, Conv2dShape
from ._kernel_library import WGMMA_TILES, WGMMA_WEIGHT_TILES, WgmmaTile
from ._kernel_plans import Plan, blocks, splits_around

FAMILY = "conv2d/implicit_gemm_wgmma"
PHASES_KERNEL = "conv2d_backward_input_phases"
MULTIPROCESSORS = 132
TOGETHER = (1, 2)  # blocks of a cluster
BLOCK = 64  # elements of a swizzled row
BYTES = 2  # of an element
VECTOR = 8
MOST_PIXELS = INT32_MAX - 1024  # so that tiles past the last pixel are counted in an int
PHASES = 8  # along an axis, that a geometry has room for
PANEL_ROWS = 16  # of results that a warp stores at once
CONSUMER_ROWS = 64  # of a tile: the rows whose moments are taken together
# The rule's unit is one column of 128 rows for one step, of which a multiprocessor of an H200 does one in 2.7 ns.
COLUMN_BYTES = 172  # that L2 gives it meanwhile, 8.3 TB/s for all: as much as public kernels without clusters have got
LONG_SPLIT = 8  # steps of BLOCK pixels, the least of a split
TILE_COST = 128  # of a tile, for handing out its sums
PARTIAL_BYTES = 11800  # bytes of partial sums that are written and read meanwhile


class Choice(NamedTuple):
    """Of a launch that may be made in several ways."""

    tile: WgmmaTile
    together: int  # blocks of a cluster

    def __str__(self) -> str:
        return f"{self.tile}{f', clusters of {self.together}' if self.together > 1 else ''}"


class Launch(NamedTuple):
    """One launch: the maps of what TMA reaches, and the geometry that the kernel takes by value."""

    plan: Plan
    maps: tuple[TensorMap, ...]
    geometry: bytes


class WeightLaunch(NamedTuple):
    launch: Launch
    splits: int
    pixels: int  # of a split


def refuses(shape: Conv2dShape, alignment: int) -> str | None:
    """None, or why the rung does not take a shape."""
    if shape.groups != 1:
        return f"takes one group, received {shape.groups}"
    if shape.C % VECTOR or shape.K % VECTOR:
        return f"takes multiples of {VECTOR} channels, received {shape.C} and {shape.K}"
    if alignment < 16:
        return f"takes arrays that begin at multiples of 16 bytes, received {alignment}"
    if max(shape.stride_h, shape.stride_w) > 8:
        return f"takes strides up to 8, received {shape.stride_h} and {shape.stride_w}"
    reach = max((shape.R - 1) * shape.dilation_h, (shape.S - 1) * shape.dilation_w)
    if reach > 255:
        return f"takes filters that reach up to 255 pixels, received {reach}"
    rows, columns = _phases(shape)
    corners = (
        *_corners(shape.H, shape.P, -shape.pad_h, shape.stride_h),
        *_corners(shape.W, shape.Q, -shape.pad_w, shape.stride_w),
        *_corners(shape.P, rows.positions, rows.base, 1),
        *_corners(shape.Q, columns.positions, columns.base, 1),
    )
    if not all(-128 <= corner <= 127 for corner in corners):
        return "takes padding and filters whose outermost positions lie within 128 pixels of the input's edges"
    if max(shape.N * shape.P * shape.Q, shape.N * shape.H * shape.W) > MOST_PIXELS:
        return "takes up to 2^31 - 1025 pixels"
    return None


def _corners(size: int, positions: int, first: int, stride: int) -> tuple[int, int]:
    """Where the first of some positions lies, and how far beyond the last pixel the last one."""
    return first, first + (positions - 1) * stride - (size - 1)


class Phase(NamedTuple):
    """Of one axis: the outputs first, first + step, ... and the taps that reach them."""

    first: int
    tap: int  # the first one's number in the filter
    taps: int
    shift: int  # input positions from the axis' base to where the first tap finds the first output


class Axis(NamedTuple):
    """One axis of outputs that are gathered from an input, in phases that see the same taps."""

    size: int  # of the output
    step: int  # from an output of a phase to the next
    positions: int  # of the largest phase
    base: int  # the first input position
    stride: int  # from an output of a phase to the next, in the input
    offset: int  # from a tap to the next, in the input
    tap_step: int  # the same, in the filter
    phases: tuple[Phase, ...]  # most taps first


def _one_phase(outputs: int, pad: int, stride: int, dilation: int, length: int) -> Axis:
    """An axis of forward."""
    return Axis(outputs, 1, outputs, -pad, stride, dilation, 1, (Phase(0, 0, length, 0),))


def _axis(size: int, stride: int, pad: int, dilation: int, length: int) -> Axis:
    """An axis of dx: taps by ascending position in dy."""
    step = stride // gcd(stride, dilation)
    found = []
    for first in range(min(stride, size)):
        seen = [tap for tap in range(length) if (first + pad - tap * dilation) % stride == 0]
        last = seen[-1] if seen else 0
        found.append(Phase(first, last, len(seen), (first + pad - last * dilation) // stride))
    base = min((phase.shift for phase in found if phase.taps), default=0)
    phases = [phase._replace(shift=phase.shift - base if phase.taps else 0) for phase in found]
    phases.sort(key=lambda phase: -phase.taps)
    return Axis(size, stride, -(-size // stride), base, 1, step * dilation // stride, -step, tuple(phases))


def _phases(shape: Conv2dShape) -> tuple[Axis, Axis]:
    s = shape
    return (
        _axis(s.H, s.stride_h, s.pad_h, s.dilation_h, s.R),
        _axis(s.W, s.stride_w, s.pad_w, s.dilation_w, s.S),
    )


def _im2col(sizes: tuple[int, int, int, int], rows: Axis, columns: Axis, pixels: int) -> Im2colMap:
    """Of (N, H, W, C), which outputs on two axes are gathered from."""
    n, h, w, c = sizes
    low_h, high_h = _corners(h, rows.positions, rows.base, rows.stride)
    low_w, high_w = _corners(w, columns.positions, columns.base, columns.stride)
    strides = (c * BYTES, w * c * BYTES, h * w * c * BYTES)
    steps = (columns.stride, rows.stride)
    return Im2colMap((c, w, h, n), strides, (low_w, low_h), (high_w, high_h), steps, BLOCK, pixels)


def _matrix(rows: int, columns: int, box_rows: int) -> TiledMap:
    """(rows, columns), boxes of BLOCK columns."""
    return TiledMap((columns, rows), (columns * BYTES,), (BLOCK, box_rows))


def _filters(shape: Conv2dShape, across: int) -> TiledMap:
    """w as (C, R*S, K), boxes of BLOCK channels of one tap of ``across`` filters."""
    taps = shape.R * shape.S
    strides = (shape.C * BYTES, taps * shape.C * BYTES)
    return TiledMap((shape.C, taps, shape.K), strides, (BLOCK, 1, across))


def busiest(parts: Sequence[tuple[int, int]], takers: int) -> int:
    """``parts``: (tiles, the cost of one); all of them are dealt out in order, in turn. What the busiest has to do."""
    if len(parts) == 1:
        ((tiles, cost),) = parts
        return -(-tiles // takers) * cost
    work, dealt = [0] * takers, 0
    for tiles, cost in parts:
        rounds, more = divmod(tiles, takers)
        for i in range(takers):
            work[(dealt + i) % takers] += (rounds + (i < more)) * cost
        dealt += tiles
    return max(work)


def step_bytes(tile: WgmmaTile, together: int) -> int:
    """What a block asks of L2 for a step: its rows of one operand, and its share of the common columns of the other."""
    return (tile.m + tile.n // together) * BLOCK * BYTES


def cost(tile: WgmmaTile, together: int, sets: Sequence[tuple[int, int]]) -> int:
    """Until the last multiprocessor has ended; ``sets``: how many of ``together`` tiles, and of how many steps each. A
    step takes as long as its products or its bytes."""
    step = max(tile.m * tile.n // 128, step_bytes(tile, together) // COLUMN_BYTES)
    return busiest([(count, steps * step + TILE_COST) for count, steps in sets], MULTIPROCESSORS // together)


def _plan(kernel: str, tile: WgmmaTile, together: int, sets: int) -> Plan:
    count = together * min(blocks(sets)[0], MULTIPROCESSORS // together)
    cluster = (together, 1, 1) if together > 1 else None
    return Plan(f"{kernel}_wgmma<{{T}}, {tile}>", (count, 1, 1), (tile.threads, 1, 1), tile.shared_bytes, cluster)


def _pairs(tiles: tuple[WgmmaTile, ...], rows: int) -> list[Choice]:
    """A cluster has rows for each of its blocks."""
    return [Choice(tile, together) for tile, together in product(tiles, TOGETHER) if rows > tile.m * (together - 1)]


def gather_choices(verb: str, shape: Conv2dShape) -> list[Choice]:
    """Of forward and backward_input, those that should end first coming first."""
    axes = _forward_axes(shape) if verb == "conv2d_forward" else _phases(shape)
    source, outputs = (shape.C, shape.K) if verb == "conv2d_forward" else (shape.K, shape.C)
    return _gather_choices(_pixels(shape.N, axes), outputs, _steps(axes, source))


def _gather_choices(rows: int, columns: int, steps: tuple[int, ...]) -> list[Choice]:
    """``steps``: of a tile of each phase."""

    def costs(choice: Choice) -> tuple[int, int]:
        tile, together = choice
        sets = -(-rows // (tile.m * together)) * -(-columns // tile.n)
        return cost(tile, together, [(sets, count) for count in steps]), -together

    return sorted(_pairs(WGMMA_TILES, rows), key=costs)


def _pixels(images: int, axes: tuple[Axis, Axis]) -> int:
    return images * axes[0].positions * axes[1].positions


def _steps(axes: tuple[Axis, Axis], channels: int) -> tuple[int, ...]:
    return tuple(h.taps * w.taps * -(-channels // BLOCK) for h, w in product(axes[0].phases, axes[1].phases))


def _gather(
    kernel: str, images: int, axes: tuple[Axis, Axis], source: tuple[int, int, int, int], outputs: int,
    shape: Conv2dShape, b_major: bool, choice: Choice | None,
) -> Launch:  # fmt: skip
    """``source``: what is gathered from, (N, H, W, C)."""
    row, column = axes
    count, steps = _pixels(images, axes), _steps(axes, source[3])
    tile, together = choice or _gather_choices(count, outputs, steps)[0]
    whole = images * row.size * column.size
    maps = (
        _im2col(source, row, column, tile.m),
        _filters(shape, tile.n // together if b_major else BLOCK // together),
        _matrix(whole, outputs, PANEL_ROWS),
        _matrix(whole, outputs, tile.m),
    )
    geometry = struct.pack(
        f"<{20 + 8 * PHASES}i",
        images, row.positions, column.positions, row.base, column.base, row.stride, column.stride,
        row.tap_step, column.tap_step, row.offset, column.offset, shape.S, source[3], outputs,
        row.size, column.size, row.step, column.step, len(row.phases), len(column.phases),
        *_packed(row.phases), *_packed(column.phases),
    )  # fmt: skip
    sets = -(-count // (tile.m * together)) * -(-outputs // tile.n) * len(steps)
    return Launch(_plan(kernel, tile, together, sets), maps, geometry)


def _packed(phases: tuple[Phase, ...]) -> list[int]:
    """WgmmaAxis[8] of the kernel."""
    members = [number for phase in phases for number in phase]
    return members + [0] * (4 * PHASES - len(members))


@lru_cache(CACHED_SHAPES)
def forward(shape: Conv2dShape, choice: Choice | None = None) -> Launch:
    """Maps of x, w, y and the residual."""
    return _gather("conv2d_forward", shape.N, _forward_axes(shape), shape.x, shape.K, shape, True, choice)


def _forward_axes(s: Conv2dShape) -> tuple[Axis, Axis]:
    return (
        _one_phase(s.P, s.pad_h, s.stride_h, s.dilation_h, s.R),
        _one_phase(s.Q, s.pad_w, s.stride_w, s.dilation_w, s.S),
    )


@lru_cache(CACHED_SHAPES)
def backward_input(shape: Conv2dShape, choice: Choice | None = None) -> Launch:
    """Maps of dy and w, and of dx where there is one phase."""
    s, axes = shape, _phases(shape)
    phases = len(axes[0].phases) * len(axes[1].phases)
    kernel = "conv2d_backward_input" if phases == 1 and max(s.stride_h, s.stride_w) == 1 else PHASES_KERNEL
    launch = _gather(kernel, s.N, axes, s.y, s.C, s, False, choice)
    return launch._replace(maps=launch.maps[: 2 if kernel == PHASES_KERNEL else 3])


def weight_choices(shape: Conv2dShape) -> list[tuple[Choice, int]]:
    """Of backward_weight, each with over how many splits of the pixels: each tile's best, those that should end first
    coming first, then splits around them."""
    s, steps = shape, _pixel_steps(shape)

    def costs(choice: tuple[Choice, int]) -> tuple[int, int]:
        (tile, together), splits = choice
        partial = 2 * 4 * splits * s.K * s.reduction // PARTIAL_BYTES if splits > 1 else 0
        sets = _weight_sets(s, tile, together) * splits
        return cost(tile, together, [(sets, -(-steps // splits))]) + partial, -together

    most = max(1, min(MULTIPROCESSORS, steps // LONG_SPLIT))
    counts = range(1, most + 1)
    best = sorted((min(product([pair], counts), key=costs) for pair in _pairs(WGMMA_WEIGHT_TILES, s.K)), key=costs)
    around = [(pair, n) for pair, splits in best for n in splits_around(splits) if n <= steps]
    return list(dict.fromkeys((*best, *around)))


def _pixel_steps(s: Conv2dShape) -> int:
    return -(-s.N * s.P * s.Q // BLOCK)


def _weight_sets(s: Conv2dShape, tile: WgmmaTile, together: int) -> int:
    """Of ``together`` tiles of dw, without splits."""
    return -(-s.K // (tile.m * together)) * -(-s.R * s.S * -(-s.C // BLOCK) // (tile.n // BLOCK))


@lru_cache(CACHED_SHAPES)
def backward_weight(shape: Conv2dShape, choice: tuple[Choice, int] | None = None) -> WeightLaunch:
    s = shape
    (tile, together), splits = choice or weight_choices(s)[0]
    pixels = s.N * s.P * s.Q
    share = -(-_pixel_steps(s) // splits) * BLOCK
    splits = -(-pixels // share)
    rows, columns = _forward_axes(s)
    maps = (_im2col(s.x, rows, columns, BLOCK // together), _matrix(pixels, s.K, BLOCK))
    geometry = struct.pack(
        "<14i",
        s.N, s.P, s.Q, -s.pad_h, -s.pad_w, s.stride_h, s.stride_w, s.R, s.S, s.dilation_h, s.dilation_w, s.C, s.K,
        splits,
    )  # fmt: skip
    plan = _plan("conv2d_backward_weight", tile, together, _weight_sets(s, tile, together) * splits)
    return WeightLaunch(Launch(plan, maps, geometry), splits, share)
