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
"""

from numba import cuda

from .common import SIMULATED

BM, BN, BK, TM, TN = (8, 8, 4, 2, 2) if SIMULATED else (64, 64, 16, 4, 4)
COLUMNS = BN // TN  # threads along n: 64/4 = 16
ROWS = BM // TM  # threads along m: 64/4 = 16
BLOCK = (COLUMNS, ROWS)  # 256 threads
TILE_THREADS = COLUMNS * ROWS
LOADS = BM * BK // TILE_THREADS  # elements a thread loads of a tile in a step: 64 * 16 / 256 = 4
PITCH = BM + 1  # of a tile's row in shared memory: writes down a column meet different banks
K_STEP = TILE_THREADS // BK  # rows between a thread's loads, neighbours along k: 256/16 = 16
ROW_STEP = TILE_THREADS // BM  # positions between a thread's loads, neighbouring rows: 256/64 = 4

assert BM == BN, "one pitch and one count of loads serve both tiles"
assert LOADS * TILE_THREADS == BM * BK, "every thread loads equally often"
assert TILE_THREADS % BK == 0, "a thread's elements lie at one position of k, or"
assert TILE_THREADS % BM == 0, "a thread's elements lie in one row"


@cuda.jit(device=True, inline="always")
def tile_thread():
    """[0, TILE_THREADS)"""
    return cuda.threadIdx.y * COLUMNS + cuda.threadIdx.x


@cuda.jit(device=True, inline="always")
def clear(total):
    for i in range(TM):
        for j in range(TN):
            total[i, j] = 0


@cuda.jit(device=True, inline="always")
def multiply_step(a, b, total):
    """total (TM, TN) += this thread's rows of the tile a (BK, BM) times its rows of the tile b (BK, BN)"""
    row = cuda.threadIdx.y * TM
    column = cuda.threadIdx.x * TN
    for kk in range(BK):
        for i in range(TM):
            left = a[kk, row + i]
            for j in range(TN):
                total[i, j] += left * b[kk, column + j]
