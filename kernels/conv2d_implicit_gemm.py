"""conv2d, rung ``implicit_gemm``: implicit GEMM on CUDA cores over simt_tile.py, with the operands of operands.py and,
for backward_input, the phases of phases.py: no product with a zero that the stride would put between outputs.

A function of a tile builds each kernel: ``forward(tile)`` is what ``conv2d_forward_implicit_gemm<Tile>`` is in C++.
Each block has tile.THREADS threads. Blocks are numbered and backward_weight is split as in conv2d_tiled.py,
backward_input's phases lie between the tiles of pixels and those of channels: phases of the same pixels read the same
dy at about the same time. Elements travel one at a time, where the C++ moves four.
"""

from functools import cache

from numba import cuda, float32, int32, int64

from .common import Conv2dShape, Fused, finish, ints, per_channel
from .operands import (
    NOWHERE,
    after,
    fetch_filters,
    fetch_gradients,
    fetch_patches,
    fetch_phase_filters,
    fetch_transposed_patches,
)
from .phases import phase_axis
from .simt_tile import (
    ALIGNMENT,
    TILE,
    clear_sums,
    column_of,
    multiply_simt_step,
    row_of,
    store_along_k,
    store_along_rows,
)


@cache
def forward(tile):
    """The kernel for a tile: rows are pixels (n, p, q), columns k of the group, both operands run along (r, s, c)."""
    BM, BN, BK, TM, TN, A_LINE, B_LINE = tile.BM, tile.BN, tile.BK, tile.TM, tile.TN, tile.A_LINE, tile.B_LINE
    A_SIZE, B_SIZE = BK * A_LINE, BK * B_LINE  # of a buffer
    LOADS_A, LOADS_B, STEP = tile.LOADS_A, tile.LOADS_B, tile.THREADS // BK  # STEP rows between a thread's loads
    A_BUFFERS, B_BUFFERS = 2 * A_SIZE, 2 * B_SIZE

    @cuda.jit
    def conv2d_forward_implicit_gemm(x, w, y, bias, scale, shift, residual, fused, shape):
        """x, w, y and residual flat"""
        a_tile = cuda.shared.array(A_BUFFERS, float32, ALIGNMENT)  # x: [buffer][(r, s, c)][pixel]
        b_tile = cuda.shared.array(B_BUFFERS, float32, ALIGNMENT)  # w: [buffer][(r, s, c)][k]
        total = cuda.local.array((TM, TN), float32)
        fragment_a = cuda.local.array(TM, float32)
        fragment_b = cuda.local.array(TN, float32)
        held_a = cuda.local.array(LOADS_A, float32)
        held_b = cuda.local.array(LOADS_B, float32)
        offset = cuda.local.array(LOADS_A, int64)  # in x of tap (0, 0) of this thread's rows, and its place there
        top = cuda.local.array(LOADS_A, int32)
        left = cuda.local.array(LOADS_A, int32)
        Cg = shape.C // shape.groups
        Kg = shape.K // shape.groups
        reduction = shape.R * shape.S * Cg
        pixels = shape.N * shape.P * shape.Q
        tiles_k = (Kg + BN - 1) // BN
        tiles_pixels = (pixels + BM - 1) // BM
        first_k = cuda.blockIdx.x % tiles_k * BN
        first_pixel = cuda.blockIdx.x // tiles_k % tiles_pixels * BM
        group = cuda.blockIdx.x // tiles_k // tiles_pixels
        first_filter = group * Kg * reduction
        near = cuda.threadIdx.x % BK  # this thread's position in each step
        far = cuda.threadIdx.x // BK  # its first row of both tiles

        for load in range(LOADS_A):
            pixel = first_pixel + far + load * STEP
            h = pixel // shape.Q % shape.P * shape.stride_h - shape.pad_h
            column = pixel % shape.Q * shape.stride_w - shape.pad_w
            n = pixel // shape.Q // shape.P
            offset[load] = ((n * shape.H + h) * shape.W + column) * shape.C + group * Cg
            top[load] = h if n < shape.N else NOWHERE
            left[load] = column
        clear_sums(total, tile)

        r = near // Cg // shape.S
        s = near // Cg % shape.S
        c = near % Cg
        buffer = 1
        for step in range(0, reduction + BK, BK):  # while one step is fetched, the one before is multiplied
            if step < reduction:
                by_h = r * shape.dilation_h
                by_w = s * shape.dilation_w
                tap = (by_h * shape.W + by_w) * shape.C + c
                fetch_patches(held_a, x, offset, top, left, by_h, by_w, tap, r < shape.R, shape.H, shape.W, LOADS_A)
                fetch_filters(held_b, w, first_k, step + near, far, STEP, Kg, reduction, first_filter, LOADS_B)
                r, s, c = after(r, s, c, BK, shape.S, Cg)
            if step > 0:
                multiply_simt_step(a_tile, b_tile, buffer, fragment_a, fragment_b, total, tile)
            buffer ^= 1  # it was last read before the previous barrier
            if step < reduction:
                store_along_k(held_a, a_tile, buffer * A_SIZE, A_LINE, near, far, STEP, LOADS_A)
                store_along_k(held_b, b_tile, buffer * B_SIZE, B_LINE, near, far, STEP, LOADS_B)
            cuda.syncthreads()

        for j in range(TN):
            k = min(first_k + column_of(j, tile), Kg - 1)  # what lies beyond is not stored
            before, factor, behind = per_channel(group * Kg + k, bias, scale, shift, fused)
            for i in range(TM):
                total[i, j] = (total[i, j] + before) * factor + behind
        for i in range(TM):
            pixel = first_pixel + row_of(i, tile)
            if pixel < pixels:
                for j in range(TN):
                    k = first_k + column_of(j, tile)
                    if k < Kg:
                        finish(y, residual, pixel * shape.K + group * Kg + k, total[i, j], fused)

    return conv2d_forward_implicit_gemm


