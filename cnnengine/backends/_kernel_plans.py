"""Which kernel runs a shape, on how many blocks; convolutions are planned in ``_conv2d_plans``.

Everything here follows from the shape alone, never from the machine, so that results are the same everywhere. A plan is
made once a shape (shapes are interned).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

from ..errors import Unsupported
from ..shapes import CACHED_SHAPES, INT32_MAX, GemmShape, NormShape, Pool2dShape, ReduceShape, norm_shape
from ._kernel_library import LARGE, MEDIUM, SMALL, MmaTile, SimtTile, Tile

THREADS = 256  # of kernels without shared memory
ELEMENTS_PER_THREAD = 4  # csrc/cuda/elementwise.cuh
FULL_GPU = 264  # blocks that keep a large GPU busy: 2 on each of an H200's 132 multiprocessors
NARROW = 8  # channels of a group, or rows of a matrix, below which a tile would be mostly empty
LONG_ROW = 64  # elements of a reduction from which on a block works on few columns
NORM_ROW_SHARED = 3 * 4 * THREADS + 3 * 4  # NormRowShared of csrc/cuda/norm.cuh
FEW_TILES = 256  # of a convolution, whose moments one block for some channels joins at once
NORM_ROWS = (16, 8, 4)  # of a thread that writes them: many, since it finds its channels' scales first
SECTOR_LANES = 8  # float32 of a sector

Size3 = tuple[int, int, int]
AnyTile = TypeVar("AnyTile", Tile, SimtTile, MmaTile)


class Plan(NamedTuple):
    """One launch; ``kernel`` is a template of the library. Blocks of a ``cluster`` run together."""

    kernel: str
    grid: Size3
    block: Size3
    shared_bytes: int
    cluster: Size3 | None = None


class ReducePlan(NamedTuple):
    """A reduction in one launch, or in two where it is split."""

    first: Plan
    chunk: int
    splits: int
    second: Plan | None
    workspace: int  # bytes


def blocks(count: int) -> Size3:
    """A one-dimensional grid; kernels number their blocks along x alone."""
    if count > INT32_MAX:
        raise Unsupported(f"a launch of {count} blocks is past 2^31 - 1; use a smaller batch")
    return (count, 1, 1)


def _threads(wanted: int) -> Size3:
    """Whole warps, at most THREADS."""
    return (min(THREADS, -(-wanted // 32) * 32), 1, 1)


def splits_around(chosen: int) -> tuple[int, ...]:
    """The splits of a sum that a measurement compares with the chosen ones, which come first."""
    return tuple(dict.fromkeys((chosen, max(1, chosen // 2), 2 * chosen, 1)))


def lines(kernel: str, lines: int, width: int) -> Plan:
    """One thread an element of (lines, width), as csrc/cuda/line.cuh numbers them."""
    if width > INT32_MAX:
        raise Unsupported(f"a line of {width} elements is past 2^31 - 1")
    block = _threads(width)
    return Plan(kernel, blocks(lines * -(-width // block[0])), block, 0)


def reduction(length: int) -> int:
    if length > INT32_MAX - 64:
        raise Unsupported(f"a reduction over {length} products is past 2^31 - 1")
    return length


class NormPlan(NamedTuple):
    """One launch of a kernel that walks an (N, L, G, D) by columns, ``chunk`` rows a block."""

    plan: Plan
    chunk: int
    splits: int


class NormTiles(NamedTuple):
    """How the moments of a convolution's tiles become ``splits`` of ``chunk`` tiles each; ``plan`` where these are
    fewer. ``shape`` is (1, tiles, K, 1)."""

    tiles: int
    shape: NormShape
    plan: Plan | None
    chunk: int
    splits: int


@lru_cache(CACHED_SHAPES)
def elementwise(count: int) -> tuple[Size3, Size3]:
    """(grid, block) of csrc/cuda/elementwise.cuh"""
    block = _threads(-(-count // ELEMENTS_PER_THREAD))
    return blocks(-(-count // (block[0] * ELEMENTS_PER_THREAD))), block


def fitting(tiles: Sequence[AnyTile], rows: int, columns: int, matrices: int) -> AnyTile:
    """The first of ``tiles``, largest first, that is not mostly empty and still gives a large GPU enough blocks; else
    the last."""
    for tile in tiles[:-1]:
        fits = columns > tile.n // 2 and rows > tile.m // 2
        if fits and matrices * -(-rows // tile.m) * -(-columns // tile.n) >= FULL_GPU:
            return tile
    return tiles[-1]


def tile(rows: int, columns: int, matrices: int) -> Tile:
    return fitting((LARGE, MEDIUM, SMALL), rows, columns, matrices)


def tiled(kernel: str, tile: Tile | SimtTile | MmaTile, rows: int, columns: int, matrices: int) -> Plan:
    count = matrices * -(-rows // tile.m) * -(-columns // tile.n)
    return Plan(kernel, blocks(count), (tile.threads, 1, 1), tile.shared_bytes)


@lru_cache(CACHED_SHAPES)
def pool2d(kernel: str, shape: Pool2dShape) -> Plan:
    if "forward" in kernel:
        return lines(kernel, shape.N * shape.P, shape.Q * shape.C)
    return lines(kernel, shape.N * shape.H, shape.W * shape.C)


@lru_cache(CACHED_SHAPES)
def gemm(shape: GemmShape) -> Plan:
    """``tiled``; ``direct`` where M or N is below NARROW."""
    if min(shape.M, shape.N) < NARROW:
        return lines("gemm_direct<{T}, GemmShape>", shape.batch * shape.M, shape.N)
    reduction(shape.K)
    chosen = tile(shape.M, shape.N, shape.batch)
    a, b = ("true" if t else "false" for t in (shape.transpose_a, shape.transpose_b))
    return tiled(f"gemm_tiled<{{T}}, GemmShape, {chosen}, {a}, {b}>", chosen, shape.M, shape.N, shape.batch)


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
        one = Plan(f"reduce<{{T}}, {{T}}, {op}, ReduceShape>", blocks(columns), block, shared)
        return ReducePlan(one, chunk, 1, None, 0)
    first = Plan(f"reduce<{{T}}, float, {op}, ReduceShape>", blocks(columns * splits), block, shared)
    rows = (x, min(THREADS // x, _power_of_two(-(-splits // 4))), 1)
    second = Plan(f"reduce<float, {{T}}, {op}, ReduceShape>", blocks(columns), rows, shared)
    return ReducePlan(first, chunk, splits, second, shape.outer * splits * shape.inner * 4)


@lru_cache(CACHED_SHAPES)
def norm_columns(kernel: str, shape: NormShape, vector: int, sums: bool) -> NormPlan:
    """Lanes along the vectors of channels up to a warp, the block's other threads along the rows. ``sums``: as few
    blocks a column as fill a GPU, of at least 16 rows a thread, since each leaves partial sums; else as many rows a
    thread as leave enough blocks."""
    vectors = shape.channels // vector
    x = _lanes(vectors)
    y = min(THREADS // x, _power_of_two(-(-shape.L // 4)))
    columns = shape.N * -(-vectors // x)
    if sums:
        chunk = -(-shape.L // max(1, min(-(-FULL_GPU // columns), shape.L // (16 * y))))
    else:
        enough = (rows * y for rows in NORM_ROWS if columns * -(-shape.L // (rows * y)) >= 4 * FULL_GPU)
        chunk = next(enough, NORM_ROWS[-1] * y)
    splits = -(-shape.L // chunk)
    shared = norm_shared(4, vector) if sums else 0
    return NormPlan(Plan(kernel, blocks(columns * splits), (x, y, 1), shared), chunk, splits)


@lru_cache(CACHED_SHAPES)
def norm_tiles(shape: NormShape, pixels: int) -> NormTiles:
    """How the moments of tiles of ``pixels`` of shape's rows are joined."""
    tiles = -(-shape.L // pixels)
    walk = norm_shape(1, tiles, shape.channels, 1)
    if tiles <= FEW_TILES:
        return NormTiles(tiles, walk, None, 1, tiles)
    vector = 4 if shape.channels % 4 == 0 else 1
    return NormTiles(tiles, walk, *norm_columns(f"norm_join_tiles<NormShape, {vector}>", walk, vector, True))


@lru_cache(CACHED_SHAPES)
def norm_groups(kernel: str, shape: NormShape, splits: int) -> Plan:
    """For each n and g the threads above each other, which walk its D channels of ``splits`` chunks. Groups of one
    channel, whose parts are neighbours in memory, lie side by side in a block."""
    x = min(SECTOR_LANES, _power_of_two(shape.G)) if shape.D == 1 else 1
    y = min(THREADS // x, _power_of_two(-(-splits * shape.D // 4)))
    return Plan(kernel, blocks(shape.N * -(-shape.G // x)), (x, y, 1), norm_shared(8, 1))


@lru_cache(CACHED_SHAPES)
def norm_rows(kernel: str, shape: NormShape) -> Plan:
    """One block for each n and g, whose threads walk D."""
    y = min(THREADS, _power_of_two(-(-shape.D // 4)))
    return Plan(kernel, blocks(shape.N * shape.G), (1, y, 1), NORM_ROW_SHARED)


def norm_shared(item_bytes: int, vector: int) -> int:
    """NormShared of csrc/cuda/norm_columns.cuh: two values a channel and a count of each thread."""
    return (2 * vector + 1) * THREADS * item_bytes


def _lanes(columns: int) -> int:
    """At most a warp, at least a quarter of it where there are so many columns; the fewest left over."""
    if columns <= 8:
        return _power_of_two(columns)
    return min((32, 16, 8), key=lambda lanes: -(-columns // lanes) * lanes)


def _power_of_two(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()
