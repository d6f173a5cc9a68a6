"""Max- and average-pooling in NHWC: x (N, H, W, C), y (N, P, Q, C).

    forward   one thread an output; max also stores the winner's r*S + s, counted from the window's start
    backward  one thread an input, which gathers from the windows that hold it, in order: no atomics, the same bits
              every time

Max: padding never wins, the first of equal values in row-major order wins, a NaN wins over everything. Avg: divided by
the shape's divisor, or where that is 0 by the real elements, with ``count_include_pad`` by all of the window that lies
in the padded input. Adaptive windows cover rows floor(p*H/P) to ceil((p+1)*H/P) - 1.
Rungs: ``direct`` alone: R*S comparisons for one output are little beside its traffic of 4 (|x| + |y|) bytes, and
overlapping windows meet in L1.
"""

from numba import cuda, float32, int32, uint8

from .common import THREADS, ZERO, Pool2dShape, blocks, ints

# A window along one axis: taps t in [0, taps) lie at start + t * dilation, some of them outside the input.


@cuda.jit(device=True, inline="always")
def window(output, outputs, size, taps, stride, pad, adaptive):
    """(start, taps) of one output's window along one axis"""
    if adaptive:
        start = output * size // outputs
        return start, ((output + 1) * size + outputs - 1) // outputs - start
    return output * stride - pad, taps


@cuda.jit(device=True, inline="always")
def counted(start, taps, dilation, size, pad, include_pad):
    """elements of a window along one axis that an average counts"""
    if include_pad:
        return min(start + taps, size + pad) - start
    count = 0
    for tap in range(taps):
        if 0 <= start + tap * dilation < size:
            count += 1
    return count


@cuda.jit(device=True, inline="always")
def divisor(top, taps_h, left, taps_w, shape):
    if shape.divisor:
        return float32(shape.divisor)
    rows = counted(top, taps_h, shape.dilation_h, shape.H, shape.pad_h, shape.count_include_pad)
    return float32(rows * counted(left, taps_w, shape.dilation_w, shape.W, shape.pad_w, shape.count_include_pad))


@cuda.jit
def pool2d_forward_max(x, y, index, store_index, shape):
    """``index`` is read as (N, P, Q, C); where ``store_index`` is 0 it is any array, and not written."""
    output = cuda.grid(1)
    if output >= y.size:
        return
    c = output % shape.C
    q = output // shape.C % shape.Q
    p = output // shape.C // shape.Q % shape.P
    n = output // shape.C // shape.Q // shape.P
    top, taps_h = window(p, shape.P, shape.H, shape.R, shape.stride_h, shape.pad_h, shape.adaptive)
    left, taps_w = window(q, shape.Q, shape.W, shape.S, shape.stride_w, shape.pad_w, shape.adaptive)

    winner = -1
    best = ZERO  # read only once there is a winner
    for r in range(taps_h):
        h = top + r * shape.dilation_h
        if h < 0 or h >= shape.H:
            continue
        for s in range(taps_w):
            w = left + s * shape.dilation_w
            if w < 0 or w >= shape.W:
                continue
            value = x[n, h, w, c]
            if winner < 0 or value > best or (value != value and best == best):
                best = value
                winner = r * shape.S + s
    y[n, p, q, c] = best
    if store_index:
        index[n, p, q, c] = winner


@cuda.jit
def pool2d_forward_avg(x, y, shape):
    output = cuda.grid(1)
    if output >= y.size:
        return
    c = output % shape.C
    q = output // shape.C % shape.Q
    p = output // shape.C // shape.Q % shape.P
    n = output // shape.C // shape.Q // shape.P
    top, taps_h = window(p, shape.P, shape.H, shape.R, shape.stride_h, shape.pad_h, shape.adaptive)
    left, taps_w = window(q, shape.Q, shape.W, shape.S, shape.stride_w, shape.pad_w, shape.adaptive)

    total = ZERO
    for r in range(taps_h):
        h = top + r * shape.dilation_h
        if h < 0 or h >= shape.H:
            continue
        for s in range(taps_w):
            w = left + s * shape.dilation_w
            if w >= 0 and w < shape.W:
                total += x[n, h, w, c]
    y[n, p, q, c] = total / divisor(top, taps_h, left, taps_w, shape)


