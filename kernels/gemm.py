"""Matrix product c = op(a) @ op(b), with the epilogue over c's last axis.

Shapes: c (batch, M, N); a (batch, M, K), or (batch, K, M) where ``transpose_a``; b (batch, K, N), or (batch, N, K)
where ``transpose_b``. A shared operand has a batch axis of 1 and serves the whole batch.
Rungs, simplest first:
    direct  one thread an element of c; chosen where M or N is too small for a tile
    tiled   tile.py, one block a tile of c; chosen otherwise
Roofline: 2 M N K flops over 4 (M K + K N + M N) bytes: 1024^3 has 171 flops a byte and is bound by arithmetic; a linear
layer at batch 1 has half a flop a byte and is bound by reading its weight.
"""

from functools import cache

from numba import cuda, float32

from .common import THREADS, ZERO, Fused, GemmShape, activate, blocks, fuse, ints, per_channel
from .tile import TILE, block_of, clear, multiply_step, tile_thread


@cuda.jit
def gemm_direct(a, b, c, bias, scale, shift, residual, fused, shape):
    index = cuda.grid(1)
    if index >= c.size:
        return
    n = index % shape.N
    m = index // shape.N % shape.M
    matrix = index // shape.N // shape.M
    matrix_a = 0 if shape.shared_a else matrix
    matrix_b = 0 if shape.shared_b else matrix

    total = ZERO
    for k in range(shape.K):
        left = a[matrix_a, k, m] if shape.transpose_a else a[matrix_a, m, k]
        right = b[matrix_b, n, k] if shape.transpose_b else b[matrix_b, k, n]
        total += left * right

    before, factor, after = per_channel(n, bias, scale, shift, fused)
    total = (total + before) * factor + after
    if fused.residual:
        total += residual[matrix, m, n]
    c[matrix, m, n] = activate(total, fused)


@cuda.jit(device=True, inline="always")
def load_matrix(shared, t, source, matrix, k_first, first_row, rows, first_k, K, tile):
    """shared (BK, PITCH) = rows first_row + [0, BM) of a matrix (rows, K), or (K, rows) where ``k_first``"""
    for load in range(tile.LOADS):
        if k_first:  # neighbouring threads take neighbouring rows
            kk = t // tile.BM + load * tile.ROW_STEP
            i = t % tile.BM
            inside = first_row + i < rows and first_k + kk < K
            shared[kk, i] = source[matrix, first_k + kk, first_row + i] if inside else ZERO
        else:  # neighbouring threads take neighbours along k
            kk = t % tile.BK
            i = t // tile.BK + load * tile.K_STEP
            inside = first_row + i < rows and first_k + kk < K
            shared[kk, i] = source[matrix, first_row + i, first_k + kk] if inside else ZERO


@cache
def tiled(tile):
    """The kernel for a tile"""
    BM, BN, BK, TM, TN, PITCH = tile.BM, tile.BN, tile.BK, tile.TM, tile.TN, tile.PITCH

    @cuda.jit
    def gemm_tiled(a, b, c, bias, scale, shift, residual, fused, shape):
        a_tile = cuda.shared.array((BK, PITCH), float32)
        b_tile = cuda.shared.array((BK, PITCH), float32)
        total = cuda.local.array((TM, TN), float32)
        tiles_n = (shape.N + BN - 1) // BN
        tiles_m = (shape.M + BM - 1) // BM
        first_n = cuda.blockIdx.x % tiles_n * BN
        first_m = cuda.blockIdx.x // tiles_n % tiles_m * BM
        matrix = cuda.blockIdx.x // tiles_n // tiles_m  # [0, batch)
        matrix_a = 0 if shape.shared_a else matrix
        matrix_b = 0 if shape.shared_b else matrix
        t = tile_thread(tile)

        clear(total, tile)
        for k in range(0, shape.K, BK):
            load_matrix(a_tile, t, a, matrix_a, shape.transpose_a, first_m, shape.M, k, shape.K, tile)
            load_matrix(b_tile, t, b, matrix_b, not shape.transpose_b, first_n, shape.N, k, shape.K, tile)
            cuda.syncthreads()
            multiply_step(a_tile, b_tile, total, tile)
            cuda.syncthreads()

        for j in range(TN):
            n = first_n + cuda.threadIdx.x * TN + j
            if n < shape.N:
                before, factor, after = per_channel(n, bias, scale, shift, fused)
                for i in range(TM):
                    m = first_m + cuda.threadIdx.y * TM + i
                    if m < shape.M:
                        value = (total[i, j] + before) * factor + after
                        if fused.residual:
                            value += residual[matrix, m, n]
                        c[matrix, m, n] = activate(value, fused)

    return gemm_tiled


def gemm(launch, shape, a, b, c, epilogue, block=None):
    """``block``: the threads of ``direct``, or the tile of ``tiled``; with one of them, that rung"""
    matrix_a = (shape.K, shape.M) if shape.transpose_a else (shape.M, shape.K)
    matrix_b = (shape.N, shape.K) if shape.transpose_b else (shape.K, shape.N)
    a = a.reshape(1 if shape.shared_a else shape.batch, *matrix_a)
    b = b.reshape(1 if shape.shared_b else shape.batch, *matrix_b)
    c = c.reshape(shape.batch, shape.M, shape.N)
    args = a, b, launch.out(c), *fuse(launch, epilogue, a.reshape(-1), c), launch.ints(GemmShape, shape)
    if block is None:
        block = THREADS if min(shape.M, shape.N) < TILE.BM // 4 else TILE
    if isinstance(block, int):
        launch(gemm_direct, blocks(c.size, block), block, *args)
    else:
        tiles = shape.batch * blocks(shape.M, block.BM) * blocks(shape.N, block.BN)
        launch(tiled(block), tiles, block_of(block), *args)


_ARGUMENTS = (
    *(float32[:, :, ::1],) * 3,
    *(float32[::1],) * 3,
    float32[:, :, ::1],
    ints(Fused),
    ints(GemmShape),
)
SIGNATURES = [(gemm_direct, _ARGUMENTS), (tiled(TILE), _ARGUMENTS)]
