"""Normalisation of x (N, L, G, D) to mean 0 and variance 1 over L and D, for each n and g; the epilogue as a pass.

    u  = (x - mean) / sqrt(variance + epsilon);  y = activation(u * gain + offset + residual)
    dz = dy, 0 where relu's y <= 0;  du = dz * gain;  dgain = sum of dz * u, doffset = sum of dz
    dx = (du - average of du - u * average of du * u) / sqrt(variance + epsilon), averages over L and D

Shapes: arrays like x are seen as (N, L, C), C = G*D channels; gain and offset (C,); mean and variance (N, G).
Rungs: two walks, by shape. By columns, L > 1 (batch, group, instance norm): a block is ``lanes`` neighbouring channels
by ``rows`` threads along L, powers of two; it takes ``chunk`` rows of one n, and ``splits`` blocks share a column. A
thread sums about its own first value, and means are kept relative to the group's first, so that data far from 0 loses
no digits; the block joins its threads pairwise, a second kernel joins the blocks, a third writes. By rows, L = 1 (layer
norm): one block has the D neighbours of one n and g, which meet in shared memory.
Roofline: bound by memory. By columns forward reads x twice and writes y, 12 bytes an element; backward moves 20, after
relu 28. By rows 8 and 12: x is read again from the cache.
"""

from collections import namedtuple

import numpy as np
from numba import cuda, float32, int32

from .common import (
    ONE,
    SIMULATED,
    THREADS,
    ZERO,
    Fused,
    NormShape,
    activate,
    blocks,
    fuse,
    ints,
    per_channel,
    sqrt,
    tree_block,
)

LANES = 4 if SIMULATED else 32  # at most: a warp reads 32 * 4 B = one line of 128 B
ENOUGH_BLOCKS = 4 if SIMULATED else 264
ROWS_PER_THREAD = 2 if SIMULATED else 8  # of the kernels that write

# 1 for each array that is there; an absent one's place has any other, which is never touched
Parts = namedtuple("Parts", ["gain", "offset", "residual", "relu"])
Wanted = namedtuple("Wanted", ["gain", "relu", "dx", "dgain", "doffset", "dresidual"])


@cuda.jit(device=True, inline="always")
def column_place(shape, chunk, splits):
    """(n, channel, split, first row, end): this thread's rows are first, first + blockDim.y, ... below end"""
    tiles = (shape.G * shape.D + cuda.blockDim.x - 1) // cuda.blockDim.x
    c = cuda.blockIdx.x % tiles * cuda.blockDim.x + cuda.threadIdx.x
    split = cuda.blockIdx.x // tiles % splits
    n = cuda.blockIdx.x // tiles // splits
    return n, c, split, split * chunk + cuda.threadIdx.y, min((split + 1) * chunk, shape.L)


@cuda.jit(device=True, inline="always")
def add_block_rows(firsts, seconds, first, second):
    """the sums of two values over the threads with the same threadIdx.x, in that of threadIdx.y = 0"""
    mine = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    firsts[mine] = first
    seconds[mine] = second
    half = cuda.blockDim.y // 2
    while half > 0:
        cuda.syncthreads()
        if cuda.threadIdx.y < half:
            firsts[mine] += firsts[mine + half * cuda.blockDim.x]
            seconds[mine] += seconds[mine + half * cuda.blockDim.x]
        half //= 2
    return firsts[mine], seconds[mine]


@cuda.jit(device=True, inline="always")
def join(count, mean, square, more, other_mean, other_square):
    """count, mean and sum of squares about it of two sets together (Chan, Golub and LeVeque 1979)"""
    total = count + more
    d = other_mean - mean
    return total, mean + d * (more / total), square + (other_square + d * d * (count * more / total))


