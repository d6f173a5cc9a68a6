"""conv2d, rung ``tiled``: implicit GEMM over tile.py. Per group, with Cg = C/groups and Kg = K/groups:

                      rows of a          rows of b             reduction, fastest last
    forward           pixels (n, p, q)   k in [0, Kg)          (r, s, c)
    backward_input    pixels (n, h, w)   c in [0, Cg)          (r, s, k)
    backward_weight   k in [0, Kg)       taps (r, s, c)        (n, p, q)

The matrix of patches is never built: its elements are found while they are loaded into shared memory. A thread's rows
of a tile are the same in every step, so what is known of them (image, row, column) is worked out once, before the loop.
Arrays that are walked as they lie in memory come with their axes merged: y (N*P*Q, K) needs no division.

Blocks are numbered along x alone (y and z end at 65535), b's tiles fastest: blocks that read the same pixels run close
in time and meet in L2. backward_weight has few tiles and a long reduction, so it is split into ranges of pixels whose
partial sums (splits, K, R, S, Cg) a second kernel adds in order: no atomics, the same bits every time. backward_input
spends a zero on each tap that the stride skips: at stride 2 three of four. The block is block_of(tile) threads.
"""

from functools import cache

from numba import cuda, float32, int32, int64

from .common import ZERO, Conv2dShape, Fused, activate, ints, per_channel
from .tile import TILE, clear, multiply_step, tile_thread


@cache
def forward(tile):
    """The kernel for a tile"""
    BM, BN, BK, TM, TN, LOADS, PITCH, K_STEP = (
        tile.BM,
        tile.BN,
        tile.BK,
        tile.TM,
        tile.TN,
        tile.LOADS,
        tile.PITCH,
        tile.K_STEP,
    )

    @cuda.jit
    def conv2d_forward_tiled(x, w, y, bias, scale, shift, residual, fused, shape):
        """x (N, H, W, C), w (K, R*S*Cg), y and residual (N*P*Q, K)"""
        a_tile = cuda.shared.array((BK, PITCH), float32)  # x: BM pixels by BK of (r, s, c)
        b_tile = cuda.shared.array((BK, PITCH), float32)  # w: BN of k by BK of (r, s, c)
        total = cuda.local.array((TM, TN), float32)
        image = cuda.local.array(LOADS, int64)  # n, top and left of this thread's rows of a_tile
        top = cuda.local.array(LOADS, int64)
        left = cuda.local.array(LOADS, int64)
        Cg = shape.C // shape.groups
        Kg = shape.K // shape.groups
        tiles_k = (Kg + BN - 1) // BN
        pixels = shape.N * shape.P * shape.Q
        reduction = shape.R * shape.S * Cg
        tiles_pixels = (pixels + BM - 1) // BM
        first_k = cuda.blockIdx.x % tiles_k * BN
        first_pixel = cuda.blockIdx.x // tiles_k % tiles_pixels * BM
        group = cuda.blockIdx.x // tiles_k // tiles_pixels  # [0, groups)
        kk = tile_thread(tile) % BK  # this thread's position in each step, [0, BK)
        first = tile_thread(tile) // BK  # of this thread's rows of both tiles, K_STEP apart

        for load in range(LOADS):
            pixel = first_pixel + first + load * K_STEP
            image[load] = pixel // shape.Q // shape.P  # N or more: beyond the last pixel
            top[load] = pixel // shape.Q % shape.P * shape.stride_h - shape.pad_h
            left[load] = pixel % shape.Q * shape.stride_w - shape.pad_w
        clear(total, tile)

        for step in range(0, reduction, BK):
            c = (step + kk) % Cg
            s = (step + kk) // Cg % shape.S
            r = (step + kk) // Cg // shape.S  # R or more: beyond the last tap
            for load in range(LOADS):
                i = first + load * K_STEP
                n = image[load]
                h = top[load] + r * shape.dilation_h
                column = left[load] + s * shape.dilation_w
                inside = n < shape.N and r < shape.R and 0 <= h < shape.H and 0 <= column < shape.W
                a_tile[kk, i] = x[n, h, column, group * Cg + c] if inside else ZERO
                k = first_k + i
                b_tile[kk, i] = w[group * Kg + k, step + kk] if k < Kg and step + kk < reduction else ZERO
            cuda.syncthreads()
            multiply_step(a_tile, b_tile, total, tile)
            cuda.syncthreads()

        for j in range(TN):
            k = first_k + cuda.threadIdx.x * TN + j
            if k < Kg:
                channel = group * Kg + k
                before, factor, after = per_channel(channel, bias, scale, shift, fused)
                for i in range(TM):
                    pixel = first_pixel + cuda.threadIdx.y * TM + i
                    if pixel < pixels:
                        value = (total[i, j] + before) * factor + after
                        if fused.residual:
                            value += residual[pixel, channel]
                        y[pixel, channel] = activate(value, fused)

    return conv2d_forward_tiled


