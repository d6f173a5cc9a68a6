"""What the kernel files share: block sizes, shapes as tuples, float32 mathematics, the epilogue.

Blocks are small in Numba's simulator, where a CUDA thread is a Python call, so that a tiny array still spans several
blocks; the kernels are the same. ``tile.py`` has the sizes of the ``tiled`` rungs.
"""

from collections import namedtuple
from dataclasses import fields

import numpy as np
from numba import config, cuda, int32, types

from .. import shapes

SIMULATED = bool(config.ENABLE_CUDASIM)
THREADS = 8 if SIMULATED else 256  # of a block, where the caller names none
ELEMENTS_PER_THREAD = 4  # of elementwise kernels: 4 loads of 4 bytes by 2048 threads are 32 KB under way per SM

ZERO = np.float32(0)
ONE = np.float32(1)
SIX = np.float32(6)
MINUS_INFINITY = np.float32(-np.inf)

if SIMULATED:  # Python's math raises where a GPU returns infinity or NaN
    from math import erfc

    from numpy import exp, expm1, log, sqrt, tanh

    def unsigned(index):
        return index
else:
    from math import erfc, exp, expm1, log, sqrt, tanh

    from numba import uint64 as unsigned  # of an index that is never negative: Numba need not look whether it is


__all__ = ["erfc", "exp", "expm1", "log", "sqrt", "tanh", "unsigned"]


def _mirror(shape_class):
    """A kernel argument with the members of a class of ``cnnengine.shapes``; kernels read ``shape.stride_h``."""
    return namedtuple(shape_class.__name__, [f.name for f in fields(shape_class) if f.name != "packed"])


Conv2dShape = _mirror(shapes.Conv2dShape)
Pool2dShape = _mirror(shapes.Pool2dShape)
GemmShape = _mirror(shapes.GemmShape)
BroadcastShape = _mirror(shapes.BroadcastShape)
ReduceShape = _mirror(shapes.ReduceShape)
NormShape = _mirror(shapes.NormShape)

FUSED_ACTIVATIONS = ("identity", "relu")  # of the epilogue; others take a pass of their own

# 1 for each part of the epilogue that is there; the array of an absent part is any other, and never read
Fused = namedtuple("Fused", ["bias", "scale", "shift", "residual", "relu"])


def ints(tuple_class):
    """Numba's type of one of the tuples above."""
    return types.NamedUniTuple(int32, len(tuple_class._fields), tuple_class)


def blocks(elements, per_block):
    """How many blocks cover the elements."""
    return -(-elements // per_block)


def tree_block(threads):
    """A block whose threads meet in a tree: halves of it are added, and shared memory has room for THREADS. Raises
    ValueError for any other number."""
    if not 1 <= threads <= THREADS or threads & (threads - 1):
        raise ValueError(f"block: expected a power of two of at most {THREADS} threads, received {threads}")
    return threads


def elementwise(elements, threads):
    """(grid, block) of a kernel whose threads take ELEMENTS_PER_THREAD each"""
    return blocks(elements, threads * ELEMENTS_PER_THREAD), threads


def fuse(launch, epilogue, vector, y):
    """The kernel arguments of an ``Epilogue``: bias, scale, shift (K,), residual (as y), Fused.

    ``vector`` and ``y`` stand in for what is absent.
    """
    parts = (epilogue.bias, epilogue.scale, epilogue.shift)
    there = [int(part is not None) for part in (*parts, epilogue.residual)]
    residual = y if epilogue.residual is None else epilogue.residual.reshape(y.shape)
    fused = launch.ints(Fused, (*there, int(epilogue.activation == "relu")))
    return (*(vector if part is None else part for part in parts), residual, fused)


@cuda.jit(device=True, inline="always")
def per_channel(k, bias, scale, shift, fused):
    """(bias[k], scale[k], shift[k]), or what changes nothing"""
    return (
        bias[k] if fused.bias else ZERO,
        scale[k] if fused.scale else ONE,
        shift[k] if fused.shift else ZERO,
    )


@cuda.jit(device=True, inline="always")
def activate(value, fused):
    """relu where it is asked for: a NaN fails the comparison and stays."""
    return ZERO if fused.relu and value <= ZERO else value


@cuda.jit(device=True, inline="always")
def finish(y, residual, index, value, fused):
    """y[index] = value, with what the epilogue still adds; both arrays flat"""
    if fused.residual:
        value += residual[unsigned(index)]
    y[unsigned(index)] = activate(value, fused)