@cuda.jit(device=True, inline="always")
def join_block_rows(counts, means, squares, count, mean, square):
    """as add_block_rows, of (count, mean, square)"""
    mine = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    counts[mine] = count
    means[mine] = mean
    squares[mine] = square
    half = cuda.blockDim.y // 2
    while half > 0:
        cuda.syncthreads()
        other = mine + half * cuda.blockDim.x
        if cuda.threadIdx.y < half and counts[other] > ZERO:
            counts[mine], means[mine], squares[mine] = join(
                counts[mine], means[mine], squares[mine], counts[other], means[other], squares[other]
            )
        half //= 2
    return counts[mine], means[mine], squares[mine]


@cuda.jit(device=True, inline="always")
def masked(dy, y, relu):
    """dz: a NaN in y fails the comparison and lets dy through"""
    return ZERO if relu and y <= ZERO else dy


# ---- one pass: y = activation((x + bias) * scale + shift + residual); y may be x


@cuda.jit
def apply_epilogue_direct(x, y, bias, scale, shift, residual, fused, chunk, splits, shape):
    n, c, _, first, end = column_place(shape, chunk, splits)
    if c < shape.G:
        before, factor, after = per_channel(c, bias, scale, shift, fused)
        for row in range(first, end, cuda.blockDim.y):
            value = (x[n, row, c] + before) * factor + after
            if fused.residual:
                value += residual[n, row, c]
            y[n, row, c] = activate(value, fused)


# ---- by columns, forward


