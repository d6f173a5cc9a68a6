"""conv2d, rung ``depthwise``: one input channel a group (groups == C). Filter k works on channel k // multiplier,
multiplier = K // C.

Neighbouring threads have neighbouring channels. Forward and backward_input: a thread adds a strip of ``length`` outputs
in registers; an input is loaded once for all taps of a row (sliding_window.py), the rows of a block meet in L1.
backward_weight: a thread adds ``taps`` taps of a filter's row over many pixels, the block its threads in shared memory,
and a second kernel the blocks, as in conv2d_tiled.py: the same bits every time.

The block is (channels, strips, lines) threads, or (channels, pixels, parts of filters); any number up to THREADS.
``length`` and ``taps`` are registers, so a function of them builds the kernel. One channel a thread: the C++ takes up
to 16 bytes of them.

Roofline: 2 R S flops for each output over the bytes of an input and an output at stride 1: 2.25 flops a byte for 3x3:
bound by memory, from about 7x7 on by arithmetic.
"""

from collections import namedtuple
from functools import cache

from numba import cuda, float32, int32

from .common import SIMULATED, THREADS, ZERO, Conv2dShape, Fused, blocks, finish, ints, per_channel, unsigned
from .sliding_window import STAGED, axis_of, first_tap, load_pixel, slide, stage, staged_rows, strip_of

LENGTH = 3 if SIMULATED else 8  # outputs of a strip: as many sums and inputs in registers
TAPS = 2 if SIMULATED else 3  # of a thread in backward_weight
RUN_LENGTH = 4 if SIMULATED else 16  # at most: outputs of a line that a window slides over in backward_weight
LANES = 4 if SIMULATED else 32  # at most: channels of a block, a line of 128 bytes
BLOCK_LINES = 2 if SIMULATED else 8  # of the outputs: rows of the input that they share are read once from L2
BLOCK_PARTS = 2 if SIMULATED else 8  # of filters in backward_weight: they share the elements of dy
MOST_LINES = 64  # blockDim.z of CUDA


@cache
def forward(length):
    """The kernel for strips of ``length`` outputs"""

    @cuda.jit
    def conv2d_forward_depthwise(x, w, y, bias, scale, shift, residual, fused, shape):
        """x, w, y and residual flat"""
        staged = cuda.shared.array(STAGED, float32)
        total = cuda.local.array(length, float32)
        window = cuda.local.array(length, float32)
        axis = axis_of(shape.stride_w, shape.dilation_w)
        strip = strip_of(shape.N * shape.P, shape.Q, shape.K, axis.spacing, length)
        k = strip.channel
        c = k // (shape.K // shape.C)
        n = strip.line // shape.P
        p = strip.line % shape.P
        rows = staged_rows(shape)

        for i in range(length):
            total[i] = 0
        for top in range(0, shape.R, rows):
            stage(staged, w, k, k < shape.K, top, rows, shape)
            for r in range(top, min(top + rows, shape.R)):
                h = p * shape.stride_h - shape.pad_h + r * shape.dilation_h
                if strip.inside and 0 <= h < shape.H:
                    line = (n * shape.H + h) * shape.W * shape.C + c
                    for phase in range(min(axis.phases, shape.S)):
                        begin = strip.first * shape.stride_w - shape.pad_w + phase * shape.dilation_w
                        by = axis.spacing * shape.stride_w
                        taps = (shape.S - phase + axis.phases - 1) // axis.phases
                        tap = ((r - top) * shape.S + phase) * cuda.blockDim.x + cuda.threadIdx.x
                        step = axis.phases * cuda.blockDim.x
                        slide(total, window, length, taps, x, line, begin, by, shape.W, shape.C, staged, tap, step)

        if strip.inside:
            before, factor, behind = per_channel(k, bias, scale, shift, fused)
            for i in range(length):
                q = strip.first + i * axis.spacing
                if q < shape.Q:
                    index = (strip.line * shape.Q + q) * shape.K + k
                    finish(y, residual, index, (total[i] + before) * factor + behind, fused)

    return conv2d_forward_depthwise


