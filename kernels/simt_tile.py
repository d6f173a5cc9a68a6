"""The core of rung ``implicit_gemm``: one block multiplies an a-tile by a b-tile on CUDA cores.

    c (BM, BN) = a (BM, k) @ b (BN, k)^T, in steps of BK along k; each thread keeps TM x TN sums in registers.

What is better than in tile.py:

* a thread keeps GM x GN groups of 4 x 4 sums. With 2 x 2 groups it reads 16 floats of shared memory for 64
  multiply-adds, where tile.py reads 8 for 16: twice the arithmetic for a read;
* there are two buffers in shared memory. The elements of the next step travel to registers (``held``) while this step
  is multiplied, and go into the other buffer afterwards: one barrier a step instead of two.

Banks: a line of a buffer is BM + PAD floats long, so element (k, row) lies in bank (4k + row) % 32. A warp is 4 x 8
threads: eight neighbours along n read from 128 neighbouring bytes of b, and one and the same floats of a.
csrc/cuda/simt_tile.cuh moves four floats at once, from global to shared memory and from there; here elements move one
by one, unless the compiler sees that it may join them.

A tile's sizes must be constants to the compiler, or its sums would not stay in registers. So kernels come out of
factories, ``kernel(tile)``, where C++ has templates: each makes its kernel once for a tile and keeps it.
Products are added in the order of k, whatever the tile, as in csrc/cuda/simt_tile.cuh.
"""

from collections import namedtuple
from functools import cache

from numba import cuda, float32

from .common import SIMULATED, ZERO, blocks

RUN = 2 if SIMULATED else 4  # neighbouring rows, and columns, of a group
WARP_ROWS, WARP_COLUMNS = (2, 2) if SIMULATED else (4, 8)  # of threads
WARP = WARP_ROWS * WARP_COLUMNS
NOWHERE = -(2**31)  # of a row outside: no tap leads from it into an image


class SimtTile(namedtuple("SimtTile", ["BM", "BN", "BK", "GM", "GN"])):
    """BM x BN outputs of a block, BK of the reduction a step, GM x GN groups of RUN x RUN outputs of a thread.

    Threads cover the tile exactly in warps of WARP_ROWS x WARP_COLUMNS, and load equally often.
    """

    PAD = 4  # floats between the lines of a buffer

    @property
    def TM(self):  # rows of a thread
        return RUN * self.GM

    @property
    def TN(self):
        return RUN * self.GN

    @property
    def COLUMNS(self):  # of threads
        return self.BN // self.TN

    @property
    def THREADS(self):
        return self.BM // self.TM * self.COLUMNS

    @property
    def core(self):
        return core(self)


if SIMULATED:
    LARGE, SMALL = SimtTile(16, 16, 4, 2, 2), SimtTile(8, 8, 4, 2, 1)
else:
    LARGE, SMALL = SimtTile(128, 128, 8, 2, 2), SimtTile(64, 64, 8, 2, 1)  # 256 threads of 64 sums, 128 of 32
TILES = (LARGE, SMALL)
ENOUGH_TILES = 4 if SIMULATED else 264  # two blocks for each of 132 multiprocessors


def fitting(tiles, rows, columns, matrices):
    """The first of the tiles, largest first, that makes enough blocks, else the last."""
    for tile in tiles:
        if blocks(rows, tile.BM) * blocks(columns, tile.BN) * matrices >= ENOUGH_TILES:
            return tile
    return tiles[-1]


Core = namedtuple("Core", ["row", "column", "clear", "multiply"])


def clear_of(TM, TN):
    @cuda.jit(device=True, inline="always")
    def clear(total):
        for i in range(TM):
            for j in range(TN):
                total[i, j] = ZERO

    return clear


@cache
def core(tile):
    """The device functions of a tile."""
    BM, BN, BK, GM, GN = tile
    TM, TN, COLUMNS = tile.TM, tile.TN, tile.COLUMNS
    ROW_DISTANCE, COLUMN_DISTANCE = BM // GM, BN // GN  # of a thread's groups
    assert COLUMNS % WARP_COLUMNS == 0, "warps cover the block along n, and"
    assert BM // TM % WARP_ROWS == 0, "along m"
    for size in (BK, BM, BN):
        assert tile.THREADS % size == 0, "a thread's loads lie at one position of k, or in one row"

    @cuda.jit(device=True, inline="always")
    def row(i):
        """Row i of this thread's TM rows: in warps of WARP_ROWS, groups ROW_DISTANCE apart"""
        warp = cuda.threadIdx.x // WARP // (COLUMNS // WARP_COLUMNS)
        first = (warp * WARP_ROWS + cuda.threadIdx.x % WARP // WARP_COLUMNS) * RUN
        return first + i // RUN * ROW_DISTANCE + i % RUN

    @cuda.jit(device=True, inline="always")
    def column(j):
        warp = cuda.threadIdx.x // WARP % (COLUMNS // WARP_COLUMNS)
        first = (warp * WARP_COLUMNS + cuda.threadIdx.x % WARP_COLUMNS) * RUN
        return first + j // RUN * COLUMN_DISTANCE + j % RUN

    @cuda.jit(device=True, inline="always")
    def multiply(a_tile, b_tile, current, total):
        """total (TM, TN) += this thread's rows of a_tile[current] times its columns of b_tile[current]"""
        fragment_a = cuda.local.array(TM, float32)
        fragment_b = cuda.local.array(TN, float32)
        for kk in range(BK):
            for i in range(TM):
                fragment_a[i] = a_tile[current, kk, row(i)]
            for j in range(TN):
                fragment_b[j] = b_tile[current, kk, column(j)]
            for i in range(TM):
                for j in range(TN):
                    total[i, j] += fragment_a[i] * fragment_b[j]

    return Core(row, column, clear_of(TM, TN), multiply)


@cuda.jit(device=True, inline="always")
def tap_position(k, columns, channels):
    """(r, s, channel) of position k of a reduction over taps (r, s) in rows of ``columns``, and channels"""
    return k // channels // columns, k // channels % columns, k % channels


@cuda.jit(device=True, inline="always")
def tap_after(r, s, channel, steps, columns, channels):
    """The position ``steps`` further on, without a division"""
    channel += steps
    while channel >= channels:
        channel -= channels
        s += 1
        if s == columns:
            s = 0
            r += 1
    return r, s, channel
