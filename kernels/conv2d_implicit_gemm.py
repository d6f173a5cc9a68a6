"""conv2d, rung ``implicit_gemm``: implicit GEMM on CUDA cores over simt_tile.py. Per group, with Cg = C/groups and
Kg = K/groups:

                      rows of a              rows of b             reduction, fastest last
    forward           pixels (n, p, q)       k in [0, Kg)          (r, s, c)
    backward_input    a phase's (n, i, j)    c in [0, Cg)          a phase's (t, u), k
    backward_weight   k in [0, Kg)           taps (r, s, c)        (n, p, q)

What is better than in conv2d_tiled.py, besides the tile: x and dy come with all axes merged, an element's offset is its
row's (worked out once, before the loop) plus its tap's, and taps follow each other without divisions. In the loop
the first turn only fetches; each later one fetches the next step, multiplies this one and stores the next.

backward_input of any stride spends no product on a zero. Input pixel h, whose place in the padded input is h + pad_h,
is reached by tap r from output p where

    p*stride_h + r*dilation_h = h + pad_h

so the pixels of one residue modulo stride_h are reached by the same few taps: a phase, which is a convolution without
stride of its own. Stride 1 is one phase of all taps; at stride 2 a 3x3 filter has phases of 1, 2, 2 and 4 taps.

Blocks are numbered and backward_weight is split as in conv2d_tiled.py, and conv2d_backward_weight_sum adds the parts.
"""

from collections import namedtuple
from functools import cache

from numba import cuda, float32, int32, int64

from .common import ZERO, Conv2dShape, Fused, activate, blocks, fuse, ints, per_channel
from .conv2d_tiled import add_splits, partial_sums, split
from .simt_tile import NOWHERE, TILES, fitting, tap_after, tap_position