@cache
def backward_input(tile):
    """The kernel for a tile: rows are pixels of a phase, columns c of the group, the reduction is (t, u, k)."""
    BM, BN, BK, TM, TN, A_LINE, B_LINE = tile.BM, tile.BN, tile.BK, tile.TM, tile.TN, tile.A_LINE, tile.B_LINE
    A_SIZE, B_SIZE = BK * A_LINE, BK * B_LINE
    LOADS_A, LOADS_B = tile.LOADS_A, tile.LOADS_B
    A_STEP, B_STEP = tile.THREADS // BK, tile.THREADS // BN  # rows, and positions, between a thread's loads
    A_BUFFERS, B_BUFFERS = 2 * A_SIZE, 2 * B_SIZE

    @cuda.jit
    def conv2d_backward_input_implicit_gemm(dy, w, dx, shape):
        """dy, w flat, dx (N*H*W, C)"""
        a_tile = cuda.shared.array(A_BUFFERS, float32, ALIGNMENT)  # dy: [buffer][(t, u, k)][pixel]
        b_tile = cuda.shared.array(B_BUFFERS, float32, ALIGNMENT)  # w: [buffer][(t, u, k)][c]
        total = cuda.local.array((TM, TN), float32)
        fragment_a = cuda.local.array(TM, float32)
        fragment_b = cuda.local.array(TN, float32)
        held_a = cuda.local.array(LOADS_A, float32)
        held_b = cuda.local.array(LOADS_B, float32)
        offset = cuda.local.array(LOADS_A, int64)  # in dy of the output that the first tap comes from, and its place
        top = cuda.local.array(LOADS_A, int32)
        left = cuda.local.array(LOADS_A, int32)
        Cg = shape.C // shape.groups
        Kg = shape.K // shape.groups
        phases_w = min(shape.stride_w, shape.W)
        phases = min(shape.stride_h, shape.H) * phases_w
        tiles_c = (Cg + BN - 1) // BN
        most = shape.N * ((shape.H - 1) // shape.stride_h + 1) * ((shape.W - 1) // shape.stride_w + 1)
        tiles_pixels = (most + BM - 1) // BM
        first_c = cuda.blockIdx.x % tiles_c * BN
        phase = cuda.blockIdx.x // tiles_c % phases
        first_pixel = cuda.blockIdx.x // tiles_c // phases % tiles_pixels * BM
        group = cuda.blockIdx.x // tiles_c // phases // tiles_pixels
        h_axis = phase_axis(phase // phases_w, shape.H, shape.stride_h, shape.pad_h, shape.dilation_h, shape.R)
        w_axis = phase_axis(phase % phases_w, shape.W, shape.stride_w, shape.pad_w, shape.dilation_w, shape.S)
        pixels = shape.N * h_axis.rows * w_axis.rows
        if first_pixel >= pixels:  # of a phase with fewer pixels than the first
            return
        reduction = h_axis.taps * w_axis.taps * Kg
        first_filter = group * Kg * shape.R * shape.S * Cg
        near = cuda.threadIdx.x % BK  # of a: along k
        far = cuda.threadIdx.x // BK
        c = first_c + cuda.threadIdx.x % BN  # of b: neighbouring threads take neighbouring c
        position = cuda.threadIdx.x // BN

        for load in range(LOADS_A):
            pixel = first_pixel + far + load * A_STEP
            n = pixel // w_axis.rows // h_axis.rows
            p = h_axis.base + pixel // w_axis.rows % h_axis.rows
            q = w_axis.base + pixel % w_axis.rows
            offset[load] = ((n * shape.P + p) * shape.Q + q) * shape.K + group * Kg
            top[load] = p if n < shape.N else NOWHERE
            left[load] = q
        clear_sums(total, tile)

        t, u, k = after(0, 0, 0, near, w_axis.taps, Kg)
        t_b, u_b, k_b = after(0, 0, 0, position, w_axis.taps, Kg)
        buffer = 1
        for step in range(0, reduction + BK, BK):
            if step < reduction:
                by_h = -t * h_axis.reach
                by_w = -u * w_axis.reach
                tap = (by_h * shape.Q + by_w) * shape.K + k
                exists = t < h_axis.taps
                fetch_patches(held_a, dy, offset, top, left, by_h, by_w, tap, exists, shape.P, shape.Q, LOADS_A)
                at = t_b, u_b, k_b
                axes = h_axis, w_axis
                t_b, u_b, k_b = fetch_phase_filters(
                    held_b, w, at, B_STEP, c, Cg, Kg, first_filter, axes, shape, LOADS_B
                )
                t, u, k = after(t, u, k, BK, w_axis.taps, Kg)
            if step > 0:
                multiply_simt_step(a_tile, b_tile, buffer, fragment_a, fragment_b, total, tile)
            buffer ^= 1
            if step < reduction:
                store_along_k(held_a, a_tile, buffer * A_SIZE, A_LINE, near, far, A_STEP, LOADS_A)
                store_along_rows(held_b, b_tile, buffer * B_SIZE, B_LINE, c - first_c, position, B_STEP, LOADS_B)
            cuda.syncthreads()

        for i in range(TM):
            pixel = first_pixel + row_of(i, tile)
            if pixel < pixels:
                h = h_axis.first + pixel // w_axis.rows % h_axis.rows * shape.stride_h
                column = w_axis.first + pixel % w_axis.rows * shape.stride_w
                place = (pixel // w_axis.rows // h_axis.rows * shape.H + h) * shape.W + column
                for j in range(TN):
                    channel = first_c + column_of(j, tile)
                    if channel < Cg:
                        dx[place, group * Cg + channel] = total[i, j]

    return conv2d_backward_input_implicit_gemm


@cache
def backward_weight(tile):
    """The kernel for a tile: rows are k of the group, columns taps (r, s, c), the reduction is a range of pixels."""
    BM, BN, BK, TM, TN, A_LINE, B_LINE = tile.BM, tile.BN, tile.BK, tile.TM, tile.TN, tile.A_LINE, tile.B_LINE
    A_SIZE, B_SIZE = BK * A_LINE, BK * B_LINE
    LOADS_A, LOADS_B = tile.LOADS_A, tile.LOADS_B
    A_STEP, B_STEP = tile.THREADS // BM, tile.THREADS // BN  # pixels between a thread's loads
    A_BUFFERS, B_BUFFERS = 2 * A_SIZE, 2 * B_SIZE

    @cuda.jit
    def conv2d_backward_weight_implicit_gemm(x, dy, partial, pixels_per_split, shape):
        """x, dy flat, partial (splits, K, R*S*Cg); splits as in conv2d_tiled.py"""
        a_tile = cuda.shared.array(A_BUFFERS, float32, ALIGNMENT)  # dy: [buffer][pixel][k]
        b_tile = cuda.shared.array(B_BUFFERS, float32, ALIGNMENT)  # x: [buffer][pixel][(r, s, c)]
        total = cuda.local.array((TM, TN), float32)
        fragment_a = cuda.local.array(TM, float32)
        fragment_b = cuda.local.array(TN, float32)
        held_a = cuda.local.array(LOADS_A, float32)
        held_b = cuda.local.array(LOADS_B, float32)
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
        k = first_k + cuda.threadIdx.x % BM  # this thread's row of a; neighbouring threads take neighbouring k
        position_a = cuda.threadIdx.x // BM
        tap = first_tap + cuda.threadIdx.x % BN  # and of b
        position_b = cuda.threadIdx.x // BN
        r = tap // Cg // shape.S  # R or more: beyond the last tap
        top = r * shape.dilation_h - shape.pad_h if r < shape.R else NOWHERE
        left = tap // Cg % shape.S * shape.dilation_w - shape.pad_w
        channel = group * Cg + tap % Cg
        clear_sums(total, tile)

        n = (begin + position_b) // shape.Q // shape.P
        p = (begin + position_b) // shape.Q % shape.P
        q = (begin + position_b) % shape.Q
        buffer = 1
        for step in range(begin, end + BK, BK):
            if step < end:
                first = step + position_a
                fetch_gradients(held_a, dy, first, A_STEP, end, k, Kg, group * Kg + k, shape.K, LOADS_A)
                n, p, q = fetch_transposed_patches(held_b, x, n, p, q, B_STEP, top, left, channel, shape, LOADS_B)
            if step > begin:
                multiply_simt_step(a_tile, b_tile, buffer, fragment_a, fragment_b, total, tile)
            buffer ^= 1
            if step < end:
                store_along_rows(held_a, a_tile, buffer * A_SIZE, A_LINE, k - first_k, position_a, A_STEP, LOADS_A)
                store_along_rows(held_b, b_tile, buffer * B_SIZE, B_LINE, tap - first_tap, position_b, B_STEP, LOADS_B)
            cuda.syncthreads()

        for i in range(TM):
            k = first_k + row_of(i, tile)
            if k < Kg:
                for j in range(TN):
                    tap = first_tap + column_of(j, tile)
                    if tap < taps:
                        partial[split, group * Kg + k, tap] = total[i, j]

    return conv2d_backward_weight_implicit_gemm


_flat, _matrix = float32[::1], float32[:, ::1]
SIGNATURES = [
    (forward(TILE), (*(_flat,) * 7, ints(Fused), ints(Conv2dShape))),
    (backward_input(TILE), (_flat, _flat, _matrix, ints(Conv2dShape))),
    (backward_weight(TILE), (_flat, _flat, float32[:, :, ::1], int32, ints(Conv2dShape))),
]
