"""What the ``depthwise`` rungs share: a strip of outputs that a thread keeps in registers, and the window of inputs
that slides over it.

With common = gcd(stride, dilation), phases = stride / common, spacing = dilation / common: taps s, s + phases, s + 2
phases, ... meet inputs that lie spacing * stride apart, and the outputs of one tap and one input each lie spacing
apart. So a strip is outputs (backward_input: pixels of dx) at that distance, and one tap further every output of it
wants the input that its neighbour had: of ``length`` inputs one is new. At dilation 1 outputs of a strip are
neighbours; at stride 1 there is one phase.
"""

from collections import namedtuple

from numba import cuda

from .common import SIMULATED, ZERO, unsigned

STAGED = 64 if SIMULATED else 4096  # floats of the filter rows in shared memory at once: 16 KB

Axis = namedtuple("Axis", "phases spacing")

# Channel ``channel`` of the pixels first + i * step, i in [0, length), of a line
Strip = namedtuple("Strip", "channel line first inside")


@cuda.jit(device=True, inline="always")
def axis_of(stride, dilation):
    common = stride
    rest = dilation
    while rest != 0:
        common, rest = rest, common % rest
    return Axis(stride // common, dilation // common)


@cuda.jit(device=True, inline="always")
def first_tap(reach, taps, stride, dilation):
    """The first of ``taps`` that meets position ``reach`` of the padded input, reach = output * stride + tap * dilation
    for some output; every phases-th from it on does. ``taps`` where none does."""
    tap = 0
    while tap < taps and (reach - tap * dilation) % stride != 0:
        tap += 1
    return tap


@cuda.jit(device=True, inline="always")
def strip_of(lines, width, channels, step, length):
    """This thread's strip. A block has blockDim.x channels, blockDim.y strips and blockDim.z lines; blocks are numbered
    along x alone, channels fastest: they meet in L2."""
    tiles_channel = (channels + cuda.blockDim.x - 1) // cuda.blockDim.x
    offsets = min(step, width)  # strips that begin at 0, 1, ... interleave
    most = (width + step - 1) // step  # pixels from an offset on
    along = (most + length - 1) // length  # strips from an offset on
    tiles_strip = (along + cuda.blockDim.y - 1) // cuda.blockDim.y
    channel = cuda.blockIdx.x % tiles_channel * cuda.blockDim.x + cuda.threadIdx.x
    offset = cuda.blockIdx.x // tiles_channel % offsets
    block = cuda.blockIdx.x // tiles_channel // offsets
    strip = block % tiles_strip * cuda.blockDim.y + cuda.threadIdx.y
    line = block // tiles_strip * cuda.blockDim.z + cuda.threadIdx.z
    inside = channel < channels and strip < along and line < lines
    return Strip(channel, line, offset + strip * length * step, inside)


@cuda.jit(device=True, inline="always")
def load_pixel(source, line, column, width, channels):
    """The element of a line at ``column``, ``channels`` further on for each; zero where there is none"""
    return source[unsigned(line + column * channels)] if 0 <= column < width else ZERO


@cuda.jit(device=True, inline="always")
def slide(total, window, length, taps, source, line, begin, by, width, channels, filters, tap, step):
    """total[i] += weight of tap j * input at position i + j, for j in [0, taps). Position i lies at column begin + i *
    by of a line, the weight of tap j at filters[tap + j * step]. The window is a ring, position p in window[p %
    length]: a new input takes the place of the one that no tap wants any more."""
    for i in range(length - 1):
        window[i] = load_pixel(source, line, begin + i * by, width, channels)
    for first in range(0, taps, length):  # a turn of the ring
        for j in range(length):
            if first + j < taps:
                column = begin + (first + j + length - 1) * by
                window[(j + length - 1) % length] = load_pixel(source, line, column, width, channels)
                weight = filters[unsigned(tap + (first + j) * step)]
                for i in range(length):
                    total[i] += window[(i + j) % length] * weight


@cuda.jit(device=True, inline="always")
def staged_rows(shape):
    """Rows of the filters of a block's channels that shared memory holds at once"""
    return min(STAGED // (shape.S * cuda.blockDim.x), shape.R)


@cuda.jit(device=True, inline="always")
def stage(staged, w, k, exists, top, rows, shape):
    """Rows from ``top`` on of filter ``k`` of this thread's channel, to [tap][channel of the block]. All threads
    call."""
    cuda.syncthreads()  # nobody reads the rows before these any more
    taps = shape.R * shape.S
    count = min(rows * shape.S, taps - top * shape.S)
    if exists:
        for i in range(cuda.threadIdx.z * cuda.blockDim.y + cuda.threadIdx.y, count, cuda.blockDim.y * cuda.blockDim.z):
            staged[unsigned(i * cuda.blockDim.x + cuda.threadIdx.x)] = w[unsigned(k * taps + top * shape.S + i)]
    cuda.syncthreads()
