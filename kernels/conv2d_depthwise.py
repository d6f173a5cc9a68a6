"""conv2d, rung ``depthwise``: one input channel a group (groups == C). Filter k works on channel k // multiplier,
multiplier = K / C.

Neighbouring threads have neighbouring channels. Forward and backward_input: a thread adds a strip of LENGTH outputs of
a line in registers, under a window of inputs that slides over it, so that an input is loaded once for all taps of a
row. backward_weight: a thread adds TAPS taps of a filter's row over many pixels, the block its threads in shared
memory, and conv2d_backward_weight_sum the blocks: the same bits every time.

With common = gcd(stride_w, dilation_w), phases = stride_w / common, spacing = dilation_w / common: taps s, s + phases,
s + 2 phases, ... meet inputs that lie spacing * stride_w apart, and the outputs of one tap and one input each lie
spacing apart. So a strip is outputs (backward_input: pixels of dx) at that distance, and one tap further every output
of it wants the input that its neighbour had: of LENGTH inputs one is new. At dilation 1 outputs of a strip are
neighbours; at stride 1 there is one phase.

The block is (channels, strips, lines) threads, in backward_weight (channels, items, parts): any numbers, see
``block_of``. Roofline: 2 R S flops for each output over the 8 bytes of an input and an output at stride 1: 2.25 flops a
byte for 3x3, bound by memory; from about 7x7 on by arithmetic.
"""

from numba import cuda, float32, int32

from ..errors import Unsupported
from .common import SIMULATED, THREADS, ZERO, Conv2dShape, Fused, activate, blocks, fuse, ints, per_channel
from .conv2d_tiled import ENOUGH_BLOCKS, add_splits, partial_sums

LENGTH, TAPS = (3, 2) if SIMULATED else (8, 4)  # sums of a thread: outputs of a strip, taps of a filter's row
STAGED = 64 if SIMULATED else 4096  # elements of filters in shared memory at once, 16 KB
WARP = 4 if SIMULATED else 32
MOST_TAPS = STAGED // WARP  # of a filter's row
MOST_THREADS = THREADS  # of a block: up to 180 registers each
SUMS = MOST_THREADS * TAPS
RUN_LENGTH = 4 if SIMULATED else 16  # at most: outputs of a line that a window of x slides over, in backward_weight


def phases_and_spacing(stride, dilation):
    common = stride
    rest = dilation
    while rest != 0:
        common, rest = rest, common % rest
    return stride // common, dilation // common


axis = cuda.jit(phases_and_spacing, device=True, inline="always")


@cuda.jit(device=True, inline="always")
def first_tap(reach, taps, stride, dilation):
    """The first of ``taps`` that meets position ``reach`` of the padded input from some output, or ``taps``"""
    tap = 0
    while tap < taps and (reach - tap * dilation) % stride != 0:
        tap += 1
    return tap


