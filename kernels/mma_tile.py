"""The core of rung ``implicit_gemm_mma``: one block multiplies an a-tile by a b-tile on tensor cores.

    c (BM, BN) = a (BM, k) @ b (BN, k)^T, in steps of BK along k; each warp keeps a corner of WM x WN sums in registers,
    as FM x FN fragments of 16 x 8, of which a lane holds four.

Operands are float32 rounded to TF32, 10 bits of significand, on their way to shared memory; ldmatrix brings fragments
of them to registers, mma.sync multiplies: 16 * 8 * 8 multiply-adds an instruction of a warp. Sums are float32, in the
order of k. A warp of 32 x 32 reads 64 rows of fragments for 32 * 32 products: 16 multiply-adds for each element of
shared memory, where ``implicit_gemm`` has fewer than 3. As there, a step is fetched to registers while the one before
is multiplied (csrc/cuda/mma_tile.cuh copies asynchronously, several steps ahead).

In shared memory a tile is lines of chunks of 16 bytes: of BK elements of one row where the operand runs along k, of all
rows of one k where it does not. A chunk's place in its line is XORed with the line's number, so that the eight rows
that ldmatrix reads at once lie in different banks.
"""

from collections import namedtuple

from numba import cuda

from .common import SIMULATED, unsigned
from .ptx import WARP, as_word, ldmatrix_x4, mma_m16n8k8_tf32, to_tf32

CHUNK = 4  # elements of 16 bytes
K = 8  # of a product

MmaTile = namedtuple("MmaTile", "BM BN BK WARPS_N WM WN FM FN THREADS LOADS_A LOADS_B")


