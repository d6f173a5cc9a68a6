"""The core of every ``tiled`` rung: one block multiplies an a-tile by a b-tile, both in shared memory.

    c (BM, BN) = a (BM, k) @ b (BN, k)^T, in steps of BK along k; each thread keeps a TM x TN corner of c in registers.

A step loads BK * (BM + BN) elements and uses each BN or BM times: a 64 x 64 tile reads global memory 64 times less
often than ``direct``. From shared memory a thread reads TM + TN = 8 floats for TM * TN = 16 multiply-adds.

The block is (COLUMNS, ROWS) threads. Thread t = threadIdx.y * COLUMNS + threadIdx.x loads LOADS elements of each tile,
numbered so that neighbouring threads read neighbours in memory. Where those are neighbours along k, t takes position
t % BK of the rows t // BK + load * K_STEP; where they are neighbouring rows, row t % BM at the positions
t // BM + load * ROW_STEP.
Elements that do not exist are loaded as zero, so the multiplication needs no bounds. Products are added in the order of
k, as in csrc/cuda/tile.cuh.

A ``Tile`` is what ``template <class Tile>`` is in C++: a function of a tile builds the kernel for it, whose loops and
arrays the compiler then knows.
"""

from collections import namedtuple

from numba import cuda

from .common import SIMULATED

Tile = namedtuple("Tile", "BM BN BK TM TN COLUMNS ROWS THREADS LOADS PITCH K_STEP ROW_STEP")


def square_tile(side, BK, corner):
    """A tile of ``side`` x ``side`` sums, BK deep a step, ``corner`` x ``corner`` of them a thread. Raises ValueError
    where the threads do not load it equally often."""
    across = side // corner  # threads along n, and along m: 64/4 = 16
    threads = across * across  # 256
    tile = Tile(
        BM=side,
        BN=side,
        BK=BK,
        TM=corner,
        TN=corner,
        COLUMNS=across,
        ROWS=across,
        THREADS=threads,
        LOADS=side * BK // threads,  # elements a thread loads of a tile in a step: 64 * 16 / 256 = 4
        PITCH=side + 1,  # of a tile's row in shared memory: writes down a column meet different banks
        K_STEP=threads // BK,  # rows between a thread's loads, neighbours along k: 256/16 = 16
        ROW_STEP=threads // side,  # positions between a thread's loads, neighbouring rows: 256/64 = 4
    )
    if across * corner != side or tile.LOADS * threads != side * BK or threads % BK or threads % side:
        raise ValueError(f"the threads do not load the tile equally often: {tile}")
    return tile


TILE = square_tile(8, 4, 2) if SIMULATED else square_tile(64, 16, 4)


def block_of(tile):
    """(threads along n, threads along m)"""
    return tile.COLUMNS, tile.ROWS


@cuda.jit(device=True, inline="always")
def tile_thread(tile):
    """[0, THREADS)"""
    return cuda.threadIdx.y * tile.COLUMNS + cuda.threadIdx.x


@cuda.jit(device=True, inline="always")
def clear(total, tile):
    for i in range(tile.TM):
        for j in range(tile.TN):
            total[i, j] = 0


@cuda.jit(device=True, inline="always")
def multiply_step(a, b, total, tile):
    """total (TM, TN) += this thread's rows of the tile a (BK, BM) times its rows of the tile b (BK, BN)"""
    row = cuda.threadIdx.y * tile.TM
    column = cuda.threadIdx.x * tile.TN
    for kk in range(tile.BK):
        for i in range(tile.TM):
            left = a[kk, row + i]
            for j in range(tile.TN):
                total[i, j] += left * b[kk, column + j]