@cuda.jit
def norm_channel_moments(x, partial, chunk, splits, shape):
    """partial (N, splits, 2, C): mean, less the group's first value, and sum of squares about it, of a chunk's rows"""
    counts = cuda.shared.array(THREADS, float32)
    means = cuda.shared.array(THREADS, float32)
    squares = cuda.shared.array(THREADS, float32)
    n, c, split, first, end = column_place(shape, chunk, splits)
    busy = c < shape.G * shape.D

    count = ZERO
    mean = ZERO
    square = ZERO
    if busy and first < end:
        start = x[n, first, c]
        for row in range(first, end, cuda.blockDim.y):
            d = x[n, row, c] - start
            mean += d
            square += d * d
            count += ONE
        mean /= count
        square -= mean * mean * count
        mean += start - x[n, 0, c // shape.D * shape.D]
    count, mean, square = join_block_rows(counts, means, squares, count, mean, square)
    if busy and cuda.threadIdx.y == 0:
        partial[n, split, 0, c] = mean
        partial[n, split, 1, c] = square


@cuda.jit
def norm_group_moments(x, partial, mean, variance, chunk, splits, shape):
    """one block a group: its D channels and ``splits`` chunks joined"""
    counts = cuda.shared.array(THREADS, float32)
    means = cuda.shared.array(THREADS, float32)
    squares = cuda.shared.array(THREADS, float32)
    n = cuda.blockIdx.x // shape.G
    g = cuda.blockIdx.x % shape.G

    count = ZERO
    middle = ZERO
    square = ZERO
    for i in range(cuda.threadIdx.y, splits * shape.D, cuda.blockDim.y):
        split = i // shape.D
        c = g * shape.D + i % shape.D
        more = float32(min(chunk, shape.L - split * chunk))
        part = partial[n, split]
        count, middle, square = join(count, middle, square, more, part[0, c], part[1, c])
    count, middle, square = join_block_rows(counts, means, squares, count, middle, square)
    if cuda.threadIdx.y == 0:
        mean[n, g] = x[n, 0, g * shape.D] + middle
        variance[n, g] = square / count


@cuda.jit
def norm_apply(x, gain, offset, residual, y, mean, variance, epsilon, parts, chunk, splits, shape):
    n, c, _, first, end = column_place(shape, chunk, splits)
    if c < shape.G * shape.D:
        g = c // shape.D
        middle = mean[n, g]
        scale = ONE / sqrt(variance[n, g] + epsilon)
        if parts.gain:
            scale *= gain[c]
        add = offset[c] if parts.offset else ZERO
        for row in range(first, end, cuda.blockDim.y):
            value = (x[n, row, c] - middle) * scale + add
            if parts.residual:
                value += residual[n, row, c]
            y[n, row, c] = ZERO if parts.relu and value <= ZERO else value


# ---- by columns, backward


@cuda.jit
def norm_channel_sums(x, mean, variance, y, dy, partial, epsilon, relu, statistic_a_row, chunk, splits, shape):
    """partial (N, splits, 2, C): sums of dz and dz * u over a chunk's rows. ``statistic_a_row``: each row has a mean of
    its own, and shape is (1, N, G, D), the walk of a layer norm for the gradients of its parameters"""
    firsts = cuda.shared.array(THREADS, float32)
    seconds = cuda.shared.array(THREADS, float32)
    n, c, split, first, end = column_place(shape, chunk, splits)
    g = c // shape.D
    busy = c < shape.G * shape.D

    sum_dz = ZERO
    sum_dzu = ZERO
    if busy:
        for row in range(first, end, cuda.blockDim.y):
            statistic = row if statistic_a_row else n
            dz = masked(dy[n, row, c], y[n, row, c], relu)
            sum_dz += dz
            sum_dzu += dz * ((x[n, row, c] - mean[statistic, g]) / sqrt(variance[statistic, g] + epsilon))
    sum_dz, sum_dzu = add_block_rows(firsts, seconds, sum_dz, sum_dzu)
    if busy and cuda.threadIdx.y == 0:
        partial[n, split, 0, c] = sum_dz
        partial[n, split, 1, c] = sum_dzu


@cuda.jit
def norm_group_sums(partial, gain, averages, splits, has_gain, shape):
    """averages (N, G, 2) of du and du * u; one block a group"""
    firsts = cuda.shared.array(THREADS, float32)
    seconds = cuda.shared.array(THREADS, float32)
    n = cuda.blockIdx.x // shape.G
    g = cuda.blockIdx.x % shape.G
    sum_du = ZERO
    sum_duu = ZERO
    for i in range(cuda.threadIdx.y, splits * shape.D, cuda.blockDim.y):
        c = g * shape.D + i % shape.D
        part = partial[n, i // shape.D]
        factor = gain[c] if has_gain else ONE
        sum_du += part[0, c] * factor
        sum_duu += part[1, c] * factor
    sum_du, sum_duu = add_block_rows(firsts, seconds, sum_du, sum_duu)
    if cuda.threadIdx.y == 0:
        count = float32(shape.L) * float32(shape.D)
        averages[n, g, 0] = sum_du / count
        averages[n, g, 1] = sum_duu / count


@cuda.jit
def norm_parameter_gradients(partial, dgain, doffset, wanted):
    """dgain, doffset (C,) from partial (N, splits, 2, C); one thread a channel"""
    c = cuda.grid(1)
    if c < partial.shape[3]:
        sum_dz = ZERO
        sum_dzu = ZERO
        for n in range(partial.shape[0]):
            for split in range(partial.shape[1]):
                sum_dz += partial[n, split, 0, c]
                sum_dzu += partial[n, split, 1, c]
        if wanted.dgain:
            dgain[c] = sum_dzu
        if wanted.doffset:
            doffset[c] = sum_dz


@cuda.jit
def norm_backward_apply(x, gain, mean, variance, y, dy, averages, dx, dresidual, epsilon, wanted, chunk, splits, shape):
    n, c, _, first, end = column_place(shape, chunk, splits)
    if c < shape.G * shape.D:
        g = c // shape.D
        middle = mean[n, g]
        rstd = ONE / sqrt(variance[n, g] + epsilon)
        factor = gain[c] if wanted.gain else ONE
        average = averages[n, g, 0]
        slope = averages[n, g, 1]
        for row in range(first, end, cuda.blockDim.y):
            dz = masked(dy[n, row, c], y[n, row, c], wanted.relu)
            if wanted.dresidual:
                dresidual[n, row, c] = dz
            if wanted.dx:
                u = (x[n, row, c] - middle) * rstd
                dx[n, row, c] = rstd * (dz * factor - average - u * slope)


# ---- by rows: one block a row of D, which is x[n, 0, g * D : (g + 1) * D]


@cuda.jit
def norm_forward_rows(x, gain, offset, residual, y, mean, variance, epsilon, parts, shape):
    firsts = cuda.shared.array(THREADS, float32)
    seconds = cuda.shared.array(THREADS, float32)
    n = cuda.blockIdx.x // shape.G
    g = cuda.blockIdx.x % shape.G
    D = float32(shape.D)

    total = ZERO
    for i in range(cuda.threadIdx.y, shape.D, cuda.blockDim.y):
        total += x[n, 0, g * shape.D + i]
    add_block_rows(firsts, seconds, total, ZERO)
    cuda.syncthreads()
    near = firsts[0] / D  # the mean but for the rounding of the sum
    cuda.syncthreads()

    total = ZERO
    square = ZERO
    for i in range(cuda.threadIdx.y, shape.D, cuda.blockDim.y):
        d = x[n, 0, g * shape.D + i] - near
        total += d
        square += d * d
    add_block_rows(firsts, seconds, total, square)
    cuda.syncthreads()
    beyond = firsts[0] / D
    var = seconds[0] / D - beyond * beyond
    rstd = ONE / sqrt(var + epsilon)
    if cuda.threadIdx.y == 0:
        mean[n, g] = near + beyond
        variance[n, g] = var

    for i in range(cuda.threadIdx.y, shape.D, cuda.blockDim.y):
        c = g * shape.D + i
        value = (x[n, 0, c] - near - beyond) * rstd
        if parts.gain:
            value *= gain[c]
        if parts.offset:
            value += offset[c]
        if parts.residual:
            value += residual[n, 0, c]
        y[n, 0, c] = ZERO if parts.relu and value <= ZERO else value


@cuda.jit
def norm_backward_rows(x, gain, mean, variance, y, dy, dx, dresidual, epsilon, wanted, shape):
    firsts = cuda.shared.array(THREADS, float32)
    seconds = cuda.shared.array(THREADS, float32)
    n = cuda.blockIdx.x // shape.G
    g = cuda.blockIdx.x % shape.G
    D = float32(shape.D)
    middle = mean[n, g]
    rstd = ONE / sqrt(variance[n, g] + epsilon)

    sum_du = ZERO
    sum_duu = ZERO
    for i in range(cuda.threadIdx.y, shape.D, cuda.blockDim.y):
        c = g * shape.D + i
        dz = masked(dy[n, 0, c], y[n, 0, c], wanted.relu)
        if wanted.dresidual:
            dresidual[n, 0, c] = dz
        du = dz * gain[c] if wanted.gain else dz
        sum_du += du
        sum_duu += du * ((x[n, 0, c] - middle) * rstd)
    add_block_rows(firsts, seconds, sum_du, sum_duu)
    cuda.syncthreads()
    average = firsts[0] / D
    slope = seconds[0] / D

    if wanted.dx:
        for i in range(cuda.threadIdx.y, shape.D, cuda.blockDim.y):
            c = g * shape.D + i
            dz = masked(dy[n, 0, c], y[n, 0, c], wanted.relu)
            du = dz * gain[c] if wanted.gain else dz
            dx[n, 0, c] = rstd * (du - average - (x[n, 0, c] - middle) * rstd * slope)


# ---- the host's part


def _columns(shape, sums, threads):
    """(blocks, block, chunk, splits). ``sums``: as few splits as fill a GPU, since each leaves partial results."""
    C = shape.G * shape.D
    lanes = min(LANES, threads, 1 << (C - 1).bit_length())
    rows = min(threads // lanes, 1 << (shape.L - 1).bit_length())
    columns = shape.N * blocks(C, lanes)
    chunk = ROWS_PER_THREAD * rows
    if sums:
        chunk = blocks(shape.L, max(1, min(blocks(ENOUGH_BLOCKS, columns), shape.L // (2 * chunk))))
    splits = blocks(shape.L, chunk)
    return columns * splits, (lanes, rows), chunk, splits


def _threads(length, most):
    """The block of a kernel with one block a group"""
    return (1, min(most, 1 << (length - 1).bit_length()))


def _outputs(launch, arrays, like):
    """The arrays as outputs of ``like``'s shape; ``like`` itself, which is never touched, where one is absent"""
    return [like if a is None else launch.out(a.reshape(like.shape)) for a in arrays]


def apply_epilogue(launch, x, y, epilogue, block=THREADS):
    C = x.shape[-1]
    size = (1, x.size // C, C)
    walk = NormShape(*size, 1)
    grid, block, chunk, splits = _columns(walk, False, tree_block(block))
    x, y = x.reshape(size), y.reshape(size)
    bias, scale, shift, residual, fused = fuse(launch, epilogue, x.reshape(-1), y)
    numbers = fused, launch.integer(chunk), launch.integer(splits), launch.ints(NormShape, tuple(walk))
    launch(apply_epilogue_direct, grid, block, x, launch.out(y), bias, scale, shift, residual, *numbers)


def forward(launch, shape, x, gain, offset, residual, y, mean, variance, epsilon, activation, block=THREADS):
    threads = tree_block(block)
    size = (shape.N, shape.L, shape.G * shape.D)
    x, y = x.reshape(size), y.reshape(size)
    there = [int(part is not None) for part in (gain, offset, residual)]
    parts = launch.ints(Parts, (*there, int(activation == "relu")))
    gain, offset = (x.reshape(-1) if part is None else part.reshape(-1) for part in (gain, offset))
    residual = x if residual is None else residual.reshape(size)
    epsilon, numbers = np.float32(epsilon), launch.ints(NormShape, shape)
    operands = x, gain, offset, residual, launch.out(y)
    if shape.L == 1:
        statistics = launch.out(mean), launch.out(variance)
        grid, block = shape.N * shape.G, _threads(shape.D, threads)
        launch(norm_forward_rows, grid, block, *operands, *statistics, epsilon, parts, numbers)
        return
    grid, block, chunk, splits = _columns(shape, True, threads)
    walk = launch.integer(chunk), launch.integer(splits), numbers
    partial = launch.workspace((shape.N, splits, 2, size[2]))
    launch(norm_channel_moments, grid, block, x, launch.out(partial), *walk)
    statistics = launch.out(mean), launch.out(variance)
    launch(norm_group_moments, shape.N * shape.G, _threads(splits * shape.D, threads), x, partial, *statistics, *walk)
    grid, block, chunk, splits = _columns(shape, False, threads)
    walk = launch.integer(chunk), launch.integer(splits), numbers
    launch(norm_apply, grid, block, *operands, mean, variance, epsilon, parts, *walk)


def backward(
    launch, shape, x, gain, mean, variance, y, dy, dx, dgain, doffset, dresidual, epsilon, activation, block=THREADS
):
    threads = tree_block(block)
    size = (shape.N, shape.L, shape.G * shape.D)
    relu = activation == "relu"
    there = [int(array is not None) for array in (dx, dgain, doffset, dresidual)]
    wanted = launch.ints(Wanted, (int(gain is not None), int(relu), *there))
    x, dy = x.reshape(size), dy.reshape(size)
    y = y.reshape(size) if relu else dy
    flat = x.reshape(-1)
    has_gain, gain = launch.integer(gain is not None), flat if gain is None else gain.reshape(-1)
    epsilon, numbers = np.float32(epsilon), launch.ints(NormShape, shape)
    known = x, gain, mean, variance, y, dy
    spatial = dx is not None or dresidual is not None
    outputs = _outputs(launch, (dx, dresidual), x)
    if shape.L == 1 and spatial:
        grid, block = shape.N * shape.G, _threads(shape.D, threads)
        launch(norm_backward_rows, grid, block, *known, *outputs, epsilon, wanted, numbers)
    if shape.L == 1 and dgain is None and doffset is None:
        return
    summed = NormShape(1, shape.N, shape.G, shape.D) if shape.L == 1 else shape
    lines = (summed.N, summed.L, size[2])
    grid, block, chunk, splits = _columns(summed, True, threads)
    room = launch.workspace((summed.N * splits * 2 * size[2] + shape.N * shape.G * 2,))
    partial = room[: summed.N * splits * 2 * size[2]].reshape(summed.N, splits, 2, size[2])
    averages = room[partial.size :].reshape(shape.N, shape.G, 2)
    arrays = x.reshape(lines), mean, variance, y.reshape(lines), dy.reshape(lines), launch.out(partial)
    flags = launch.integer(relu), launch.integer(shape.L == 1)
    walk = (
        launch.integer(chunk),
        launch.integer(splits),
        launch.ints(NormShape, tuple(summed) if shape.L == 1 else shape),
    )
    launch(norm_channel_sums, grid, block, *arrays, epsilon, *flags, *walk)
    if dgain is not None or doffset is not None:
        gradients = _outputs(launch, (dgain, doffset), partial[0, 0, 0])
        launch(norm_parameter_gradients, blocks(size[2], threads), threads, partial, *gradients, wanted)
    if shape.L > 1 and spatial:
        groups, block = shape.N * shape.G, _threads(splits * shape.D, threads)
        launch(norm_group_sums, groups, block, partial, gain, launch.out(averages), walk[1], has_gain, numbers)
        grid, block, chunk, splits = _columns(shape, False, threads)
        walk = launch.integer(chunk), launch.integer(splits), numbers
        launch(norm_backward_apply, grid, block, *known, averages, *outputs, epsilon, wanted, *walk)


_matrices = float32[:, :, ::1]
_statistics = float32[:, ::1]
_partial = float32[:, :, :, ::1]
_channels = float32[::1]
_walk = (int32, int32, ints(NormShape))
SIGNATURES = [
    (apply_epilogue_direct, (*(_matrices,) * 2, *(_channels,) * 3, _matrices, ints(Fused), *_walk)),
    (norm_channel_moments, (_matrices, _partial, *_walk)),
    (norm_group_moments, (_matrices, _partial, _statistics, _statistics, *_walk)),
    (
        norm_apply,
        (_matrices, _channels, _channels, _matrices, _matrices, _statistics, _statistics, float32, ints(Parts), *_walk),
    ),
    (
        norm_channel_sums,
        (_matrices, _statistics, _statistics, _matrices, _matrices, _partial, float32, int32, int32, *_walk),
    ),
    (norm_group_sums, (_partial, _channels, _matrices, int32, int32, ints(NormShape))),
    (norm_parameter_gradients, (_partial, _channels, _channels, ints(Wanted))),
    (
        norm_backward_apply,
        (
            *(_matrices, _channels, _statistics, _statistics, _matrices, _matrices),
            *(_matrices, _matrices, _matrices, float32, ints(Wanted), *_walk),
        ),
    ),
    (
        norm_forward_rows,
        (
            *(_matrices, _channels, _channels, _matrices, _matrices, _statistics, _statistics),
            *(float32, ints(Parts), ints(NormShape)),
        ),
    ),
    (
        norm_backward_rows,
        (
            *(_matrices, _channels, _statistics, _statistics, _matrices, _matrices, _matrices, _matrices),
            *(float32, ints(Wanted), ints(NormShape)),
        ),
    ),
]
