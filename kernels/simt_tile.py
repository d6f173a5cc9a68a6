"""The core of rung ``implicit_gemm``: one block multiplies an a-tile by a b-tile on CUDA cores.

    c (BM, BN) = a (BM, k) @ b (BN, k)^T, in steps of BK along k; each thread keeps GM x GN groups of 4 x 4 sums.

With 2 x 1 groups a thread reads 12 floats of shared memory, in three loads of 16 bytes, for 32 multiply-adds; the
``tiled`` rung reads 8, one by one, for 16. While a step is multiplied the next one travels from global memory to
registers (``held``), then to the other of two shared buffers: one barrier a step, and memory is waited for meanwhile.

Thread t is lane t % WARP of warp t // WARP. A warp is WARP_ROWS x WARP_COLUMNS threads: eight neighbours along n read
eight neighbouring groups of b, 128 bytes, and one and the same group of a. Shared memory holds a tile as lines of one
k, 4 floats longer than the tile, so that stores down a column meet different banks (csrc/cuda/simt_tile.cuh counts
them).

``SimtTile`` is what ``template <class Tile>`` is in C++: a function of a tile builds the kernel for it, whose loops and
arrays the compiler then knows. Every element adds its products in the order of k, whatever the tile.
"""

from collections import namedtuple

from numba import cuda

from .common import SIMULATED, unsigned
from .ptx import load4

GROUP = 4  # sums of a group along either side
PAD = 4
ALIGNMENT = None if SIMULATED else 16  # bytes of a shared array; Numba's simulator takes none
WARP_ROWS, WARP_COLUMNS = (2, 4) if SIMULATED else (4, 8)
WARP = WARP_ROWS * WARP_COLUMNS

SimtTile = namedtuple("SimtTile", "BM BN BK GM GN TM TN A_LINE B_LINE WARPS_N THREADS LOADS_A LOADS_B")


def simt_tile(BM, BN, BK, GM, GN):
    """A tile of BM x BN sums, BK deep a step, GM x GN groups a thread. Raises ValueError where threads do not fit
    it."""
    TM = GROUP * GM
    TN = GROUP * GN
    rows = BM // TM  # of threads
    columns = BN // TN
    threads = rows * columns
    loads = BM * BK // threads, BN * BK // threads  # of a thread in a step
    warps_n = columns // WARP_COLUMNS
    tile = SimtTile(BM, BN, BK, GM, GN, TM, TN, BM + PAD, BN + PAD, warps_n, threads, *loads)
    if rows * TM != BM or columns * TN != BN or rows % WARP_ROWS or columns % WARP_COLUMNS:
        raise ValueError(f"warps of {WARP_ROWS} x {WARP_COLUMNS} threads do not cover the tile exactly: {tile}")
    if threads % BM or threads % BN or threads % BK or BM * BK % threads or BN * BK % threads:
        raise ValueError(f"the threads do not load the tile equally often: {tile}")
    return tile


TILE = simt_tile(16, 16, 4, 1, 1) if SIMULATED else simt_tile(64, 64, 8, 2, 1)  # 16 or 128 threads


@cuda.jit(device=True, inline="always")
def first_row(tile):
    """Of this thread's first group in the tile; group i lies i * BM / GM rows below"""
    warp = cuda.threadIdx.x // WARP
    return (warp // tile.WARPS_N * WARP_ROWS + cuda.threadIdx.x % WARP // WARP_COLUMNS) * GROUP


@cuda.jit(device=True, inline="always")
def first_column(tile):
    """Of this thread's first group in the tile; group j lies j * BN / GN columns to the right"""
    warp = cuda.threadIdx.x // WARP
    return (warp % tile.WARPS_N * WARP_COLUMNS + cuda.threadIdx.x % WARP_COLUMNS) * GROUP


@cuda.jit(device=True, inline="always")
def row_of(i, tile):
    """Row of the tile of row i of this thread's TM"""
    return first_row(tile) + i // GROUP * (tile.BM // tile.GM) + i % GROUP


@cuda.jit(device=True, inline="always")
def column_of(j, tile):
    """Column of the tile of column j of this thread's TN"""
    return first_column(tile) + j // GROUP * (tile.BN // tile.GN) + j % GROUP


@cuda.jit(device=True, inline="always")
def clear_sums(total, tile):
    for i in range(tile.TM):
        for j in range(tile.TN):
            total[i, j] = 0


@cuda.jit(device=True, inline="always")
def store_along_k(held, shared, first, line, near, far, step, loads):
    """What was loaded along k: position ``near`` of the rows far + load * step. A buffer is
    [k][row], lines of ``line`` floats from ``first`` on."""
    for load in range(loads):
        shared[unsigned(first + near * line + far + load * step)] = held[load]


@cuda.jit(device=True, inline="always")
def store_along_rows(held, shared, first, line, near, far, step, loads):
    """What was loaded along rows: row ``near`` of the positions far + load * step"""
    for load in range(loads):
        shared[unsigned(first + (far + load * step) * line + near)] = held[load]


@cuda.jit(device=True, inline="always")
def load_fragment(fragment, shared, index, groups, distance):
    """fragment (GROUP * groups,) = four neighbours of shared memory from ``index`` on, then ``distance`` further on,
    ..."""
    for i in range(groups):
        four = load4(shared, unsigned(index + i * distance))
        fragment[GROUP * i] = four[0]
        fragment[GROUP * i + 1] = four[1]
        fragment[GROUP * i + 2] = four[2]
        fragment[GROUP * i + 3] = four[3]


@cuda.jit(device=True, inline="always")
def multiply_simt_step(a, b, current, fragment_a, fragment_b, total, tile):
    """total (TM, TN) += this thread's rows of the a-tile times its rows of the b-tile, of buffer ``current``"""
    row = first_row(tile)
    column = first_column(tile)
    for kk in range(tile.BK):
        line = current * tile.BK + kk
        load_fragment(fragment_a, a, line * tile.A_LINE + row, tile.GM, tile.BM // tile.GM)
        load_fragment(fragment_b, b, line * tile.B_LINE + column, tile.GN, tile.BN // tile.GN)
        for i in range(tile.TM):
            for j in range(tile.TN):
                total[i, j] += fragment_a[i] * fragment_b[j]
