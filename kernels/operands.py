"""The operands of a convolution as matrices, found element by element while a tile is loaded. Per group, with
Cg = C/groups and Kg = K/groups:

                      rows of a             rows of b             reduction, fastest last
    forward           pixels (n, p, q)      k in [0, Kg)          (r, s, c)
    backward_input    pixels of a phase     c in [0, Cg)          taps of the phase (t, u, k), phases.py
    backward_weight   k in [0, Kg)          taps (r, s, c)        (n, p, q)

A thread loads ``loads`` elements of a tile in each step, into ``held``. Where neighbours along the reduction are
neighbours in memory (``along k``), it takes one position of the step and rows ``step`` apart, of which it knows once
and for all where they begin; else one row, and positions ``step`` apart. An element's offset is its row's plus its
tap's, and the next tap is found without a division.

Arrays come flat. What does not exist is loaded as zero.
"""

from numba import cuda

from .common import ZERO, unsigned

NOWHERE = -(1 << 30)  # of a row outside: no tap leads from it into an image


@cuda.jit(device=True, inline="always")
def after(r, s, channel, steps, columns, channels):
    """Where a reduction over (r, s, channel), s in [0, columns), is ``steps`` further on"""
    channel += steps
    while channel >= channels:
        channel -= channels
        s += 1
        if s == columns:
            s = 0
            r += 1
    return r, s, channel


@cuda.jit(device=True, inline="always")
def fetch_patches(held, source, offset, top, left, by_h, by_w, tap, exists, height, width, loads):
    """Rows of windows along k, each at its (top, left); the tap lies (by_h, by_w) further and ``tap`` elements on."""
    for load in range(loads):
        h = top[load] + by_h
        column = left[load] + by_w
        inside = exists and 0 <= h < height and 0 <= column < width
        held[load] = source[unsigned(offset[load] + tap)] if inside else ZERO


@cuda.jit(device=True, inline="always")
def fetch_filters(held, w, first_k, position, row, step, Kg, reduction, first, loads):
    """Rows k of w along k: filters first_k + row + load * step of the group, which begins at ``first``"""
    for load in range(loads):
        k = first_k + row + load * step
        inside = k < Kg and position < reduction
        held[load] = w[unsigned(first + k * reduction + position)] if inside else ZERO


@cuda.jit(device=True, inline="always")
def fetch_phase_filters(held, w, at, step, c, Cg, Kg, first, axes, shape, loads):
    """Row c of w from position ``at`` (t, u, k) of the phase on; returns the position behind"""
    t, u, k = at
    h_axis, w_axis = axes
    for load in range(loads):
        r = h_axis.tap + t * h_axis.step
        s = w_axis.tap + u * w_axis.step
        inside = c < Cg and t < h_axis.taps
        held[load] = w[unsigned(first + ((k * shape.R + r) * shape.S + s) * Cg + c)] if inside else ZERO
        t, u, k = after(t, u, k, step, w_axis.taps, Kg)
    return t, u, k


@cuda.jit(device=True, inline="always")
def fetch_gradients(held, dy, pixel, step, end, k, Kg, channel, K, loads):
    """Row k of dy, the channel ``channel``, from ``pixel`` on"""
    for load in range(loads):
        at = pixel + load * step
        held[load] = dy[unsigned(at * K + channel)] if k < Kg and at < end else ZERO


@cuda.jit(device=True, inline="always")
def fetch_transposed_patches(held, x, n, p, q, step, top, left, channel, shape, loads):
    """Row (r, s, c) of x, at (top, left) of the output (0, 0), from the output (n, p, q) on; returns the one behind.
    What lies past a range of pixels is not masked: dy is 0 there."""
    for load in range(loads):
        h = top + p * shape.stride_h
        column = left + q * shape.stride_w
        inside = n < shape.N and 0 <= h < shape.H and 0 <= column < shape.W
        held[load] = x[unsigned(((n * shape.H + h) * shape.W + column) * shape.C + channel)] if inside else ZERO
        q += step
        while q >= shape.Q:
            q -= shape.Q
            p += 1
            if p == shape.P:
                p = 0
                n += 1
    return n, p, q
