"""Elementwise arithmetic: unary y = op(x), binary y = a op b with broadcasting.

Shapes: unary x, y (count,), y may be x. Binary y (d0, d1, d2, d3), seen flat like a and b; ``shape.a2`` is how far a
moves when the third index of y grows by one, 0 repeats it. Operands of equal shape come as (1, 1, 1, n) and spend no
division on their index.
Rungs: ``direct`` alone, as in activation.py.
Roofline: an addition moves 12 bytes for one flop: bound by memory. Which operation it is, is asked inside the kernel:
all threads answer alike, which costs nothing beside a trip to memory.
"""

from numba import cuda, float32, int32

from .common import (
    ELEMENTS_PER_THREAD,
    ONE,
    THREADS,
    ZERO,
    BroadcastShape,
    elementwise,
    exp,
    ints,
    log,
    sqrt,
)

NEG, EXP, LOG, SQRT = range(4)
UNARY = {"neg": NEG, "exp": EXP, "log": LOG, "sqrt": SQRT}
ADD, SUB, MUL, DIV, POW, EQUAL = range(6)
BINARY = {"add": ADD, "sub": SUB, "mul": MUL, "div": DIV, "pow": POW, "equal": EQUAL}


@cuda.jit(device=True, inline="always")
def apply_unary(op, x):
    if op == NEG:
        return -x
    if op == EXP:
        return exp(x)
    if op == LOG:
        return log(x)
    return sqrt(x)


@cuda.jit(device=True, inline="always")
def apply_binary(op, a, b):
    if op == ADD:
        return a + b
    if op == SUB:
        return a - b
    if op == MUL:
        return a * b
    if op == DIV:
        return a / b
    if op == POW:
        return a**b
    return ONE if a == b else ZERO


@cuda.jit
def unary_direct(op, x, y):
    first = cuda.blockIdx.x * cuda.blockDim.x * ELEMENTS_PER_THREAD + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * cuda.blockDim.x
        if index < y.size:
            y[index] = apply_unary(op, x[index])


@cuda.jit
def binary_direct(op, a, b, y, shape):
    rows = shape.d0 * shape.d1 * shape.d2
    first = cuda.blockIdx.x * cuda.blockDim.x * ELEMENTS_PER_THREAD + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * cuda.blockDim.x
        if index < y.size:
            if rows == 1:
                at_a = index * shape.a3
                at_b = index * shape.b3
            else:
                i3 = index % shape.d3
                i2 = index // shape.d3 % shape.d2
                outer = index // shape.d3 // shape.d2  # i0*d1 + i1
                i1 = outer % shape.d1
                i0 = outer // shape.d1
                at_a = i0 * shape.a0 + i1 * shape.a1 + i2 * shape.a2 + i3 * shape.a3
                at_b = i0 * shape.b0 + i1 * shape.b1 + i2 * shape.b2 + i3 * shape.b3
            y[index] = apply_binary(op, a[at_a], b[at_b])


def unary(launch, op, x, y, block=THREADS):
    flat = y.reshape(-1)
    args = launch.integer(UNARY[op]), x.reshape(-1), launch.out(flat)
    launch(unary_direct, *elementwise(flat.size, block), *args)


def binary(launch, op, shape, a, b, y, block=THREADS):
    flat = y.reshape(-1)
    operands = a.reshape(-1), b.reshape(-1), launch.out(flat), launch.ints(BroadcastShape, shape)
    launch(binary_direct, *elementwise(flat.size, block), launch.integer(BINARY[op]), *operands)


SIGNATURES = [
    (unary_direct, (int32, float32[::1], float32[::1])),
    (binary_direct, (int32, float32[::1], float32[::1], float32[::1], ints(BroadcastShape))),
]
