"""Activations over any shape: x, y, dy, dx (count,); y may be x, dx may be dy. docs/semantics.md defines them.

Of the forward pass the backward pass is given x or y, as ACTIVATION_SAVES of the contract says. ``parameter`` is the
slope of leaky_relu and the scale of elu.
Rungs: ``direct`` alone. A block of n threads takes 4 n neighbours, a thread every n-th of them, so that the
accesses of a warp are neighbours and each thread has several loads under way. Nothing is used twice. Which activation
it is, is asked inside the kernel: all threads answer alike.
Roofline: forward moves 8 bytes an element, backward 12, for one comparison or an exponential: bound by memory on every
GPU. 32 M elements forward are 268 MB, 0.056 ms at 4.8 TB/s. What saves time is the epilogue of the convolution before:
it spares a pass.
"""

import numpy as np
from numba import cuda, float32, int32

from .common import (
    ELEMENTS_PER_THREAD,
    ONE,
    SIX,
    THREADS,
    ZERO,
    elementwise,
    erfc,
    exp,
    expm1,
    tanh,
)

RELU, RELU6, LEAKY_RELU, SILU, GELU, GELU_TANH, SIGMOID, TANH, HARDSWISH, HARDSIGMOID, ELU = range(11)
KINDS = {
    "relu": RELU,
    "relu6": RELU6,
    "leaky_relu": LEAKY_RELU,
    "silu": SILU,
    "gelu": GELU,
    "gelu_tanh": GELU_TANH,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "hardswish": HARDSWISH,
    "hardsigmoid": HARDSIGMOID,
    "elu": ELU,
}
THREE = np.float32(3)
HALF = np.float32(0.5)
ROOT_HALF = np.float32(0.5**0.5)
DENSITY = np.float32((2 * np.pi) ** -0.5)
GELU_END = np.float32(20)  # past it the logistic function of gelu_argument is 0 or 1; x**3 does not overflow before
GELU_1 = np.float32(2 * (2 / np.pi) ** 0.5)  # 0.5 * (1 + tanh(z)) is the logistic function of 2 * z
GELU_3 = np.float32(2 * (2 / np.pi) ** 0.5 * 0.044715)
GELU_3_TIMES_3 = np.float32(6 * (2 / np.pi) ** 0.5 * 0.044715)


@cuda.jit(device=True, inline="always")
def logistic(x):
    """1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow"""
    e = exp(-abs(x))
    return (e if x < ZERO else ONE) / (ONE + e)


@cuda.jit(device=True, inline="always")
def normal_distribution(x):
    """P(X <= x)"""
    return HALF * float32(erfc(-x * ROOT_HALF))


@cuda.jit(device=True, inline="always")
def within_gelu(x):
    """NaN fails both comparisons and stays"""
    if x < -GELU_END:
        return -GELU_END
    return GELU_END if x > GELU_END else x


@cuda.jit(device=True, inline="always")
def gelu_argument(x):
    """2 sqrt(2 / pi) (x + 0.044715 x**3)"""
    inside = within_gelu(x)
    return inside * (GELU_1 + GELU_3 * (inside * inside))


@cuda.jit(device=True, inline="always")
def from_0_to_6(x):
    if x <= ZERO:
        return ZERO
    return SIX if x > SIX else x


@cuda.jit(device=True, inline="always")
def activated(kind, x, parameter):
    if kind == RELU:
        return ZERO if x <= ZERO else x
    if kind == RELU6:
        return from_0_to_6(x)
    if kind == LEAKY_RELU:
        return x if x > ZERO else x * parameter
    if kind == SILU:
        return x * logistic(x)
    if kind == GELU:
        return x * normal_distribution(x)
    if kind == GELU_TANH:
        return x * logistic(gelu_argument(x))
    if kind == SIGMOID:
        return logistic(x)
    if kind == TANH:
        return tanh(x)
    if kind == HARDSWISH:
        return x * (from_0_to_6(x + THREE) / SIX)
    if kind == HARDSIGMOID:
        return from_0_to_6(x + THREE) / SIX
    return x if x > ZERO else parameter * expm1(x)  # ELU


@cuda.jit(device=True, inline="always")
def derived(kind, saved, dy, parameter):
    if kind == RELU:
        return ZERO if saved <= ZERO else dy
    if kind == RELU6:
        return dy if saved > ZERO and saved < SIX else ZERO
    if kind == LEAKY_RELU:
        return dy if saved > ZERO else dy * parameter
    if kind == SILU:
        y = logistic(saved)
        return dy * (y * (ONE + saved * (ONE - y)))
    if kind == GELU:
        density = DENSITY * exp(-HALF * saved * saved)
        return dy * (normal_distribution(saved) + saved * density)
    if kind == GELU_TANH:
        inside = within_gelu(saved)
        y = logistic(gelu_argument(saved))
        return dy * (y + saved * (y * (ONE - y)) * (GELU_1 + GELU_3_TIMES_3 * (inside * inside)))
    if kind == SIGMOID:
        return dy * (saved * (ONE - saved))
    if kind == TANH:
        return dy * (ONE - saved * saved)
    if kind == HARDSWISH:
        if saved >= THREE:
            return dy
        return ZERO if saved <= -THREE else dy * (saved / THREE + HALF)
    if kind == HARDSIGMOID:
        return dy / SIX if saved > ZERO and saved < ONE else ZERO
    return dy if saved > ZERO else dy * (saved + parameter)  # ELU


@cuda.jit
def activation_forward(kind, x, y, parameter):
    first = cuda.blockIdx.x * cuda.blockDim.x * ELEMENTS_PER_THREAD + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * cuda.blockDim.x
        if index < y.size:
            y[index] = activated(kind, x[index], parameter)


@cuda.jit
def activation_backward(kind, saved, dy, dx, parameter):
    first = cuda.blockIdx.x * cuda.blockDim.x * ELEMENTS_PER_THREAD + cuda.threadIdx.x
    for i in range(ELEMENTS_PER_THREAD):
        index = first + i * cuda.blockDim.x
        if index < dx.size:
            dx[index] = derived(kind, saved[index], dy[index], parameter)


def forward(launch, kind, x, y, parameter, block=THREADS):
    """``kind`` is of the contract's ACTIVATIONS; "identity" is a copy."""
    if kind == "identity":
        y[...] = x
        return
    flat = y.reshape(-1)
    args = launch.integer(KINDS[kind]), x.reshape(-1), launch.out(flat), np.float32(parameter)
    launch(activation_forward, *elementwise(flat.size, block), *args)


def backward(launch, kind, saved, dy, dx, parameter, block=THREADS):
    """``saved`` is the forward pass's x or y."""
    if kind == "identity":
        dx[...] = dy
        return
    flat = dx.reshape(-1)
    args = launch.integer(KINDS[kind]), saved.reshape(-1), dy.reshape(-1), launch.out(flat), np.float32(parameter)
    launch(activation_backward, *elementwise(flat.size, block), *args)


SIGNATURES = [
    (activation_forward, (int32, float32[::1], float32[::1], float32)),
    (activation_backward, (int32, float32[::1], float32[::1], float32[::1], float32)),
]