@cache
def backward_input(tile):
    """The kernel for a tile"""
    BM, BN, BK, TM, TN, LOADS, PITCH, K_STEP, ROW_STEP = (
        tile.BM,
        tile.BN,
        tile.BK,
        tile.TM,
        tile.TN,
        tile.LOADS,
        tile.PITCH,
        tile.K_STEP,
        tile.ROW_STEP,
    )

    @cuda.jit
    def conv2d_backward_input_tiled(dy, w, dx, shape):
        """dy (N, P, Q, K), w (K, R*S, Cg), dx (N*H*W, C)"""
        a_tile = cuda.shared.array((BK, PITCH), float32)  # dy: BM pixels of dx by BK of (r, s, k)
        b_tile = cuda.shared.array((BK, PITCH), float32)  # w: BN of c by BK of (r, s, k)
        total = cuda.local.array((TM, TN), float32)
        image = cuda.local.array(LOADS, int64)  # n, h + pad_h and w + pad_w of this thread's rows of a_tile
        padded_h = cuda.local.array(LOADS, int64)
        padded_w = cuda.local.array(LOADS, int64)
        Cg = shape.C // shape.groups
        Kg = shape.K // shape.groups
        tiles_c = (Cg + BN - 1) // BN
        pixels = shape.N * shape.H * shape.W
        tiles_pixels = (pixels + BM - 1) // BM
        first_c = cuda.blockIdx.x % tiles_c * BN
        first_pixel = cuda.blockIdx.x // tiles_c % tiles_pixels * BM
        group = cuda.blockIdx.x // tiles_c // tiles_pixels
        t = tile_thread(tile)

        for load in range(LOADS):
            pixel = first_pixel + t // BK + load * K_STEP
            image[load] = pixel // shape.W // shape.H  # N or more: beyond the last pixel
            padded_h[load] = pixel // shape.W % shape.H + shape.pad_h
            padded_w[load] = pixel % shape.W + shape.pad_w
        clear(total, tile)

        for step in range(0, shape.R * shape.S * Kg, BK):
            kk = t % BK
            k = (step + kk) % Kg
            s = (step + kk) // Kg % shape.S
            r = (step + kk) // Kg // shape.S  # R or more: beyond the last tap
            for load in range(LOADS):  # neighbouring threads take neighbouring k
                n = image[load]
                reach_h = padded_h[load] - r * shape.dilation_h  # = p * stride_h, where this tap of row p lies on row h
                reach_w = padded_w[load] - s * shape.dilation_w
                p = reach_h // shape.stride_h
                q = reach_w // shape.stride_w
                inside = n < shape.N and r < shape.R and 0 <= p < shape.P and 0 <= q < shape.Q
                inside = inside and p * shape.stride_h == reach_h and q * shape.stride_w == reach_w
                a_tile[kk, t // BK + load * K_STEP] = dy[n, p, q, group * Kg + k] if inside else ZERO
            for load in range(LOADS):  # neighbouring threads take neighbouring c
                kk = t // BM + load * ROW_STEP
                c = first_c + t % BM
                k = (step + kk) % Kg
                position = (step + kk) // Kg  # r*S + s
                b_tile[kk, t % BM] = w[group * Kg + k, position, c] if c < Cg and position < shape.R * shape.S else ZERO
            cuda.syncthreads()
            multiply_step(a_tile, b_tile, total, tile)
            cuda.syncthreads()

        for i in range(TM):
            pixel = first_pixel + cuda.threadIdx.y * TM + i
            for j in range(TN):
                c = first_c + cuda.threadIdx.x * TN + j
                if pixel < pixels and c < Cg:
                    dx[pixel, group * Cg + c] = total[i, j]

    return conv2d_backward_input_tiled


@cache
def backward_weight(tile):
    """The kernel for a tile"""
    BM, BN, BK, TM, TN, LOADS, PITCH, ROW_STEP = (
        tile.BM,
        tile.BN,
        tile.BK,
        tile.TM,
        tile.TN,
        tile.LOADS,
        tile.PITCH,
        tile.ROW_STEP,
    )

    @cuda.jit
    def conv2d_backward_weight_tiled(x, dy, partial, pixels_per_split, shape):
        """x (N, H, W, C), dy (N*P*Q, K), partial (splits, K, R*S*Cg)

        Split i adds the pixels i * pixels_per_split + [0, pixels_per_split).
        """
        a_tile = cuda.shared.array((BK, PITCH), float32)  # dy: BM of k by BK of (n, p, q)
        b_tile = cuda.shared.array((BK, PITCH), float32)  # x: BN of (r, s, c) by BK of (n, p, q)
        total = cuda.local.array((TM, TN), float32)
        Cg = shape.C // shape.groups
        Kg = shape.K // shape.groups
        taps = shape.R * shape.S * Cg
        tiles_taps = (taps + BN - 1) // BN
        tiles_k = (Kg + BM - 1) // BM
        first_tap = cuda.blockIdx.x % tiles_taps * BN
        first_k = cuda.blockIdx.x // tiles_taps % tiles_k * BM
        group = cuda.blockIdx.x // tiles_taps // tiles_k % shape.groups
        split = cuda.blockIdx.x // tiles_taps // tiles_k // shape.groups
        begin = split * pixels_per_split
        end = min(begin + pixels_per_split, shape.N * shape.P * shape.Q)
        i = tile_thread(tile) % BM  # this thread's row of both tiles; neighbouring threads take neighbouring k, and c
        k = first_k + i
        c = (first_tap + i) % Cg
        s = (first_tap + i) // Cg % shape.S
        r = (first_tap + i) // Cg // shape.S  # R or more: beyond the last tap

        clear(total, tile)
        for step in range(begin, end, BK):
            for load in range(LOADS):
                kk = tile_thread(tile) // BM + load * ROW_STEP
                pixel = step + kk
                q = pixel % shape.Q
                p = pixel // shape.Q % shape.P
                n = pixel // shape.Q // shape.P
                a_tile[kk, i] = dy[pixel, group * Kg + k] if pixel < end and k < Kg else ZERO
                h = p * shape.stride_h - shape.pad_h + r * shape.dilation_h
                column = q * shape.stride_w - shape.pad_w + s * shape.dilation_w
                inside = pixel < end and r < shape.R and 0 <= h < shape.H and 0 <= column < shape.W
                b_tile[kk, i] = x[n, h, column, group * Cg + c] if inside else ZERO
            cuda.syncthreads()
            multiply_step(a_tile, b_tile, total, tile)
            cuda.syncthreads()

        for i in range(TM):
            k = first_k + cuda.threadIdx.y * TM + i
            for j in range(TN):
                tap = first_tap + cuda.threadIdx.x * TN + j
                if k < Kg and tap < taps:
                    partial[split, group * Kg + k, tap] = total[i, j]

    return conv2d_backward_weight_tiled


@cuda.jit
def conv2d_backward_weight_sum(partial, dw):
    """dw (count,) = the sum of partial (splits, count), in order"""
    index = cuda.grid(1)
    if index >= dw.size:
        return
    total = ZERO
    for split in range(partial.shape[0]):
        total += partial[split, index]
    dw[index] = total


_matrix, _image = float32[:, ::1], float32[:, :, :, ::1]
_channels = (float32[::1],) * 3  # bias, scale, shift
SIGNATURES = [
    (forward(TILE), (_image, _matrix, _matrix, *_channels, _matrix, ints(Fused), ints(Conv2dShape))),
    (backward_input(TILE), (_image, float32[:, :, ::1], _matrix, ints(Conv2dShape))),
    (backward_weight(TILE), (_image, _matrix, float32[:, :, ::1], int32, ints(Conv2dShape))),
    (conv2d_backward_weight_sum, (_matrix, float32[::1])),
]