@cuda.jit(device=True, inline="always")
def reach(position, outputs, size, taps, stride, pad, dilation, adaptive):
    """[first, stop): the outputs along one axis whose windows may hold an input position"""
    if adaptive:
        return position * outputs // size, ((position + 1) * outputs + size - 1) // size
    span = dilation * (taps - 1) + 1
    after = position + pad  # a window starts in (after - span, after]
    return max((after - span) // stride + 1, 0), min(after // stride + 1, outputs)


@cuda.jit(device=True, inline="always")
def tap_of(position, start, taps, dilation):
    """the tap that lies on a position, or -1"""
    distance = position - start
    if distance < 0 or distance % dilation != 0 or distance // dilation >= taps:
        return -1
    return distance // dilation


@cuda.jit(device=True, inline="always")
def gather(dy, index, is_max, n, h, w, c, shape):
    """what the windows that hold x[n, h, w, c] hand back to it"""
    first_p, stop_p = reach(h, shape.P, shape.H, shape.R, shape.stride_h, shape.pad_h, shape.dilation_h, shape.adaptive)
    first_q, stop_q = reach(w, shape.Q, shape.W, shape.S, shape.stride_w, shape.pad_w, shape.dilation_w, shape.adaptive)
    total = ZERO
    for p in range(first_p, stop_p):
        top, taps_h = window(p, shape.P, shape.H, shape.R, shape.stride_h, shape.pad_h, shape.adaptive)
        r = tap_of(h, top, taps_h, shape.dilation_h)
        if r < 0:
            continue
        for q in range(first_q, stop_q):
            left, taps_w = window(q, shape.Q, shape.W, shape.S, shape.stride_w, shape.pad_w, shape.adaptive)
            s = tap_of(w, left, taps_w, shape.dilation_w)
            if s < 0:
                continue
            if not is_max:
                total += dy[n, p, q, c] / divisor(top, taps_h, left, taps_w, shape)
            elif index[n, p, q, c] == r * shape.S + s:
                total += dy[n, p, q, c]
    return total


@cuda.jit
def pool2d_backward_max(dy, index, dx, shape):
    position = cuda.grid(1)
    if position >= dx.size:
        return
    c = position % shape.C
    w = position // shape.C % shape.W
    h = position // shape.C // shape.W % shape.H
    n = position // shape.C // shape.W // shape.H
    dx[n, h, w, c] = gather(dy, index, True, n, h, w, c, shape)


@cuda.jit
def pool2d_backward_avg(dy, dx, shape):
    position = cuda.grid(1)
    if position >= dx.size:
        return
    c = position % shape.C
    w = position // shape.C % shape.W
    h = position // shape.C // shape.W % shape.H
    n = position // shape.C // shape.W // shape.H
    dx[n, h, w, c] = gather(dy, dy, False, n, h, w, c, shape)


def forward(launch, kind, shape, x, y, index, block=THREADS):
    grid = blocks(y.size, block)
    if kind == "avg":
        launch(pool2d_forward_avg, grid, block, x, launch.out(y), launch.ints(Pool2dShape, shape))
        return
    stored = y if index is None else launch.out(index)
    numbers = launch.integer(index is not None), launch.ints(Pool2dShape, shape)
    launch(pool2d_forward_max, grid, block, x, launch.out(y), stored, *numbers)


def backward(launch, kind, shape, dy, index, dx, block=THREADS):
    grid = blocks(dx.size, block)
    if kind == "avg":
        launch(pool2d_backward_avg, grid, block, dy, launch.out(dx), launch.ints(Pool2dShape, shape))
    else:
        launch(pool2d_backward_max, grid, block, dy, index, launch.out(dx), launch.ints(Pool2dShape, shape))


_array = float32[:, :, :, ::1]
_indices = (uint8[:, :, :, ::1], int32[:, :, :, ::1])  # one byte where the window has at most 256 taps
SIGNATURES = [
    (pool2d_forward_avg, (_array, _array, ints(Pool2dShape))),
    (pool2d_backward_avg, (_array, _array, ints(Pool2dShape))),
    *((pool2d_forward_max, (_array, _array, index, int32, ints(Pool2dShape))) for index in (*_indices, _array)),
    *((pool2d_backward_max, (_array, index, _array, ints(Pool2dShape))) for index in _indices),
]
