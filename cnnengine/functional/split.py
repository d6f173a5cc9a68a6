"""Cutting an array into parts, laying arrays on one another, and a border around one."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from .. import replay
from .._arguments import is_int
from ..autograd import Function, grad_enabled
from ..backends.contract import Array
from ..tensor import Tensor, record, wrap
from ._common import backend_of, tensor
from .layout import concatenate, reshape


class Whole(Function):
    """What is cut into parts: collects their gradients. saved: (shape, the gradient once a part has one, the keys of
    the parts that have none yet)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        _, _, missing = self.saved
        for key in missing:
            replay.on_arrays(partial(operator.setitem, dy, key, 0.0))
        return (dy,)


class Part(Function):
    """One part; saved: (the Whole's saved, key). The first that has a gradient hands on the array for all parts, into
    which each writes its own, so that nothing is added up."""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        whole, key = self.saved
        shape, gradient, missing = whole
        dx = None
        if gradient is None:
            whole[1] = gradient = dx = self.backend.empty(shape, dy.dtype)
        replay.on_arrays(partial(operator.setitem, gradient, key, dy))
        missing.remove(key)
        return (dx,)


class Pad(Function):
    """saved: the key of x in y"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return (replay.copied(dy[self.saved]),)


def split(x: Tensor, sizes: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """x cut along an axis into parts of ``sizes``, or of one size, the last perhaps smaller; a part shares x's memory
    where it lies in one piece there. Raises ValueError."""
    x = tensor(x)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"split: axis {axis} is out of range for x {x.shape}")
    axis %= x.ndim
    length = x.shape[axis]
    if is_int(sizes):
        size = int(sizes)  # type: ignore[arg-type]
        if size < 1:
            raise ValueError(f"split: a size must be at least 1, received {size}")
        sizes = [min(size, length - start) for start in range(0, length, size)]
    sizes = [operator.index(n) for n in sizes]  # type: ignore[union-attr]
    if sum(sizes) != length or min(sizes, default=0) < 1:
        raise ValueError(f"split: sizes must be at least 1 and add up to {length}, x {x.shape}, received {sizes}")
    backend = backend_of("split", x)
    keys, start = [], 0
    for size in sizes:
        keys.append((slice(None),) * axis + (slice(start, start + size),))
        start += size
    whole: Tensor | None = None
    saved: list[Any] = [x.shape, None, list(keys)]
    if x.requires_grad and grad_enabled():
        whole = record(x.data, Whole(backend, (x,), saved), x.version)
    parts = []
    for key in keys:
        data = x.data[key]
        shares = data.flags.c_contiguous
        data, version = (data, x.version) if shares else (replay.copied(data), None)
        if whole is None:
            parts.append(wrap(data, version))
        else:
            parts.append(record(data, Part(backend, (whole,), (saved, key)), version))
    return tuple(parts)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape side by side along a new axis. Raises ValueError for shapes, TypeError for dtypes."""
    parts = [tensor(t) for t in tensors]
    if not parts or any(p.shape != parts[0].shape for p in parts):
        raise ValueError(f"stack: expected tensors of one shape, at least one, received {[p.shape for p in parts]}")
    shape = parts[0].shape
    if not -len(shape) - 1 <= axis <= len(shape):
        raise ValueError(f"stack: axis {axis} is out of range for tensors {shape}")
    axis %= len(shape) + 1
    return concatenate([reshape(p, (*shape[:axis], 1, *shape[axis:])) for p in parts], axis)


def pad(x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """x with ``value`` around it: ``widths`` has a pair (before, after) for each axis, as in NumPy. Raises
    ValueError."""
    x = tensor(x)
    pairs = tuple((operator.index(a), operator.index(b)) for a, b in widths)
    if len(pairs) != x.ndim or min((n for pair in pairs for n in pair), default=0) < 0:
        raise ValueError(f"pad: expected {x.ndim} pairs (before, after) of at least 0, x {x.shape}, received {widths}")
    backend = backend_of("pad", x)
    y = backend.empty(tuple(n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True)), x.dtype)
    key = tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, pairs, strict=True))
    if prod(y.shape):
        backend.fill(y, value)
        replay.on_arrays(partial(operator.setitem, y, key, x.data))
    if x.requires_grad and grad_enabled():
        return record(y, Pad(backend, (x,), key))
    return wrap(y)