@cache
def backward_input(length):
    """The kernel for strips of ``length`` pixels of dx. They meet the same taps, every phases-th: no product is spent
    on zeros that a stride would put between the elements of dy. One tap further they meet the element of dy before, so
    the strip runs backwards: total[i] is pixel length - 1 - i."""

    @cuda.jit
    def conv2d_backward_input_depthwise(dy, w, dx, shape):
        """dy, w and dx flat"""
        staged = cuda.shared.array(STAGED, float32)
        total = cuda.local.array(length, float32)
        window = cuda.local.array(length, float32)
        axis = axis_of(shape.stride_w, shape.dilation_w)
        axis_h = axis_of(shape.stride_h, shape.dilation_h)
        pixel_step = axis.spacing * shape.stride_w
        strip = strip_of(shape.N * shape.H, shape.W, shape.C, pixel_step, length)
        n = strip.line // shape.H
        h = strip.line % shape.H
        multiplier = shape.K // shape.C
        rows = staged_rows(shape)

        first_s = first_tap(strip.first + shape.pad_w, shape.S, shape.stride_w, shape.dilation_w)
        first_r = first_tap(h + shape.pad_h, shape.R, shape.stride_h, shape.dilation_h)
        last_pixel = strip.first + (length - 1) * pixel_step
        end = (last_pixel + shape.pad_w - first_s * shape.dilation_w) // shape.stride_w  # the q whose tap first_s it is
        taps = (shape.S - first_s + axis.phases - 1) // axis.phases

        for i in range(length):
            total[i] = 0
        for i in range(multiplier):
            k = strip.channel * multiplier + i
            for top in range(0, shape.R, rows):
                stage(staged, w, k, strip.channel < shape.C, top, rows, shape)
                for r in range(top, min(top + rows, shape.R)):
                    reach = h + shape.pad_h - r * shape.dilation_h
                    p = reach // shape.stride_h
                    meets = r >= first_r and (r - first_r) % axis_h.phases == 0 and 0 <= p < shape.P
                    if strip.inside and taps > 0 and meets:
                        line = (n * shape.P + p) * shape.Q * shape.K + k
                        tap = ((r - top) * shape.S + first_s) * cuda.blockDim.x + cuda.threadIdx.x
                        step = axis.phases * cuda.blockDim.x
                        by = -axis.spacing
                        slide(total, window, length, taps, dy, line, end, by, shape.Q, shape.K, staged, tap, step)

        if strip.inside:
            for i in range(length):
                pixel = last_pixel - i * pixel_step
                if pixel < shape.W:
                    dx[unsigned((strip.line * shape.W + pixel) * shape.C + strip.channel)] = total[i]

    return conv2d_backward_input_depthwise


# Taps that a thread adds: row r, s = first + j * phases, j in [0, TAPS); of a filter there are ``count`` such parts
FilterPart = namedtuple("FilterPart", "r first count")


