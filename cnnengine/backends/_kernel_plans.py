"""Which kernel runs a shape, on how many blocks: the documented choice behind ``algorithm=None``.

Everything here follows from the shape alone, never from the machine, so that results are the same everywhere. A plan is
made once a shape (shapes are interned).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..errors import Unsupported
from ..shapes import CACHED_SHAPES, INT32_MAX, Conv2dShape, GemmShape, NormShape, Pool2dShape, ReduceShape
from ._kernel_library import LARGE, MEDIUM, SMALL, Tile

THREADS = 256  # of kernels without shared memory
ELEMENTS_PER_THREAD = 4  # csrc/cuda/elementwise.cuh
FULL_GPU = 264  # blocks that keep a large GPU busy: 2 on each of an H200's 132 multiprocessors
NARROW = 8  # channels of a group, or rows of a matrix, below which a tile would be mostly empty
LONG_ROW = 64  # elements of a reduction from which on a block works on few columns
NORM_SHARED = 3 * 4 * THREADS  # NormShared of csrc/cuda/norm.cuh; NormDoubles is twice that
NORM_ROW_SHARED = NORM_SHARED + 3 * 4  # NormRowShared
SPLIT_PIXELS = 128  # least pixels of a split of backward_weight, so that its tile is worth its loads

Size3 = tuple[int, int, int]


class Plan(NamedTuple):
    """One launch; ``kernel`` is a template of the library."""

    kernel: str
    grid: Size3
    block: Size3
    shared_bytes: int


class WeightPlan(NamedTuple):
    """backward_weight: the products, and where they are split the second kernel that adds the partial sums."""

    products: Plan
    total: Plan | None
    splits: int
    pixels: int  # a split adds
    workspace: int  # bytes


class ReducePlan(NamedTuple):
    """A reduction in one launch, or in two where it is split."""

    first: Plan
    chunk: int
    splits: int
    second: Plan | None
    workspace: int  # bytes


def _blocks(count: int) -> Size3:
    """A one-dimensional grid; kernels number their blocks along x alone."""
    if count > INT32_MAX:
        raise Unsupported(f"a launch of {count} blocks is past 2^31 - 1; use a smaller batch")
    return (count, 1, 1)


def _threads(wanted: int) -> Size3:
    """Whole warps, at most THREADS."""
    return (min(THREADS, -(-wanted // 32) * 32), 1, 1)


def _lines(kernel: str, lines: int, width: int) -> Plan:
    """One thread an element of (lines, width), as csrc/cuda/line.cuh numbers them."""
    if width > INT32_MAX:
        raise Unsupported(f"a line of {width} elements is past 2^31 - 1")
    block = _threads(width)
    return Plan(kernel, _blocks(lines * -(-width // block[0])), block, 0)


def _reduction(length: int) -> int:
    if length > INT32_MAX - 64:
        raise Unsupported(f"a reduction over {length} products is past 2^31 - 1")
    return length


class NormPlan(NamedTuple):
    """One launch of a kernel that walks an (N, L, G, D) by columns, ``chunk`` rows a block."""

    plan: Plan
    chunk: int
    splits: int


@lru_cache(CACHED_SHAPES)
def elementwise(count: int) -> tuple[Size3, Size3]:
    """(grid, block) of csrc/cuda/elementwise.cuh"""
    block = _threads(-(-count // ELEMENTS_PER_THREAD))
    return _blocks(-(-count // (block[0] * ELEMENTS_PER_THREAD))), block


def _tile(rows: int, columns: int, matrices: int) -> Tile:
    """The largest tile that is not mostly empty and still gives a large GPU enough blocks."""
    for tile in (LARGE, MEDIUM):
        fits = columns > tile.n // 2 and rows > tile.m // 2
        if fits and matrices * -(-rows // tile.m) * -(-columns // tile.n) >= FULL_GPU:
            return tile
    return SMALL


def _tiled(kernel: str, tile: Tile, rows: int, columns: int, matrices: int) -> Plan:
    count = matrices * -(-rows // tile.m) * -(-columns // tile.n)
    return Plan(kernel, _blocks(count), (tile.threads, 1, 1), tile.shared_bytes)


@lru_cache(CACHED_SHAPES)
def conv2d_forward(shape: Conv2dShape, algorithm: str | None) -> Plan:
    """``tiled``; ``direct`` where a group has fewer than NARROW output channels."""
    Kg = shape.K // shape.groups
    if algorithm == "direct" or (algorithm is None and Kg < NARROW):
        return _lines("conv2d_forward_direct<{T}, Conv2dShape>", shape.N * shape.P, shape.Q * shape.K)
    _reduction(shape.reduction)
    pixels = shape.N * shape.P * shape.Q
    tile = _tile(pixels, Kg, shape.groups)
    return _tiled(f"conv2d_forward_tiled<{{T}}, Conv2dShape, {tile}>", tile, pixels, Kg, shape.groups)


@lru_cache(CACHED_SHAPES)
def conv2d_backward_input(shape: Conv2dShape, algorithm: str | None) -> Plan:
    """``tiled``; ``direct`` where a group has fewer than NARROW input channels."""
    Cg, Kg = shape.C // shape.groups, shape.K // shape.groups
    if algorithm == "direct" or (algorithm is None and Cg < NARROW):
        return _lines("conv2d_backward_input_direct<{T}, Conv2dShape>", shape.N * shape.H, shape.W * shape.C)
    _reduction(shape.R * shape.S * max(Cg, Kg))
    pixels = shape.N * shape.H * shape.W
    tile = _tile(pixels, Cg, shape.groups)
    return _tiled(f"conv2d_backward_input_tiled<{{T}}, Conv2dShape, {tile}>", tile, pixels, Cg, shape.groups)


@lru_cache(CACHED_SHAPES)
def conv2d_backward_weight(shape: Conv2dShape, algorithm: str | None) -> WeightPlan:
    """Always ``tiled``: ``direct`` has one thread a weight, few of them with long sums."""
    Cg, Kg = shape.C // shape.groups, shape.K // shape.groups
    elements, pixels = _reduction(shape.reduction), shape.N * shape.P * shape.Q
    if algorithm == "direct":
        plan = _lines("conv2d_backward_weight_direct<{T}, Conv2dShape>", shape.K * shape.R, shape.S * Cg)
        return WeightPlan(plan, None, 1, pixels, 0)
    tile = _tile(Kg, elements, shape.groups)
    blocks = shape.groups * -(-Kg // tile.m) * -(-elements // tile.n)
    splits = max(1, min(-(-FULL_GPU // blocks), pixels // SPLIT_PIXELS))
    share = -(-pixels // splits)
    share = -(-share // tile.k) * tile.k  # whole steps: a split must not read into the next
    splits = -(-pixels // share)
    kernel = f"conv2d_backward_weight_tiled<{{T}}, Conv2dShape, {tile}>"
    products = _tiled(kernel, tile, Kg, elements, shape.groups * splits)
    if splits == 1:
        return WeightPlan(products, None, 1, share, 0)
    count = shape.K * elements
    total = Plan("conv2d_backward_weight_sum<{T}>", _blocks(-(-count // THREADS)), (THREADS, 1, 1), 0)
    return WeightPlan(products, total, splits, share, splits * count * 4)


@lru_cache(CACHED_SHAPES)
def pool2d(kernel: str, shape: Pool2dShape) -> Plan:
    if "forward" in kernel:
        return _lines(kernel, shape.N * shape.P, shape.Q * shape.C)
    return _lines(kernel, shape.N * shape.H, shape.W * shape.C)


@lru_cache(CACHED_SHAPES)
def gemm(shape: GemmShape) -> Plan:
    """``tiled``; ``direct`` where M or N is below NARROW."""
    if min(shape.M, shape.N) < NARROW:
        return _lines("gemm_direct<{T}, GemmShape>", shape.batch * shape.M, shape.N)
    _reduction(shape.K)
    tile = _tile(shape.M, shape.N, shape.batch)
    a, b = ("true" if t else "false" for t in (shape.transpose_a, shape.transpose_b))
    return _tiled(f"gemm_tiled<{{T}}, GemmShape, {tile}, {a}, {b}>", tile, shape.M, shape.N, shape.batch)


@lru_cache(CACHED_SHAPES)
def reduce(op: str, shape: ReduceShape) -> ReducePlan:
    """Lanes along inner up to a warp, along the rows too where they are short; the block's other threads along reduced,
    with about 4 elements a thread or more; split where that makes too few blocks."""
    x = min(32, _power_of_two(shape.inner if shape.reduced >= LONG_ROW else shape.outer * shape.inner))
    y = min(THREADS // x, _power_of_two(-(-shape.reduced // 4)))
    columns = -(-shape.outer * shape.inner // x)
    splits = max(1, min(-(-FULL_GPU // columns), shape.reduced // (16 * y)))
    chunk = -(-shape.reduced // splits)
    splits = -(-shape.reduced // chunk)
    block, shared = (x, y, 1), THREADS * 4
    if splits == 1:
        one = Plan(f"reduce<{{T}}, {{T}}, {op}, ReduceShape>", _blocks(columns), block, shared)
        return ReducePlan(one, chunk, 1, None, 0)
    first = Plan(f"reduce<{{T}}, float, {op}, ReduceShape>", _blocks(columns * splits), block, shared)
    rows = (x, min(THREADS // x, _power_of_two(-(-splits // 4))), 1)
    second = Plan(f"reduce<float, {{T}}, {op}, ReduceShape>", _blocks(columns), rows, shared)
    return ReducePlan(first, chunk, splits, second, shape.outer * splits * shape.inner * 4)


@lru_cache(CACHED_SHAPES)
def norm_columns(kernel: str, shape: NormShape, sums: bool) -> NormPlan:
    """Lanes along the channels up to a warp, the block's other threads along the rows. ``sums``: as few blocks a column
    as fill a GPU, of at least 16 rows a thread, since each leaves partial sums; else 8 rows a thread."""
    x = min(32, _power_of_two(shape.channels))
    y = min(THREADS // x, _power_of_two(-(-shape.L // 4)))
    columns = shape.N * -(-shape.channels // x)
    chunk = 8 * y
    if sums:
        chunk = -(-shape.L // max(1, min(-(-FULL_GPU // columns), shape.L // (16 * y))))
    splits = -(-shape.L // chunk)
    return NormPlan(Plan(kernel, _blocks(columns * splits), (x, y, 1), NORM_SHARED), chunk, splits)


@lru_cache(CACHED_SHAPES)
def norm_groups(kernel: str, shape: NormShape, length: int, shared_bytes: int) -> Plan:
    """One block for each n and g, whose threads walk ``length``."""
    return Plan(kernel, _blocks(shape.N * shape.G), (1, min(THREADS, _power_of_two(-(-length // 4))), 1), shared_bytes)


def _power_of_two(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()