@cache
def forward_kernel(tile):
    BM, BN, BK = tile.BM, tile.BN, tile.BK
    TM, TN, THREADS = tile.TM, tile.TN, tile.THREADS
    A_LINE, B_LINE = BM + tile.PAD, BN + tile.PAD
    STEP = THREADS // BK  # rows between a thread's loads
    A_LOADS, B_LOADS = BM // STEP, BN // STEP
    row, column, clear, multiply = tile.core

    @cuda.jit
    def conv2d_forward_implicit_gemm(x, w, y, bias, scale, shift, residual, fused, shape):
        """x (N*H*W*C,), w (K, R*S*Cg), y and residual (N*P*Q, K)"""
        a_tile = cuda.shared.array((2, BK, A_LINE), float32)  # x: BM pixels by BK of (r, s, c)
        b_tile = cuda.shared.array((2, BK, B_LINE), float32)  # w: BN of k by BK of (r, s, c)
        total = cuda.local.array((TM, TN), float32)
        held_a = cuda.local.array(A_LOADS, float32)  # this thread's elements of the next step
        held_b = cuda.local.array(B_LOADS, float32)
        offset = cuda.local.array(A_LOADS, int64)  # of tap (0, 0) of this thread's pixels in x, may miss it
        top = cuda.local.array(A_LOADS, int64)  # row and column of that tap; NOWHERE of a pixel that does not exist
        left = cuda.local.array(A_LOADS, int64)
        Cg = shape.C // shape.groups
        Kg = shape.K // shape.groups
        tiles_k = (Kg + BN - 1) // BN
        pixels = shape.N * shape.P * shape.Q
        reduction = shape.R * shape.S * Cg
        tiles_pixels = (pixels + BM - 1) // BM
        first_k = cuda.blockIdx.x % tiles_k * BN
        first_pixel = cuda.blockIdx.x // tiles_k % tiles_pixels * BM
        group = cuda.blockIdx.x // tiles_k // tiles_pixels
        near = cuda.threadIdx.x % BK  # this thread's position in each step; neighbours read neighbouring channels
        far = cuda.threadIdx.x // BK  # of this thread's rows of both tiles, STEP apart

        for i in range(A_LOADS):
            pixel = first_pixel + far + i * STEP
            n = pixel // shape.Q // shape.P
            h = pixel // shape.Q % shape.P * shape.stride_h - shape.pad_h
            left[i] = pixel % shape.Q * shape.stride_w - shape.pad_w
            top[i] = h if n < shape.N else NOWHERE
            offset[i] = ((n * shape.H + h) * shape.W + left[i]) * shape.C + group * Cg
        r, s, c = tap_position(near, shape.S, Cg)
        clear(total)

        current = 1
        for step in range(-BK, reduction, BK):
            more = step + BK < reduction
            if more:
                tap_h = r * shape.dilation_h
                tap_w = s * shape.dilation_w
                tap = (tap_h * shape.W + tap_w) * shape.C + c
                for i in range(A_LOADS):
                    inside = r < shape.R and 0 <= top[i] + tap_h < shape.H and 0 <= left[i] + tap_w < shape.W
                    held_a[i] = x[offset[i] + tap] if inside else ZERO
                for i in range(B_LOADS):
                    f = first_k + far + i * STEP
                    inside = f < Kg and step + BK + near < reduction
                    held_b[i] = w[group * Kg + f, step + BK + near] if inside else ZERO
                r, s, c = tap_after(r, s, c, BK, shape.S, Cg)
            if step >= 0:
                multiply(a_tile, b_tile, current, total)
            current = 1 - current
            if more:  # this buffer was last read before the previous barrier
                for i in range(A_LOADS):
                    a_tile[current, near, far + i * STEP] = held_a[i]
                for i in range(B_LOADS):
                    b_tile[current, near, far + i * STEP] = held_b[i]
                cuda.syncthreads()

        for j in range(TN):
            k = first_k + column(j)
            if k < Kg:
                before, factor, after = per_channel(group * Kg + k, bias, scale, shift, fused)
                for i in range(TM):
                    total[i, j] = (total[i, j] + before) * factor + after
        if fused.residual:
            for i in range(TM):
                pixel = first_pixel + row(i)
                for j in range(TN):
                    k = first_k + column(j)
                    if pixel < pixels and k < Kg:
                        total[i, j] += residual[pixel, group * Kg + k]
        for i in range(TM):
            pixel = first_pixel + row(i)
            for j in range(TN):
                k = first_k + column(j)
                if pixel < pixels and k < Kg:
                    y[pixel, group * Kg + k] = activate(total[i, j], fused)

    return conv2d_forward_implicit_gemm


# One axis of a phase: rows first + i*stride, and the taps tap + t*step that reach them, from output base + i - t*reach
PhaseAxis = namedtuple("PhaseAxis", ["first", "rows", "tap", "step", "taps", "base", "reach"])


