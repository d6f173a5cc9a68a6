"""Arithmetic on bare arrays, nothing recorded: what backward passes are composed of."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..backends.contract import Array, Backend
from ..shapes import broadcast_shape


def binary_array(backend: Backend, op: str, a: Array, b: Array) -> Array:
    """a op b, broadcast, in a new array"""
    shape, walk = broadcast_shape(op, a.shape, b.shape)
    y = backend.empty(shape, a.dtype)
    backend.binary(op, walk, a, b, y)
    return y


def unary_array(backend: Backend, op: str, x: Array) -> Array:
    """op(x) in a new array"""
    y = backend.empty(x.shape, x.dtype)
    backend.unary(op, x, y)
    return y


def constant(backend: Backend, dtype: Any, value: float) -> Array:
    """An array () of one value that nobody writes to; on the CPU the same one for the same value"""
    if backend.device == "cpu" and value:  # 0.0 and -0.0 are equal, and so one key
        return _host_constant(dtype, value)
    return full(backend, (), dtype, value)


@lru_cache(256)
def _host_constant(dtype: Any, value: float) -> Array:
    array = np.full((), value, dtype)
    array.flags.writeable = False
    return array


def full(backend: Backend, shape: tuple[int, ...], dtype: Any, value: float) -> Array:
    """A new array of one value"""
    y = backend.empty(shape, dtype)
    backend.fill(y, value)
    return y
