"""Changes of shape, order, dtype and device. Views where memory allows: a reshape never copies."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any, ClassVar

import numpy as np

from .. import replay
from .._border import FLOATS
from ..autograd import Function, grad_enabled
from ..backends.contract import Array
from ..backends.registry import active, active_on
from ..shapes import CACHED_SHAPES
from ..tensor import Tensor, record, wrap
from ._common import agreed, autocast_region, backend_of, same_kind, tensor


class Reshape(Function):
    """saved: x's shape"""

    __slots__ = ()
    shares: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return (dy.reshape(self.saved),)


class Permute(Function):
    """saved: (x's shape, axes that undo it)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, inverse = self.saved
        dx = self.backend.empty(shape, dy.dtype)
        self.backend.permute(dy, dx, inverse)
        return (dx,)


class Index(Function):
    """saved: (x's shape, key)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, key = self.saved
        dx = self.backend.empty(shape, dy.dtype)
        self.backend.fill(dx, 0.0)
        if _selects_once(key):
            replay.on_arrays(partial(operator.setitem, dx, key, dy))
        elif type(dx) is np.ndarray:
            replay.on_arrays(partial(np.add.at, dx, key, dy))
        else:
            import cupy

            cupy.add.at(dx, key, dy)
        return (dx,)


class Concatenate(Function):
    """saved: (axis, sizes along it)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        axis, sizes = self.saved
        start, parts = 0, []
        for size in sizes:
            key = (slice(None),) * axis + (slice(start, start + size),)
            parts.append(replay.copied(dy[key]))
            start += size
        return tuple(parts)


class Cast(Function):
    """saved: x's dtype"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        dx = self.backend.empty(dy.shape, self.saved)
        self.backend.cast(dy, dx)
        return (dx,)


class To(Function):
    """``backend`` is that of x's device, where dx will be; saved: the device y is on"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return (_moved(dy, self.saved, self.backend.device),)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x with another shape, sharing its memory; one size may be -1. Raises ValueError."""
    x = tensor(x)
    shape = tuple([operator.index(n) for n in shape])
    _check_reshape(x.data.shape, shape)
    return _reshaped(x, shape)


def flatten(x: Tensor, start: int = 1) -> Tensor:
    """Axes from ``start`` on merged into one: (N, H, W, C) to (N, H*W*C). Raises ValueError."""
    x = tensor(x)
    return _reshaped(x, _flat_shape(x.data.shape, operator.index(start)))


def permute(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """x with its axes in another order, in new memory. Raises ValueError."""
    x = tensor(x)
    data = x.data
    shape = data.shape
    axes, inverse, y_shape = _orders(shape, tuple([operator.index(a) for a in axes]))
    backend = active(data)
    y = backend.empty(y_shape, data.dtype)
    backend.permute(data, y, axes)
    if x.requires_grad and grad_enabled():
        return record(y, Permute(backend, (x,), (shape, inverse)))
    return wrap(y)


def index(x: Tensor, key: Any) -> Tensor:
    """x[key] as NumPy indexes; shares memory where the result is C-contiguous. Raises IndexError."""
    x = tensor(x)
    key = _plain(key)
    y = x.data[key]
    if isinstance(y, np.generic):
        y = np.asarray(y)
    if y.base is None:
        replay.refuse_deferred("an index that is no slice")
    shares = y.base is not None and y.flags.c_contiguous
    if not y.flags.c_contiguous:
        y = replay.copied(y)
    version = x.version if shares else None  # a view of x, or a copy
    if x.requires_grad and grad_enabled():
        return record(y, Index(active_on(x.device), (x,), (x.shape, _kept(key))), version)
    return wrap(y, version)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors joined along an axis, equal in all others. Raises ValueError for shapes, TypeError for dtypes."""
    parts: Sequence[Tensor] = [tensor(t) for t in tensors]
    if not parts:
        raise ValueError("concatenate: expected at least one tensor")
    if autocast_region() is not None:
        parts = agreed(*parts)
    first = parts[0]
    if not -first.ndim <= axis < first.ndim:
        raise ValueError(f"concatenate: axis {axis} is out of range for shape {first.shape}")
    axis %= first.ndim
    for part in parts[1:]:
        same_kind("concatenate", first, "another tensor", part)
        if part.ndim != first.ndim or any(
            m != n for a, (m, n) in enumerate(zip(part.shape, first.shape, strict=True)) if a != axis
        ):
            raise ValueError(f"concatenate: shapes differ beside axis {axis}: {[p.shape for p in parts]}")
    sizes = [p.shape[axis] for p in parts]
    backend = backend_of("concatenate", first)
    y = backend.empty((*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :]), first.dtype)
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        key = (slice(None),) * axis + (slice(start, start + size),)
        replay.on_arrays(partial(operator.setitem, y, key, part.data))
        start += size
    if grad_enabled() and any(p.requires_grad for p in parts):
        return record(y, Concatenate(backend, tuple(parts), (axis, sizes)))
    return wrap(y)


def cast(x: Tensor, dtype: Any) -> Tensor:
    """x in another floating-point dtype, rounded to nearest even; x itself if it has it. Raises TypeError."""
    x = tensor(x)
    try:
        target = np.dtype(dtype)
    except TypeError:  # a name NumPy does not know
        target = dtype
    if target not in FLOATS:
        raise TypeError(f"cast: expected float16, bfloat16, float32 or float64, received {target}")
    if x.dtype == target:
        return x
    backend = active_on(x.device)
    y = backend.empty(x.shape, target)
    backend.cast(x.data, y)
    if x.requires_grad and grad_enabled():
        return record(y, Cast(backend, (x,), x.dtype))
    return wrap(y)


def to(x: Tensor, device: str) -> Tensor:
    """x on "cpu" or "cuda"; x itself if it is there. Raises ValueError for another device, BackendUnavailable."""
    x = tensor(x)
    source, _ = active_on(x.device), active_on(device)
    if x.device == device:
        return x
    y = _moved(x.data, x.device, device)
    if x.requires_grad and grad_enabled():
        return record(y, To(source, (x,), device))
    return wrap(y)


def from_nchw(array: Any) -> Tensor:
    """(N, C, H, W) to (N, H, W, C); also convolution weights, (K, C, R, S) to (K, R, S, C). Raises ValueError."""
    return _border("from_nchw", array, (0, 2, 3, 1))


def to_nchw(array: Any) -> Tensor:
    """(N, H, W, C) to (N, C, H, W); also convolution weights, (K, R, S, C) to (K, C, R, S). Raises ValueError."""
    return _border("to_nchw", array, (0, 3, 1, 2))


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    data = x.data
    y = data.reshape(shape)
    if x.requires_grad and grad_enabled():
        return record(y, Reshape(active(data), (x,), data.shape), x.version)
    return wrap(y, x.version)


@lru_cache(CACHED_SHAPES)
def _check_reshape(x: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Raises ValueError unless an array of shape x can have the other shape."""
    size, known = prod(x), prod([n for n in shape if n != -1])
    fits = known == size if -1 not in shape else known and size % known == 0
    if not fits or shape.count(-1) > 1 or min(shape, default=0) < -1:
        raise ValueError(f"reshape: {x} has {size} elements, which {shape} cannot hold")


@lru_cache(CACHED_SHAPES)
def _flat_shape(x: tuple[int, ...], start: int) -> tuple[int, ...]:
    """x with its axes from ``start`` on as one. Raises ValueError."""
    rank = len(x)
    if not -rank <= start < max(rank, 1):
        raise ValueError(f"flatten: start {start} is out of range for x {x}")
    start %= max(rank, 1)
    return (*x[:start], prod(x[start:]))


@lru_cache(CACHED_SHAPES)
def _orders(x: tuple[int, ...], axes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(axes from 0 on, axes that undo them, the result's shape). Raises ValueError."""
    rank = len(x)
    order = tuple([range(rank)[a] if -rank <= a < rank else rank for a in axes])
    if sorted(order) != list(range(rank)):
        raise ValueError(f"permute: axes must be the {rank} axes of x {x} in some order, received {axes}")
    return order, tuple([order.index(a) for a in range(rank)]), tuple([x[a] for a in order])


def _border(operation: str, array: Any, axes: tuple[int, ...]) -> Tensor:
    x = tensor(array)
    if x.ndim != 4:
        raise ValueError(f"{operation}: expected 4 axes, received shape {x.shape}")
    return permute(x, axes)


def _moved(a: Array, source: str, target: str) -> Array:
    return active_on(target).to_device(active_on(source).to_host(a))


def _plain(key: Any) -> Any:
    """Tensors inside an index become arrays"""
    if isinstance(key, tuple):
        return tuple(_plain(k) for k in key)
    return key.data if isinstance(key, Tensor) else key


def _kept(key: Any) -> Any:
    """The index as it is now: arrays and lists in it may be written to before the backward pass"""
    if isinstance(key, tuple):
        return tuple(_kept(k) for k in key)
    return key.copy() if hasattr(key, "copy") else key


def _selects_once(key: Any) -> bool:
    """Whether an index cannot name an element twice: ints, slices, None, Ellipsis, boolean masks"""
    parts = key if isinstance(key, tuple) else (key,)
    return all(
        part is None
        or part is Ellipsis
        or isinstance(part, int | np.integer | slice)
        or getattr(part, "dtype", None) == np.bool_
        for part in parts
    )
