"""backward_input of any stride as dense products. Input row h, whose place in the padded input is h + pad_h, is reached
by tap r from output row p where

    p*stride_h + r*dilation_h = h + pad_h

so only taps with r*dilation_h = h + pad_h modulo stride_h reach it: the same ones for all h of one residue, at equal
distances from each other, and from neighbouring h of that residue they lead to neighbouring p. These pixels are a
phase: a convolution without stride of their own few taps, where no product is spent on a zero. Stride 1 is one phase of
all taps; at stride 2 a 3x3 filter has phases of 1, 2, 2 and 4 taps. A phase that no tap reaches is 0.
"""

from collections import namedtuple

from numba import cuda

# One axis of a phase: rows first + i*stride, and the taps tap + t*step that reach them, from output base + i - t*reach
PhaseAxis = namedtuple("PhaseAxis", "first rows tap step taps base reach")


@cuda.jit(device=True, inline="always")
def phase_axis(first, size, stride, pad, dilation, filter):
    tap = 0
    while tap < filter and (first + pad - tap * dilation) % stride != 0:
        tap += 1
    step = 1
    while step < filter and step * dilation % stride != 0:
        step += 1
    taps = (filter - tap - 1) // step + 1  # tap == filter where none reaches: 0
    base = (first + pad - tap * dilation) // stride
    return PhaseAxis(first, (size - first - 1) // stride + 1, tap, step, taps, base, step * dilation // stride)


def phases(shape):
    """How many there are"""
    return min(shape.stride_h, shape.H) * min(shape.stride_w, shape.W)


def most_pixels(shape):
    """Of the first phase, which has the most"""
    return shape.N * ((shape.H - 1) // shape.stride_h + 1) * ((shape.W - 1) // shape.stride_w + 1)