@cuda.jit(device=True, inline="always")
def strip(lines, width, channels, step):
    """Where a thread works in an array (lines, width, channels): (channel, line, first, whether they exist); the strip
    is the pixels first + i * step, i in [0, LENGTH). Blocks are numbered channels fastest."""
    tiles_channel = (channels + cuda.blockDim.x - 1) // cuda.blockDim.x
    offsets = min(step, width)  # strips that begin at 0, 1, ... interleave
    along = ((width + step - 1) // step + LENGTH - 1) // LENGTH  # strips from an offset on
    tiles_strip = (along + cuda.blockDim.y - 1) // cuda.blockDim.y
    block = cuda.blockIdx.x // tiles_channel
    channel = cuda.blockIdx.x % tiles_channel * cuda.blockDim.x + cuda.threadIdx.x
    number = block // offsets % tiles_strip * cuda.blockDim.y + cuda.threadIdx.y
    line = block // offsets // tiles_strip * cuda.blockDim.z + cuda.threadIdx.z
    first = block % offsets + number * LENGTH * step
    return channel, line, first, channel < channels and number < along and line < lines


@cuda.jit(device=True, inline="always")
def stage(staged, w, k, begin, count):
    """staged[tap, channel of the block] = taps begin + [0, count) of each thread's filter k. All threads call it."""
    cuda.syncthreads()  # nobody reads the rows before these any more
    at = cuda.threadIdx.z * cuda.blockDim.y + cuda.threadIdx.y
    if k < w.shape[0]:
        for tap in range(at, count, cuda.blockDim.y * cuda.blockDim.z):
            staged[tap * cuda.blockDim.x + cuda.threadIdx.x] = w[k, begin + tap]
    cuda.syncthreads()


@cuda.jit(device=True, inline="always")
def slide(total, window, source, line, begin, step, channel, taps, staged, tap, tap_step):
    """total[i] += weight of tap j * input at position i + j, for j in [0, taps).

    The input at a position is source[line, begin + position * step, channel], the weight of tap j
    staged[tap + j * tap_step]. The window is a ring, position p in window[p % LENGTH]: a new input takes the place of
    the one that no tap wants any more.
    """
    for i in range(LENGTH - 1):
        column = begin + i * step
        window[i] = source[line, column, channel] if 0 <= column < source.shape[1] else ZERO
    for first in range(0, taps, LENGTH):
        for j in range(LENGTH):
            if first + j < taps:
                column = begin + (first + j + LENGTH - 1) * step
                new = source[line, column, channel] if 0 <= column < source.shape[1] else ZERO
                window[(j + LENGTH - 1) % LENGTH] = new
                weight = staged[tap + (first + j) * tap_step]
                for i in range(LENGTH):
                    total[i] += window[(i + j) % LENGTH] * weight


@cuda.jit
def conv2d_forward_depthwise(x, w, y, bias, scale, shift, residual, fused, shape):
    """x (N*H, W, C), w (K, R*S), y and residual (N*P, Q, K)"""
    staged = cuda.shared.array(STAGED, float32)
    total = cuda.local.array(LENGTH, float32)
    window = cuda.local.array(LENGTH, float32)
    phases, spacing = axis(shape.stride_w, shape.dilation_w)
    channel, line, first, inside = strip(shape.N * shape.P, shape.Q, shape.K, spacing)
    n = line // shape.P
    p = line % shape.P
    c = channel // (shape.K // shape.C)
    rows = min(STAGED // (shape.S * cuda.blockDim.x), shape.R)  # of the filters at once

    for i in range(LENGTH):
        total[i] = ZERO
    for top in range(0, shape.R, rows):
        here = min(rows, shape.R - top)
        stage(staged, w, channel, top * shape.S, here * shape.S)
        if inside:
            for row in range(here):
                h = p * shape.stride_h - shape.pad_h + (top + row) * shape.dilation_h
                if 0 <= h < shape.H:
                    for phase in range(min(phases, shape.S)):
                        begin = first * shape.stride_w - shape.pad_w + phase * shape.dilation_w
                        step = spacing * shape.stride_w
                        taps = (shape.S - phase + phases - 1) // phases
                        tap = (row * shape.S + phase) * cuda.blockDim.x + cuda.threadIdx.x
                        tap_step = phases * cuda.blockDim.x
                        slide(total, window, x, n * shape.H + h, begin, step, c, taps, staged, tap, tap_step)

    if inside:
        before, factor, after = per_channel(channel, bias, scale, shift, fused)
        for i in range(LENGTH):
            q = first + i * spacing
            if q < shape.Q:
                value = (total[i] + before) * factor + after
                if fused.residual:
                    value += residual[line, q, channel]
                y[line, q, channel] = activate(value, fused)


@cuda.jit
def conv2d_backward_input_depthwise(dy, w, dx, shape):
    """dy (N*P, Q, K), w (K, R*S), dx (N*H, W, C)

    The pixels of a strip meet the same taps, every phases-th: no product is spent on zeros that a stride would put
    between the elements of dy. One tap further they meet the element of dy before, so the strip runs backwards:
    total[i] is pixel LENGTH - 1 - i.
    """
    staged = cuda.shared.array(STAGED, float32)
    total = cuda.local.array(LENGTH, float32)
    window = cuda.local.array(LENGTH, float32)
    phases, spacing = axis(shape.stride_w, shape.dilation_w)
    phases_h = axis(shape.stride_h, shape.dilation_h)[0]
    step = spacing * shape.stride_w
    channel, line, first, inside = strip(shape.N * shape.H, shape.W, shape.C, step)
    n = line // shape.H
    h = line % shape.H
    multiplier = shape.K // shape.C
    rows = min(STAGED // (shape.S * cuda.blockDim.x), shape.R)

    first_s = first_tap(first + shape.pad_w, shape.S, shape.stride_w, shape.dilation_w)
    last_pixel = first + (LENGTH - 1) * step
    end = (last_pixel + shape.pad_w - first_s * shape.dilation_w) // shape.stride_w  # the q whose tap first_s it is
    taps = (shape.S - first_s + phases - 1) // phases
    first_r = first_tap(h + shape.pad_h, shape.R, shape.stride_h, shape.dilation_h)

    for i in range(LENGTH):
        total[i] = ZERO
    for i in range(multiplier):
        k = channel * multiplier + i
        r = first_r
        for top in range(0, shape.R, rows):
            here = min(rows, shape.R - top)
            stage(staged, w, k, top * shape.S, here * shape.S)
            while inside and r < top + here:
                reach = h + shape.pad_h - r * shape.dilation_h
                p = reach // shape.stride_h
                if 0 <= p < shape.P:
                    tap = ((r - top) * shape.S + first_s) * cuda.blockDim.x + cuda.threadIdx.x
                    tap_step = phases * cuda.blockDim.x
                    slide(total, window, dy, n * shape.P + p, end, -spacing, k, taps, staged, tap, tap_step)
                r += phases_h

    if inside:
        for i in range(LENGTH):
            pixel = last_pixel - i * step
            if pixel < shape.W:
                dx[line, pixel, channel] = total[i]


@cuda.jit
def conv2d_backward_weight_depthwise(x, dy, partial, items_per_split, shape):
    """x (N*H, W, C), dy (N*P, Q, K), partial (splits, K, R*S)

    An item is a run of outputs of a line; a block adds items_per_split of them, each row of its threads every
    blockDim.y-th. A part of a filter is TAPS taps of row r: s = first_s + j * phases.
    """
    shared = cuda.shared.array(SUMS, float32)  # [threadIdx.y][threadIdx.z][tap][channel of the block]
    total = cuda.local.array(TAPS, float32)
    window = cuda.local.array(TAPS, float32)
    phases, spacing = axis(shape.stride_w, shape.dilation_w)
    used_phases = min(phases, shape.S)
    chunks = ((shape.S + phases - 1) // phases + TAPS - 1) // TAPS  # parts of a phase
    parts = shape.R * used_phases * chunks
    tiles_channel = (shape.K + cuda.blockDim.x - 1) // cuda.blockDim.x
    tiles_part = (parts + cuda.blockDim.z - 1) // cuda.blockDim.z
    block_channel = cuda.blockIdx.x % tiles_channel * cuda.blockDim.x
    block_part = cuda.blockIdx.x // tiles_channel % tiles_part * cuda.blockDim.z
    split = cuda.blockIdx.x // tiles_channel // tiles_part
    k = block_channel + cuda.threadIdx.x
    c = k // (shape.K // shape.C)
    part = block_part + cuda.threadIdx.z
    r = part // chunks // used_phases
    first_s = part // chunks % used_phases + part % chunks * TAPS * phases

    offsets = min(spacing, shape.Q)
    most = (shape.Q + spacing - 1) // spacing  # outputs from an offset on
    runs = (most + RUN_LENGTH - 1) // RUN_LENGTH
    length = (most + runs - 1) // runs
    items = shape.N * shape.P * offsets * runs
    begin_item = split * items_per_split
    end_item = min(begin_item + items_per_split, items)

    for j in range(TAPS):
        total[j] = ZERO
    if k < shape.K and r < shape.R:
        for item in range(begin_item + cuda.threadIdx.y, end_item, cuda.blockDim.y):
            run = item % (offsets * runs)
            line = item // (offsets * runs)  # of dy
            h = line % shape.P * shape.stride_h - shape.pad_h + r * shape.dilation_h
            if 0 <= h < shape.H:
                first = run % offsets + run // offsets * length * spacing
                count = min((shape.Q - first + spacing - 1) // spacing, length)
                begin = first * shape.stride_w - shape.pad_w + first_s * shape.dilation_w
                row = line // shape.P * shape.H + h  # of x
                # output i and tap j meet the input at position i + j, which lies in window[(i + j) % TAPS]
                for j in range(TAPS - 1):
                    column = begin + j * spacing * shape.stride_w
                    window[j] = x[row, column, c] if 0 <= column < shape.W else ZERO
                for turn in range(0, count, TAPS):
                    for i in range(TAPS):
                        if turn + i < count:
                            column = begin + (turn + i + TAPS - 1) * spacing * shape.stride_w
                            new = x[row, column, c] if 0 <= column < shape.W else ZERO
                            window[(i + TAPS - 1) % TAPS] = new
                            gradient = dy[line, first + (turn + i) * spacing, k]
                            for j in range(TAPS):
                                total[j] += window[(i + j) % TAPS] * gradient

    width = cuda.blockDim.z * TAPS * cuda.blockDim.x  # sums of the threads of a threadIdx.y
    for j in range(TAPS):
        place = (cuda.threadIdx.z * TAPS + j) * cuda.blockDim.x + cuda.threadIdx.x
        shared[cuda.threadIdx.y * width + place] = total[j]
    cuda.syncthreads()
    at = (cuda.threadIdx.z * cuda.blockDim.y + cuda.threadIdx.y) * cuda.blockDim.x + cuda.threadIdx.x
    for i in range(at, width, cuda.blockDim.x * cuda.blockDim.y * cuda.blockDim.z):
        filter_k = block_channel + i % cuda.blockDim.x
        part = block_part + i // cuda.blockDim.x // TAPS
        r = part // chunks // used_phases
        s = part // chunks % used_phases + (part % chunks * TAPS + i // cuda.blockDim.x % TAPS) * phases
        if filter_k < shape.K and r < shape.R and s < shape.S:
            result = ZERO
            for threads_y in range(cuda.blockDim.y):
                result += shared[threads_y * width + i]
            partial[split, filter_k, r * shape.S + s] = result


def refuse(shape, threads):
    """Raises Unsupported where the kernels do not take the shape or the block."""
    if shape.groups != shape.C:
        raise Unsupported(
            f"depthwise: takes one input channel a group (groups == C), received groups {shape.groups} and C {shape.C}:"
            f" {shape.x}, {shape.w}"
        )
    if shape.S > MOST_TAPS:
        raise Unsupported(f"depthwise: takes rows of filters of at most {MOST_TAPS} taps, received S {shape.S}")
    if not WARP <= threads <= MOST_THREADS:
        raise Unsupported(f"depthwise: takes blocks of {WARP} to {MOST_THREADS} threads, received {threads}")


def block_of(threads, channels, along):
    """(x, y, z): at most ``threads``; x for channels, then y for what lies ``along`` a line, z for the rest"""
    x = min(WARP, channels)
    y = min(threads // x, along)
    return x, y, min(threads // x // y, 64)  # 64: CUDA's limit


def _strips(shape, lines, width, channels, step, threads):
    """(grid, block), as ``strip`` numbers them"""
    refuse(shape, threads)
    along = blocks(blocks(width, step), LENGTH)
    x, y, z = block_of(threads, channels, along)
    return blocks(channels, x) * min(step, width) * blocks(along, y) * blocks(lines, z), (x, y, z)


def forward(launch, shape, x, w, y, epilogue, threads=THREADS):
    grid, block = _strips(
        shape, shape.N * shape.P, shape.Q, shape.K, phases_and_spacing(shape.stride_w, shape.dilation_w)[1], threads
    )
    x, w, y = x.reshape(-1, shape.W, shape.C), w.reshape(shape.K, -1), y.reshape(-1, shape.Q, shape.K)
    args = x, w, launch.out(y), *fuse(launch, epilogue, x.reshape(-1), y), launch.ints(Conv2dShape, shape)
    launch(conv2d_forward_depthwise, grid, block, *args)


def backward_input(launch, shape, dy, w, dx, threads=THREADS):
    step = phases_and_spacing(shape.stride_w, shape.dilation_w)[1] * shape.stride_w
    grid, block = _strips(shape, shape.N * shape.H, shape.W, shape.C, step, threads)
    dy, w, dx = dy.reshape(-1, shape.Q, shape.K), w.reshape(shape.K, -1), dx.reshape(-1, shape.W, shape.C)
    launch(conv2d_backward_input_depthwise, grid, block, dy, w, launch.out(dx), launch.ints(Conv2dShape, shape))


def backward_weight(launch, shape, x, dy, dw, threads=THREADS):
    refuse(shape, threads)
    phases, spacing = phases_and_spacing(shape.stride_w, shape.dilation_w)
    runs = blocks(blocks(shape.Q, spacing), RUN_LENGTH)
    items = shape.N * shape.P * min(spacing, shape.Q) * runs
    parts = shape.R * min(phases, shape.S) * blocks(blocks(shape.S, phases), TAPS)
    channels = min(WARP, shape.K)
    z = min(parts, threads // channels, 8)  # parts of a filter share the elements of dy
    y = threads // channels // z
    tiles = blocks(shape.K, channels) * blocks(parts, z)
    items_per_split = blocks(items, max(min(ENOUGH_BLOCKS // tiles, items // y), 1))
    splits = blocks(items, items_per_split)
    partial = partial_sums(launch, shape, dw, splits)
    x, dy, out = x.reshape(-1, shape.W, shape.C), dy.reshape(-1, shape.Q, shape.K), launch.out(partial)
    args = launch.integer(items_per_split), launch.ints(Conv2dShape, shape)
    launch(conv2d_backward_weight_depthwise, splits * tiles, (channels, y, z), x, dy, out, *args)
    add_splits(launch, partial, dw)


_cube, _matrix = float32[:, :, ::1], float32[:, ::1]
_channels = (float32[::1],) * 3  # bias, scale, shift
SIGNATURES = [
    (conv2d_forward_depthwise, (_cube, _matrix, _cube, *_channels, _cube, ints(Fused), ints(Conv2dShape))),
    (conv2d_backward_input_depthwise, (_cube, _matrix, _cube, ints(Conv2dShape))),
    (conv2d_backward_weight_depthwise, (_cube, _cube, _cube, int32, ints(Conv2dShape))),
]