@cuda.jit(device=True, inline="always")
def filter_part(shape, axis, part, most_taps):
    phases = min(axis.phases, shape.S)
    longest = (shape.S + axis.phases - 1) // axis.phases
    chunks = (longest + most_taps - 1) // most_taps  # of a phase
    first = part // chunks % phases + part % chunks * most_taps * axis.phases
    return FilterPart(part // chunks // phases, first, shape.R * phases * chunks)


@cache
def backward_weight(taps):
    """The kernel for ``taps`` taps a thread. An item is a run of outputs of a line; a block adds ``range_`` of them,
    each row of its threads every blockDim.y-th."""
    SUMS = THREADS * taps

    @cuda.jit
    def conv2d_backward_weight_depthwise(x, dy, partial, range_, shape):
        """x, dy flat, partial (splits, K*R*S)"""
        shared = cuda.shared.array(SUMS, float32)  # [threadIdx.y][threadIdx.z][tap][channel of the block]
        total = cuda.local.array(taps, float32)
        window = cuda.local.array(taps, float32)
        axis = axis_of(shape.stride_w, shape.dilation_w)
        channels = cuda.blockDim.x
        parts = filter_part(shape, axis, 0, taps).count
        tiles_channel = (shape.K + channels - 1) // channels
        tiles_part = (parts + cuda.blockDim.z - 1) // cuda.blockDim.z
        block_channel = cuda.blockIdx.x % tiles_channel * channels
        block_part = cuda.blockIdx.x // tiles_channel % tiles_part * cuda.blockDim.z
        split = cuda.blockIdx.x // tiles_channel // tiles_part
        k = block_channel + cuda.threadIdx.x
        c = k // (shape.K // shape.C)
        part = filter_part(shape, axis, block_part + cuda.threadIdx.z, taps)

        offsets = min(axis.spacing, shape.Q)
        most = (shape.Q + axis.spacing - 1) // axis.spacing  # outputs from an offset on
        runs = (most + RUN_LENGTH - 1) // RUN_LENGTH
        length = (most + runs - 1) // runs
        items = shape.N * shape.P * offsets * runs
        busy = k < shape.K and part.r < shape.R
        end_item = min((split + 1) * range_, items) if busy else 0
        by = axis.spacing * shape.stride_w

        for j in range(taps):
            total[j] = 0
        for item in range(split * range_ + cuda.threadIdx.y, end_item, cuda.blockDim.y):
            run = item % (offsets * runs)
            line = item // (offsets * runs)  # n*P + p
            h = line % shape.P * shape.stride_h - shape.pad_h + part.r * shape.dilation_h
            if 0 <= h < shape.H:
                first = run % offsets + run // offsets * length * axis.spacing
                count = min((shape.Q - first + axis.spacing - 1) // axis.spacing, length)
                begin = first * shape.stride_w - shape.pad_w + part.first * shape.dilation_w
                inputs = (line // shape.P * shape.H + h) * shape.W * shape.C + c
                gradients = (line * shape.Q + first) * shape.K + k

                # Output i and tap j meet the input at position i + j, which lies in window[(i + j) % taps]
                for j in range(taps - 1):
                    window[j] = load_pixel(x, inputs, begin + j * by, shape.W, shape.C)
                for start in range(0, count, taps):
                    for i in range(taps):
                        if start + i < count:
                            column = begin + (start + i + taps - 1) * by
                            window[(i + taps - 1) % taps] = load_pixel(x, inputs, column, shape.W, shape.C)
                            gradient = dy[unsigned(gradients + (start + i) * axis.spacing * shape.K)]
                            for j in range(taps):
                                total[j] += window[(i + j) % taps] * gradient

        row = cuda.blockDim.z * taps * channels  # sums of the threads of a threadIdx.y
        mine = cuda.threadIdx.y * row + cuda.threadIdx.z * taps * channels + cuda.threadIdx.x
        for j in range(taps):
            shared[unsigned(mine + j * channels)] = total[j]
        cuda.syncthreads()
        at = (cuda.threadIdx.z * cuda.blockDim.y + cuda.threadIdx.y) * channels + cuda.threadIdx.x
        for i in range(at, row, channels * cuda.blockDim.y * cuda.blockDim.z):
            filter = block_channel + i % channels
            of = filter_part(shape, axis, block_part + i // channels // taps, taps)
            s = of.first + i // channels % taps * axis.phases
            if filter < shape.K and of.r < shape.R and s < shape.S:
                value = ZERO
                for thread in range(cuda.blockDim.y):
                    value += shared[unsigned(thread * row + i)]
                partial[split, (filter * shape.R + of.r) * shape.S + s] = value

    return conv2d_backward_weight_depthwise


def even(count, most):
    """``count`` in parts of at most ``most``, as equal as they can be: the size of one."""
    return blocks(count, blocks(count, most))


def strips(lines, width, channels, step, S, length, threads):
    """(grid, block) of the walk of ``strip_of``: ``threads`` at most in a block"""
    x = min(even(channels, LANES), max(STAGED // S, 1), threads)
    along = blocks(blocks(width, step), length)
    y = min(along, max(1, threads // x // BLOCK_LINES))
    z = min(lines, threads // (x * y), MOST_LINES)
    return blocks(channels, x) * min(step, width) * blocks(along, y) * blocks(lines, z), (x, y, z)


def weight_blocks(shape, phases, spacing, taps, threads, enough):
    """(splits, items of each, blocks of a split, block) of backward_weight: as few blocks as fill a GPU"""
    x = even(shape.K, min(LANES, threads))
    parts = shape.R * min(phases, shape.S) * blocks(blocks(shape.S, phases), taps)
    z = even(parts, max(1, min(BLOCK_PARTS, threads // x)))
    y = max(1, threads // (x * z))
    count = blocks(shape.K, x) * blocks(parts, z)
    items = shape.N * shape.P * min(spacing, shape.Q) * blocks(blocks(shape.Q, spacing), RUN_LENGTH)
    splits = max(1, min(enough // count, items // y))
    each = blocks(items, splits)
    return blocks(items, each), each, count, (x, y, z)


_flat = float32[::1]
SIGNATURES = [
    (forward(LENGTH), (*(_flat,) * 7, ints(Fused), ints(Conv2dShape))),
    (backward_input(LENGTH), (*(_flat,) * 3, ints(Conv2dShape))),
    (backward_weight(TAPS), (_flat, _flat, float32[:, ::1], int32, ints(Conv2dShape))),
]
