"""Softmax and cross-entropy: x (M, C), labels (M,) in [0, C), loss (M,), probability (M, C).

    probability[m, c] = exp(x[m, c] - largest) / sum over c of exp(x[m, c] - largest)
    loss[m]           = log(sum) - (x[m, labels[m]] - largest)
    dx[m, c]          = (probability[m, c] - (c == labels[m])) * dloss[m]

The row's largest is subtracted before the exponential, so that none overflows.
Rungs: ``tree`` alone. One block a row, of ROW_THREADS; they walk the row together and meet twice in shared memory, for
the largest and for the sum. Backward is elementwise.
Roofline: forward reads x three times (twice from L1) and writes once, 8 bytes an element for two exponentials; backward
moves 8 bytes for two operations: bound by memory.
"""

from numba import cuda, float32, int64

from .common import (
    ELEMENTS_PER_THREAD,
    MINUS_INFINITY,
    ONE,
    SIMULATED,
    THREADS,
    ZERO,
    elementwise,
    exp,
    log,
    tree_block,
)
from .reduce import MAX, SUM, combine

ROW_THREADS = 4 if SIMULATED else 32  # one warp: its barriers are cheap


@cuda.jit(device=True, inline="always")
def combine_row(op, partial, value):
    """all threads' values combined, in every thread; each thread brings one"""
    t = cuda.threadIdx.x
    cuda.syncthreads()  # the last result has been read by all
    partial[t] = value
    half = cuda.blockDim.x // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            partial[t] = combine(op, partial[t], partial[t + half])
        half //= 2
    cuda.syncthreads()
    return partial[0]


@cuda.jit
def softmax_cross_entropy_forward(x, labels, loss, probability):
    partial = cuda.shared.array(THREADS, float32)
    row = cuda.blockIdx.x  # [0, M)
    C = x.shape[1]

    largest = MINUS_INFINITY
    for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
        largest = combine(MAX, largest, x[row, c])
    largest = combine_row(MAX, partial, largest)

    total = ZERO
    for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
        total += exp(x[row, c] - largest)
    total = combine_row(SUM, partial, total)

    for c in range(cuda.threadIdx.x, C, cuda.blockDim.x):
        probability[row, c] = exp(x[row, c] - largest) / total
    if cuda.threadIdx.x == 0:
        loss[row] = log(total) - (x[row, labels[row]] - largest)


@cuda.jit
def softmax_cross_entropy_backward(probability, labels, dloss, dx):
    C = dx.shape[1]
    first = cuda.blockIdx.x * cuda.blockDim.x * ELEMENTS_PER_THREAD + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * cuda.blockDim.x
        if index < dx.size:
            row = index // C
            c = index % C
            onehot = ONE if c == labels[row] else ZERO
            dx[row, c] = (probability[row, c] - onehot) * dloss[row]


def forward(launch, x, labels, loss, probability, block=ROW_THREADS):
    out = launch.out(loss), launch.out(probability)
    launch(softmax_cross_entropy_forward, x.shape[0], tree_block(block), x, labels, *out)


def backward(launch, probability, labels, dloss, dx, block=THREADS):
    launch(softmax_cross_entropy_backward, *elementwise(dx.size, block), probability, labels, dloss, launch.out(dx))


SIGNATURES = [
    (softmax_cross_entropy_forward, (float32[:, ::1], int64[::1], float32[::1], float32[:, ::1])),
    (softmax_cross_entropy_backward, (float32[:, ::1], int64[::1], float32[::1], float32[:, ::1])),
]