def mma_tile(BM, BN, BK, WARPS_M, WARPS_N):
    """A tile of BM x BN sums, BK deep a step, of WARPS_M x WARPS_N warps. Raises ValueError where fragments do not
    cover it."""
    WM = BM // WARPS_M
    WN = BN // WARPS_N
    threads = WARP * WARPS_M * WARPS_N
    loads = BM * BK // threads, BN * BK // threads  # of a thread in a step
    tile = MmaTile(BM, BN, BK, WARPS_N, WM, WN, WM // 16, WN // 8, threads, *loads)
    powers = all(n & (n - 1) == 0 for n in (BM, BN, BK))
    if BM % (16 * WARPS_M) or BN % (16 * WARPS_N) or BK % K or not powers:
        raise ValueError(f"fragments of 16 x 8, two side by side, do not cover the tile, or no powers of two: {tile}")
    if threads % BM or threads % BN or threads % BK or BM * BK % threads or BN * BK % threads:
        raise ValueError(f"the threads do not load the tile equally often: {tile}")
    return tile


TILE = mma_tile(16, 16, 8, 1, 1) if SIMULATED else mma_tile(64, 64, 8, 2, 2)  # one warp; four


@cuda.jit(device=True, inline="always")
def chunk_along_k(line, chunk, BK):
    """Where a chunk of a line begins, of lines of BK elements; a power of two of chunks"""
    chunks = BK // CHUNK
    lines = max(8 // chunks, 1)  # that 128 bytes, all banks, hold
    return line * BK + (chunk ^ (line // lines % min(chunks, 8))) * CHUNK


@cuda.jit(device=True, inline="always")
def chunk_along_rows(line, chunk, rows):
    """The same of lines of ``rows`` elements, of which a warp reads eight neighbours of four lines at once"""
    return line * rows + (chunk ^ (line % 4 * 2 % (rows // CHUNK))) * CHUNK


@cuda.jit(device=True, inline="always")
def store_tf32_along_k(held, shared, first, BK, near, far, step, loads):
    """What was loaded along k, rounded: position ``near`` of the rows far + load * step, of a buffer from ``first``
    on"""
    for load in range(loads):
        place = chunk_along_k(far + load * step, near // CHUNK, BK) + near % CHUNK
        shared[unsigned(first + place)] = to_tf32(held[load])


@cuda.jit(device=True, inline="always")
def store_tf32_along_rows(held, shared, first, rows, near, far, step, loads):
    """What was loaded along rows, rounded: row ``near`` of the positions far + load * step"""
    for load in range(loads):
        place = chunk_along_rows(far + load * step, near // CHUNK, rows) + near % CHUNK
        shared[unsigned(first + place)] = to_tf32(held[load])


@cuda.jit(device=True, inline="always")
def fragment_along_k(shared, first, row, kk, BK):
    """Rows row + [0, 16), k in kk + [0, 8): the registers of mma's a, rows 0-7 and 8-15 of the first half of k, then of
    the second. As b, registers 0 and 2 are the first eight columns, 1 and 3 the second."""
    lane = cuda.threadIdx.x % WARP
    return ldmatrix_x4(shared, unsigned(first + chunk_along_k(row + lane % 16, kk // CHUNK + lane // 16, BK)))


@cuda.jit(device=True, inline="always")
def word_along_rows(shared, first, row, kk, rows):
    column = row % CHUNK
    return as_word(shared[unsigned(first + chunk_along_rows(kk, row // CHUNK, rows) + column)])


@cuda.jit(device=True, inline="always")
def fragment_along_rows(shared, first, row, kk, rows):
    """The same, element by element: ldmatrix transposes 16-bit elements only"""
    row += cuda.threadIdx.x % WARP // 4
    kk += cuda.threadIdx.x % 4
    return (
        word_along_rows(shared, first, row, kk, rows),
        word_along_rows(shared, first, row + 8, kk, rows),
        word_along_rows(shared, first, row, kk + 4, rows),
        word_along_rows(shared, first, row + 8, kk + 4, rows),
    )


@cuda.jit(device=True, inline="always")
def clear_mma_sums(total, tile):
    for i in range(tile.FM):
        for j in range(tile.FN):
            for v in range(4):
                total[i, j, v] = 0


@cuda.jit(device=True, inline="always")
def corner_row(tile):
    """Of this warp's corner in the tile"""
    return cuda.threadIdx.x // WARP // tile.WARPS_N * tile.WM


@cuda.jit(device=True, inline="always")
def corner_column(tile):
    return cuda.threadIdx.x // WARP % tile.WARPS_N * tile.WN


@cuda.jit(device=True, inline="always")
def sum_row(i, v, tile):
    """Row of the tile of total[i, j, v]"""
    return corner_row(tile) + i * 16 + cuda.threadIdx.x % WARP // 4 + v // 2 * 8


@cuda.jit(device=True, inline="always")
def sum_column(j, v, tile):
    """Column of the tile of total[i, j, v]"""
    return corner_column(tile) + j * 8 + cuda.threadIdx.x % 4 * 2 + v % 2


@cuda.jit(device=True, inline="always")
def keep(words, fragment, i):
    fragment[i, 0] = words[0]
    fragment[i, 1] = words[1]
    fragment[i, 2] = words[2]
    fragment[i, 3] = words[3]


@cuda.jit(device=True, inline="always")
def multiply_mma_step(a, a_along_k, b, b_along_k, buffer, fragment_a, fragment_b, total, tile):
    """total (FM, FN, 4) += this warp's rows of the a-tile times its rows of the b-tile, of buffer ``buffer``. The
    operands run along k or along their rows; fragment_a is (FM, 4), fragment_b (FN / 2, 4)."""
    row = corner_row(tile)
    column = corner_column(tile)
    first_a = buffer * tile.BM * tile.BK
    first_b = buffer * tile.BN * tile.BK
    for kk in range(0, tile.BK, K):
        for i in range(tile.FM):
            if a_along_k:
                keep(fragment_along_k(a, first_a, row + i * 16, kk, tile.BK), fragment_a, i)
            else:
                keep(fragment_along_rows(a, first_a, row + i * 16, kk, tile.BM), fragment_a, i)
        for j in range(tile.FN // 2):
            if b_along_k:
                keep(fragment_along_k(b, first_b, column + j * 16, kk, tile.BK), fragment_b, j)
            else:
                keep(fragment_along_rows(b, first_b, column + j * 16, kk, tile.BN), fragment_b, j)
        for i in range(tile.FM):
            for j in range(tile.FN):
                d = total[i, j, 0], total[i, j, 1], total[i, j, 2], total[i, j, 3]
                left = fragment_a[i, 0], fragment_a[i, 1], fragment_a[i, 2], fragment_a[i, 3]
                right = fragment_b[j // 2, j % 2], fragment_b[j // 2, j % 2 + 2]
                d = mma_m16n8k8_tf32(d, left, right)
                total[i, j, 0] = d[0]
                total[i, j, 1] = d[1]
                total[i, j, 2] = d[2]
                total[i, j, 3] = d[3]
