"""Plans of the rung ``implicit_gemm_wgmma`` (csrc/cuda/conv2d/implicit_gemm_wgmma.cuh): tensor maps, geometry, grid.

A tile is 128 rows by 64, 128 or 256 columns; blocks stay on their multiprocessor and take tiles in turn. Of the widths
the one is taken whose rounds of tiles, each as long as the tile is wide and a constant, end first on an H200; or the
one that is asked for.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from math import gcd
from typing import NamedTuple

from ..jit.tensor_map import Im2colMap, TensorMap, TiledMap
from ..shapes import CACHED_SHAPES, INT32_MAX, Conv2dShape
from ._kernel_library import WGMMA_TILES, WgmmaTile
from ._kernel_plans import Plan, blocks, splits_around

FAMILY = "conv2d/implicit_gemm_wgmma"
MULTIPROCESSORS = 132
BLOCK = 64  # elements of a swizzled row
BYTES = 2  # of an element
VECTOR = 8
ROUND_COST = 32  # columns' worth of time that a tile costs whatever its width
# backward_weight's choice, in columns times steps, of which a multiprocessor of an H200 does one in 2.7 ns
LONG_SPLIT = 8  # steps of BLOCK pixels, the least of a split
TILE_COST = 1024  # of filling the ring and of handing out the sums
STEP_COST = 16  # columns' worth of a step whatever the tile's width
PARTIAL_BYTES = 11800  # bytes of partial sums that are written and read meanwhile


class Launch(NamedTuple):
    """One launch: the maps of both operands, and the geometry that the kernel takes by value."""

    plan: Plan
    maps: tuple[TensorMap, TensorMap]
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
    corners = (
        *_corners(shape.H, shape.P, -shape.pad_h, shape.stride_h),
        *_corners(shape.W, shape.Q, -shape.pad_w, shape.stride_w),
    )
    if not all(-128 <= corner <= 127 for corner in (*corners, *_phase_corners(shape))):
        return "takes padding and filters whose outermost positions lie within 128 pixels of the input's edges"
    if max(shape.N * shape.P * shape.Q, shape.N * shape.H * shape.W) > INT32_MAX:
        return "takes up to 2^31 - 1 pixels"
    return None


def _corners(size: int, positions: int, first: int, stride: int) -> tuple[int, int]:
    """Where the first of some positions lies, and how far beyond the last pixel the last one."""
    return first, first + (positions - 1) * stride - (size - 1)


class Axis(NamedTuple):
    """One axis of a phase of backward_input: which input positions it has, and what they see."""

    first: int  # input position
    positions: int
    taps: int
    tap: int  # the first tap's number in the filter
    tap_step: int
    base: int  # of the first tap in dy, at position 0
    offset: int  # between taps in dy


def _axis(size: int, phase: int, stride: int, pad: int, dilation: int, length: int) -> Axis:
    """Positions phase, phase + stride, ... of dx: the taps that reach them, by ascending position in dy."""
    seen = [tap for tap in range(length) if (phase + pad - tap * dilation) % stride == 0]
    step = stride // gcd(stride, dilation)
    last = seen[-1] if seen else 0
    base = (phase + pad - last * dilation) // stride if seen else 0
    return Axis(phase, -(-(size - phase) // stride), len(seen), last, -step, base, step * dilation // stride)


def _phases(shape: Conv2dShape) -> list[tuple[Axis, Axis]]:
    s = shape
    rows = [_axis(s.H, p, s.stride_h, s.pad_h, s.dilation_h, s.R) for p in range(min(s.stride_h, s.H))]
    columns = [_axis(s.W, p, s.stride_w, s.pad_w, s.dilation_w, s.S) for p in range(min(s.stride_w, s.W))]
    return [(row, column) for row in rows for column in columns]


def _phase_corners(shape: Conv2dShape) -> list[int]:
    pairs = _phases(shape)
    found = [_corners(shape.P, row.positions, row.base, 1) for row, _ in pairs]
    found += [_corners(shape.Q, column.positions, column.base, 1) for _, column in pairs]
    return [corner for pair in found for corner in pair]


def _im2col(
    sizes: tuple[int, int, int, int], rows: tuple[int, int, int], columns: tuple[int, int, int], pixels: int
) -> Im2colMap:
    """Of (N, H, W, C); rows and columns are (positions, first, stride)."""
    n, h, w, c = sizes
    low_h, high_h = _corners(h, *rows)
    low_w, high_w = _corners(w, *columns)
    strides = (c * BYTES, w * c * BYTES, h * w * c * BYTES)
    return Im2colMap((c, w, h, n), strides, (low_w, low_h), (high_w, high_h), (columns[2], rows[2]), BLOCK, pixels)


def _filters(shape: Conv2dShape, across: int) -> TiledMap:
    """w as (C, R*S, K), boxes of BLOCK channels of one tap of ``across`` filters."""
    taps = shape.R * shape.S
    strides = (shape.C * BYTES, taps * shape.C * BYTES)
    return TiledMap((shape.C, taps, shape.K), strides, (BLOCK, 1, across))


def tile_choices(verb: str, shape: Conv2dShape) -> list[WgmmaTile | None]:
    """What forward and backward_input may be asked for, the documented choice first: None where that differs between
    the phases of dx."""
    s = shape
    if verb == "conv2d_forward":
        own = {width(s.N * s.P * s.Q, s.K)}
    else:
        own = {width(s.N * row.positions * column.positions, s.C) for row, column in _phases(s)}
    first = own.pop() if len(own) == 1 else None
    return [first, *(tile for tile in WGMMA_TILES if tile != first)]


def width(rows: int, columns: int) -> WgmmaTile:
    """The documented choice of a tile."""

    def cost(tile: WgmmaTile) -> int:
        tiles = -(-rows // tile.m) * -(-columns // tile.n)
        return -(-tiles // MULTIPROCESSORS) * (tile.n + ROUND_COST)

    return min(WGMMA_TILES, key=cost)


def _plan(verb: str, tile: WgmmaTile, tiles: int) -> Plan:
    grid = blocks(min(tiles, MULTIPROCESSORS))
    return Plan(f"{verb}_wgmma<{{T}}, {tile}>", grid, (tile.threads, 1, 1), tile.shared_bytes)


def _gather(
    verb: str, pixels: tuple[int, int, int], outputs: int, source: tuple[int, int, int, int], w: Conv2dShape,
    axes: tuple[Axis, Axis], strides: tuple[int, int], out: tuple[int, int], out_steps: tuple[int, int], b_major: bool,
    asked: WgmmaTile | None,
) -> Launch:  # fmt: skip
    """``pixels``: n, i, j of the launch; ``source``: what is gathered from, (N, H, W, C)."""
    row, column = axes
    count = pixels[0] * pixels[1] * pixels[2]
    tile = asked or width(count, outputs)
    maps = (
        _im2col(source, (pixels[1], row.base, strides[0]), (pixels[2], column.base, strides[1]), tile.m),
        _filters(w, tile.n if b_major else BLOCK),
    )
    geometry = struct.pack(
        "<24i",
        *pixels, row.base, column.base, *strides, row.taps, column.taps, row.offset, column.offset,
        row.tap, row.tap_step, column.tap, column.tap_step, w.S, source[3], outputs,
        *out, row.first, column.first, *out_steps,
    )  # fmt: skip
    return Launch(_plan(verb, tile, -(-count // tile.m) * -(-outputs // tile.n)), maps, geometry)


@lru_cache(CACHED_SHAPES)
def forward(shape: Conv2dShape, tile: WgmmaTile | None = None) -> Launch:
    s = shape
    axes = (
        Axis(0, s.P, s.R, 0, 1, -s.pad_h, s.dilation_h),
        Axis(0, s.Q, s.S, 0, 1, -s.pad_w, s.dilation_w),
    )
    strides = (s.stride_h, s.stride_w)
    return _gather("conv2d_forward", (s.N, s.P, s.Q), s.K, s.x, s, axes, strides, (s.P, s.Q), (1, 1), True, tile)


@lru_cache(CACHED_SHAPES)
def backward_input(shape: Conv2dShape, tile: WgmmaTile | None = None) -> tuple[Launch, ...]:
    """One launch for each phase of dx."""
    s = shape
    steps = (s.stride_h, s.stride_w)

    def launch(row: Axis, column: Axis) -> Launch:
        pixels = (s.N, row.positions, column.positions)
        axes = (row, column)
        return _gather("conv2d_backward_input", pixels, s.C, s.y, s, axes, (1, 1), (s.H, s.W), steps, False, tile)

    return tuple(launch(*pair) for pair in _phases(s))


def weight_choices(shape: Conv2dShape) -> list[tuple[WgmmaTile, int]]:
    """Tiles of backward_weight, each with over how many splits of the pixels: those whose rounds and partial sums cost
    least come first, then each tile's best, then splits around them."""
    s = shape
    steps = _steps(s)

    def cost(choice: tuple[WgmmaTile, int]) -> int:
        tile, splits = choice
        rounds = -(-_weight_tiles(s, tile) * splits // MULTIPROCESSORS)
        partial = 2 * 4 * splits * s.K * s.reduction // PARTIAL_BYTES if splits > 1 else 0
        return rounds * (-(-steps // splits) * (tile.n + STEP_COST) + TILE_COST) + partial

    most = max(1, min(MULTIPROCESSORS, steps // LONG_SPLIT))
    best = sorted((min(((tile, n) for n in range(1, most + 1)), key=cost) for tile in WGMMA_TILES), key=cost)
    around = [(tile, n) for tile, splits in best for n in splits_around(splits) if n <= steps]
    return list(dict.fromkeys((*best, *around)))


def _weight_tiles(s: Conv2dShape, tile: WgmmaTile) -> int:
    """Of dw, without splits."""
    return -(-s.K // tile.m) * -(-(s.R * s.S * -(-s.C // BLOCK)) // (tile.n // BLOCK))


def _steps(s: Conv2dShape) -> int:
    return -(-s.N * s.P * s.Q // BLOCK)


@lru_cache(CACHED_SHAPES)
def backward_weight(shape: Conv2dShape, choice: tuple[WgmmaTile, int] | None = None) -> WeightLaunch:
    s = shape
    tile, splits = choice or weight_choices(s)[0]
    pixels = s.N * s.P * s.Q
    tiles, share = _weight_tiles(s, tile), -(-_steps(s) // splits) * BLOCK
    splits = -(-pixels // share)
    maps = (
        _im2col(s.x, (s.P, -s.pad_h, s.stride_h), (s.Q, -s.pad_w, s.stride_w), BLOCK),
        TiledMap((s.K, pixels), (s.K * BYTES,), (BLOCK, BLOCK)),
    )
    geometry = struct.pack(
        "<14i",
        s.N, s.P, s.Q, -s.pad_h, -s.pad_w, s.stride_h, s.stride_w, s.R, s.S, s.dilation_h, s.dilation_w, s.C, s.K,
        splits,
    )  # fmt: skip
    return WeightLaunch(Launch(_plan("conv2d_backward_weight", tile, tiles * splits), maps, geometry), splits, share)