@cuda.jit(device=True, inline="always")
def phase_axis(first, size, stride, pad, dilation, taps):
    tap = 0
    while tap < taps and (first + pad - tap * dilation) % stride != 0:
        tap += 1
    step = 1
    while step < taps and step * dilation % stride != 0:
        step += 1
    count = (taps - tap - 1) // step + 1 if tap < taps else 0
    base = (first + pad - tap * dilation) // stride
    return PhaseAxis(first, (size - first - 1) // stride + 1, tap, step, count, base, step * dilation // stride)


@cache
def backward_input_kernel(tile):
    BM, BN, BK = tile.BM, tile.BN, tile.BK
    TM, TN, THREADS = tile.TM, tile.TN, tile.THREADS
    A_LINE, B_LINE = BM + tile.PAD, BN + tile.PAD
    A_STEP, B_STEP = THREADS // BK, THREADS // BN  # between a thread's loads: rows of a, positions of b
    A_LOADS, B_LOADS = BM // A_STEP, BK // B_STEP
    row, column, clear, multiply = tile.core

    @cuda.jit
    def conv2d_backward_input_implicit_gemm(dy, w, dx, shape):
        """dy (N*P*Q*K,), w (K, R, S, Cg), dx (N*H*W, C)"""
        a_tile = cuda.shared.array((2, BK, A_LINE), float32)  # dy: BM pixels of dx by BK of (t, u, k)
        b_tile = cuda.shared.array((2, BK, B_LINE), float32)  # w: BN of c by BK of (t, u, k)
        total = cuda.local.array((TM, TN), float32)
        held_a = cuda.local.array(A_LOADS, float32)
        held_b = cuda.local.array(B_LOADS, float32)
        offset = cuda.local.array(A_LOADS, int64)  # of the output that the first tap comes from, in dy, may miss it
        top = cuda.local.array(A_LOADS, int64)  # p and q of that output; NOWHERE of a pixel that does not exist
        left = cuda.local.array(A_LOADS, int64)
        Cg = shape.C // shape.groups
        Kg = shape.K // shape.groups
        tiles_c = (Cg + BN - 1) // BN
        phases_w = min(shape.stride_w, shape.W)
        phases = min(shape.stride_h, shape.H) * phases_w
        # of the first phase, which has the most
        most = shape.N * ((shape.H - 1) // shape.stride_h + 1) * ((shape.W - 1) // shape.stride_w + 1)
        tiles_pixels = (most + BM - 1) // BM
        first_c = cuda.blockIdx.x % tiles_c * BN
        phase = cuda.blockIdx.x // tiles_c % phases
        first_pixel = cuda.blockIdx.x // tiles_c // phases % tiles_pixels * BM
        group = cuda.blockIdx.x // tiles_c // phases // tiles_pixels
        axis_h = phase_axis(phase // phases_w, shape.H, shape.stride_h, shape.pad_h, shape.dilation_h, shape.R)
        axis_w = phase_axis(phase % phases_w, shape.W, shape.stride_w, shape.pad_w, shape.dilation_w, shape.S)
        pixels = shape.N * axis_h.rows * axis_w.rows
        reduction = axis_h.taps * axis_w.taps * Kg  # 0 of a phase that no tap reaches: its dx is 0
        if first_pixel >= pixels:  # of a phase with fewer pixels than the first
            return
        near_a = cuda.threadIdx.x % BK  # position in each step; neighbours read neighbouring k
        far_a = cuda.threadIdx.x // BK
        near_b = cuda.threadIdx.x % BN  # row of the tile; neighbours read neighbouring c
        far_b = cuda.threadIdx.x // BN

        for i in range(A_LOADS):
            pixel = first_pixel + far_a + i * A_STEP
            n = pixel // axis_w.rows // axis_h.rows
            p = axis_h.base + pixel // axis_w.rows % axis_h.rows
            left[i] = axis_w.base + pixel % axis_w.rows
            top[i] = p if n < shape.N else NOWHERE
            offset[i] = ((n * shape.P + p) * shape.Q + left[i]) * shape.K + group * Kg
        clear(total)
        if reduction > 0:
            t_a, u_a, k_a = tap_position(near_a, axis_w.taps, Kg)
            t_b, u_b, k_b = tap_position(far_b, axis_w.taps, Kg)

            current = 1
            for step in range(-BK, reduction, BK):
                more = step + BK < reduction
                if more:
                    tap_p = t_a * axis_h.reach
                    tap_q = u_a * axis_w.reach
                    tap = k_a - (tap_p * shape.Q + tap_q) * shape.K
                    for i in range(A_LOADS):
                        inside = t_a < axis_h.taps and 0 <= top[i] - tap_p < shape.P and 0 <= left[i] - tap_q < shape.Q
                        held_a[i] = dy[offset[i] + tap] if inside else ZERO
                    t_a, u_a, k_a = tap_after(t_a, u_a, k_a, BK, axis_w.taps, Kg)
                    for i in range(B_LOADS):
                        r = axis_h.tap + t_b * axis_h.step
                        s = axis_w.tap + u_b * axis_w.step
                        inside = first_c + near_b < Cg and t_b < axis_h.taps
                        held_b[i] = w[group * Kg + k_b, r, s, first_c + near_b] if inside else ZERO
                        t_b, u_b, k_b = tap_after(t_b, u_b, k_b, B_STEP, axis_w.taps, Kg)
                if step >= 0:
                    multiply(a_tile, b_tile, current, total)
                current = 1 - current
                if more:  # this buffer was last read before the previous barrier
                    for i in range(A_LOADS):
                        a_tile[current, near_a, far_a + i * A_STEP] = held_a[i]
                    for i in range(B_LOADS):
                        b_tile[current, far_b + i * B_STEP, near_b] = held_b[i]
                    cuda.syncthreads()

        for i in range(TM):
            pixel = first_pixel + row(i)
            h = axis_h.first + pixel // axis_w.rows % axis_h.rows * shape.stride_h
            left_of = axis_w.first + pixel % axis_w.rows * shape.stride_w
            to = (pixel // axis_w.rows // axis_h.rows * shape.H + h) * shape.W + left_of
            for j in range(TN):
                c = first_c + column(j)
                if pixel < pixels and c < Cg:
                    dx[to, group * Cg + c] = total[i, j]

    return conv2d_backward_input_implicit_gemm


@cache
def backward_weight_kernel(tile):
    BM, BN, BK = tile.BM, tile.BN, tile.BK
    TM, TN, THREADS = tile.TM, tile.TN, tile.THREADS
    A_LINE, B_LINE = BM + tile.PAD, BN + tile.PAD
    A_STEP, B_STEP = THREADS // BM, THREADS // BN  # positions between a thread's loads
    A_LOADS, B_LOADS = BK // A_STEP, BK // B_STEP
    row, column, clear, multiply = tile.core

    @cuda.jit
    def conv2d_backward_weight_implicit_gemm(x, dy, partial, pixels_per_split, shape):
        """x (N*H*W*C,), dy (N*P*Q, K), partial (splits, K, R*S*Cg)

        Split i adds the pixels i * pixels_per_split + [0, pixels_per_split).
        """
        a_tile = cuda.shared.array((2, BK, A_LINE), float32)  # dy: BM of k by BK of (n, p, q)
        b_tile = cuda.shared.array((2, BK, B_LINE), float32)  # x: BN of (r, s, c) by BK of (n, p, q)
        total = cuda.local.array((TM, TN), float32)
        held_a = cuda.local.array(A_LOADS, float32)
        held_b = cuda.local.array(B_LOADS, float32)
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
        count = min(pixels_per_split, shape.N * shape.P * shape.Q - begin)
        near_a = cuda.threadIdx.x % BM  # row of the tile; neighbours read neighbouring k
        far_a = cuda.threadIdx.x // BM  # position in each step
        near_b = cuda.threadIdx.x % BN  # row of the tile; neighbours read neighbouring c
        far_b = cuda.threadIdx.x // BN

        r, s, c = tap_position(first_tap + near_b, shape.S, Cg)
        tap_h = r * shape.dilation_h - shape.pad_h if r < shape.R else NOWHERE
        tap_w = s * shape.dilation_w - shape.pad_w
        channel = group * Cg + c
        n, p, q = tap_position(begin + far_b, shape.P, shape.Q)  # of this thread's pixel of b
        clear(total)

        current = 1
        for step in range(-BK, count, BK):
            more = step + BK < count
            if more:
                for i in range(A_LOADS):
                    pixel = step + BK + far_a + i * A_STEP
                    inside = pixel < count and first_k + near_a < Kg
                    held_a[i] = dy[begin + pixel, group * Kg + first_k + near_a] if inside else ZERO
                for i in range(B_LOADS):  # what lies past the range is not masked: dy is 0 there
                    h = p * shape.stride_h + tap_h
                    left = q * shape.stride_w + tap_w
                    inside = n < shape.N and 0 <= h < shape.H and 0 <= left < shape.W
                    held_b[i] = x[((n * shape.H + h) * shape.W + left) * shape.C + channel] if inside else ZERO
                    n, p, q = tap_after(n, p, q, B_STEP, shape.P, shape.Q)
            if step >= 0:
                multiply(a_tile, b_tile, current, total)
            current = 1 - current
            if more:  # this buffer was last read before the previous barrier
                for i in range(A_LOADS):
                    a_tile[current, far_a + i * A_STEP, near_a] = held_a[i]
                for i in range(B_LOADS):
                    b_tile[current, far_b + i * B_STEP, near_b] = held_b[i]
                cuda.syncthreads()

        for i in range(TM):
            k = first_k + row(i)
            for j in range(TN):
                tap = first_tap + column(j)
                if k < Kg and tap < taps:
                    partial[split, group * Kg + k, tap] = total[i, j]

    return conv2d_backward_weight_implicit_gemm


def forward(launch, shape, x, w, y, epilogue, tiles=TILES):
    pixels, Kg = shape.N * shape.P * shape.Q, shape.K // shape.groups
    tile = fitting(tiles, pixels, Kg, shape.groups)
    x, w, y = x.reshape(-1), w.reshape(shape.K, -1), y.reshape(pixels, shape.K)
    args = x, w, launch.out(y), *fuse(launch, epilogue, x, y), launch.ints(Conv2dShape, shape)
    grid = shape.groups * blocks(pixels, tile.BM) * blocks(Kg, tile.BN)
    launch(forward_kernel(tile), grid, tile.THREADS, *args)


def backward_input(launch, shape, dy, w, dx, tiles=TILES):
    Cg = shape.C // shape.groups
    phases = min(shape.stride_h, shape.H) * min(shape.stride_w, shape.W)
    most = shape.N * blocks(shape.H, shape.stride_h) * blocks(shape.W, shape.stride_w)  # pixels of the largest phase
    tile = fitting(tiles, most, Cg, shape.groups * phases)
    args = dy.reshape(-1), w, launch.out(dx.reshape(-1, shape.C)), launch.ints(Conv2dShape, shape)
    grid = shape.groups * phases * blocks(most, tile.BM) * blocks(Cg, tile.BN)
    launch(backward_input_kernel(tile), grid, tile.THREADS, *args)


def backward_weight(launch, shape, x, dy, dw, tiles=TILES):
    pixels, Kg = shape.N * shape.P * shape.Q, shape.K // shape.groups
    tile = fitting(tiles, Kg, shape.reduction, shape.groups)
    grid = shape.groups * blocks(Kg, tile.BM) * blocks(shape.reduction, tile.BN)
    splits, pixels_per_split = split(pixels, grid, tile.BK)
    partial = partial_sums(launch, shape, dw, splits)
    args = launch.integer(pixels_per_split), launch.ints(Conv2dShape, shape)
    x, dy, out = x.reshape(-1), dy.reshape(pixels, shape.K), launch.out(partial)
    launch(backward_weight_kernel(tile), splits * grid, tile.THREADS, x, dy, out, *args)
    add_splits(launch, partial, dw)


_flat, _matrix, _cube = float32[::1], float32[:, ::1], float32[:, :, ::1]
_channels = (_flat,) * 3  # bias, scale, shift


def signatures(tiles):
    return [
        entry
        for tile in tiles
        for entry in (
            (forward_kernel(tile), (_flat, _matrix, _matrix, *_channels, _matrix, ints(Fused), ints(Conv2dShape))),
            (backward_input_kernel(tile), (_flat, float32[:, :, :, ::1], _matrix, ints(Conv2dShape))),
            (backward_weight_kernel(tile), (_flat, _matrix, _cube, int32, ints(Conv2dShape))),
        )
    ]


SIGNATURES = signatures(TILES)
