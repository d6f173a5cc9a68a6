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
from ._kernel_library import (
    INDEX,
    ITEM_BYTES,
    LARGE,
    MEDIUM,
    POOL_VECTORS,
    ROW_KEPT,
    SMALL,
    MmaTile,
    SimtTile,
    Tile,
)

THREADS = 256  # of kernels without shared memory
ELEMENTS_PER_THREAD = 4  # of for_each_element in csrc/cuda/elementwise.cuh
LOADS = 2  # of 16 bytes by a thread of an elementwise kernel there
FULL_GPU = 264  # blocks that keep a large GPU busy: 2 on each of an H200's 132 multiprocessors
NARROW = 8  # channels of a group, or rows of a matrix, below which a tile would be mostly empty
LONG_ROW = 64  # elements of a reduction from which on a block works on few columns
POOL_LINES = 8  # of outputs or inputs that a block of pool2d has: rows that windows share are read once from L2
LARGE_WINDOW = 32  # elements of a window that is averaged by a block
ROW_THREADS = 512  # most of a team in csrc/cuda/row.cuh
ROW_BLOCK = 128  # threads of a block where teams are at most a warp
ROW_SHARED = 3 * 4 * ROW_THREADS // 32  # of up to three results over a team
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
def elementwise(count: int, per_thread: int = ELEMENTS_PER_THREAD) -> tuple[Size3, Size3]:
    """(grid, block) of csrc/cuda/elementwise.cuh"""
    block = _threads(-(-count // per_thread))
    return blocks(-(-count // (block[0] * per_thread))), block


def at_once(*itemsizes: int) -> int:
    """AT_ONCE of csrc/cuda/run.cuh: elements of the widest type in 16 bytes"""
    return 16 // max(itemsizes)


def run_length(length: int, itemsize: int, alignment: int) -> int:
    """Elements of rows of ``length`` moved at once: 16 bytes where rows begin at multiples of that, else one."""
    run = at_once(itemsize)
    return run if alignment % 16 == 0 and length % run == 0 else 1


@lru_cache(CACHED_SHAPES)
def norm_parameter_sums(shape: NormShape, itemsize: int, alignment: int) -> NormPlan:
    """The gradients of a layer norm's parameters, blocks that each add ``chunk`` rows: as few as fill a GPU, of at
    least 8 rows a thread, since each leaves partial sums."""
    run = run_length(shape.D, itemsize, alignment)
    x = min(32, _power_of_two(shape.channels // run))
    y = THREADS // x
    columns = -(-shape.channels // (x * run))
    chunk = -(-shape.N // max(1, min(-(-FULL_GPU // columns), shape.N // (8 * y))))
    splits = -(-shape.N // chunk)
    kernel = f"norm_parameter_sums<{{T}}, NormShape, {run}>"
    return NormPlan(Plan(kernel, blocks(columns * splits), (x, y, 1), 2 * 8 * THREADS * 4), chunk, splits)


@lru_cache(CACHED_SHAPES)
def rows(kernel: str, count: int, length: int, itemsize: int, alignment: int) -> Plan:
    """A team of threads for each of ``count`` rows, as csrc/cuda/row.cuh has them: part of a warp where its threads
    keep the row in few registers, else a warp, else a block. ``kernel`` lacks its last two parameters."""
    run = run_length(length, itemsize, alignment)
    few, most, _ = ROW_KEPT
    if run == 1:
        most = few
    team = min(32, _power_of_two(-(-length // run)))
    kept = few if team * few >= length else most
    if team * kept < length:
        team = min(ROW_THREADS, _power_of_two(-(-length // most)))
        kept = most if team * most >= length else 0
    teams = ROW_BLOCK // team if team <= 32 else 1
    return Plan(f"{kernel}, {run}, {kept}>", blocks(-(-count // teams)), (team, teams, 1), ROW_SHARED)


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
def pool2d(way: str, kind: str, shape: Pool2dShape, dtype: str, alignment: int) -> Plan:
    """16 bytes of channels a thread where channels and addresses allow it, else 4 bytes or one element."""
    size, narrow = ITEM_BYTES[dtype], kind == "max" and shape.index_dtype != "uint8"
    fitting = (v for v in POOL_VECTORS[dtype] if shape.C % v == 0 and alignment % (v * size) == 0)
    vector = 1 if narrow else next(fitting)
    index = f"{INDEX[shape.index_dtype]}, " if kind == "max" else ""
    shared = (way, kind) == ("forward", "avg") and shape.R * shape.S >= LARGE_WINDOW
    kernel = f"pool2d_{way}_{kind}{'_shared' if shared else ''}<{{T}}, {index}Pool2dShape, {vector}>"
    rows, columns = (shape.P, shape.Q) if way == "forward" else (shape.H, shape.W)
    if shared:
        x = min(32, _power_of_two(shape.C // vector))
        outputs = shape.N * rows * columns
        return Plan(kernel, blocks(outputs * -(-shape.C // (x * vector))), (x, THREADS // x, 1), 8 * THREADS * 4)
    lines, width = shape.N * rows, columns * (shape.C // vector)
    if max(lines + POOL_LINES, width) > INT32_MAX:
        raise Unsupported(f"pool2d: {lines} lines of {width} threads are past 2^31 - 1; use a smaller batch")
    y = min(POOL_LINES, lines)
    return Plan(kernel, blocks(-(-lines // y) * -(-width // 32)), (32, y, 1), 0)


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
