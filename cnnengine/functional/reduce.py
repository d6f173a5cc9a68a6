"""Sum, mean and largest value over any axes: the axes are brought into the order (outer, reduced, inner) first."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import ClassVar, NamedTuple

from .._arguments import is_int
from ..autograd import Function, grad_enabled
from ..backends.contract import Array, Backend
from ..shapes import CACHED_SHAPES, ReduceShape, reduce_shape
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, full
from ._autocast import wide
from ._common import autocast_region, backend_of, tensor

Axes = int | tuple[int, ...] | None
Reduced = tuple[int, ...] | None  # sorted, non-negative, distinct; None: all


class Sum(Function):
    """saved: (x's shape, axes)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, axes = self.saved
        zeros = full(self.backend, shape, dy.dtype, 0.0)
        return (binary_array(self.backend, "add", zeros, dy.reshape(_walk(shape, axes).kept)),)


class Max(Function):
    """The gradient goes to the largest elements, in equal parts; saved: (x, y with the reduced axes kept, axes)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0,)
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, y, axes = self.saved
        backend = self.backend
        mask = binary_array(backend, "equal", x, y)
        count = reduce_array(backend, "sum", mask, axes).reshape(y.shape)
        share = binary_array(backend, "div", dy.reshape(y.shape), count)
        return (binary_array(backend, "mul", mask, share),)


def sum(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum over ``axis`` (an int, a tuple, None for all). Raises ValueError."""
    x = tensor(x)
    if autocast_region() is not None:
        x = wide(x)
    data = x.data
    axes = _axes("sum", data, axis)
    backend = backend_of("sum", x)
    y = reduce_array(backend, "sum", data, axes, keepdims)
    if x.requires_grad and grad_enabled():
        return record(y, Sum(backend, (x,), (data.shape, axes)))
    return wrap(y)


def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Mean over ``axis`` (an int, a tuple, None for all). Raises ValueError."""
    from .binary import mul
    from .layout import cast

    x = tensor(x)
    if x.dtype.itemsize == 2:  # float16 holds neither the sum of many elements nor one divided by their number
        backend_of("mean", x)
        return cast(mean(cast(x, "float32"), axis, keepdims), x.dtype)
    reduced = _walk(x.data.shape, _axes("mean", x.data, axis)).walk.reduced
    return mul(sum(x, axis, keepdims), 1.0 / reduced)


def max(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element over ``axis``; NaN where there is one. The gradient is shared equally by equal elements, as
    PyTorch's ``amax``. Raises ValueError."""
    x = tensor(x)
    data = x.data
    axes = _axes("max", data, axis)
    backend = backend_of("max", x)
    y = reduce_array(backend, "max", data, axes, keepdims)
    if x.requires_grad and grad_enabled():
        kept = y.reshape(_walk(data.shape, axes).kept)
        return record(y, Max(backend, (x,), (data, kept, axes)))
    return wrap(y)


def reduce_array(backend: Backend, op: str, x: Array, axes: Reduced, keepdims: bool = False) -> Array:
    """x reduced over sorted axes, None for all, which the result lacks or has as 1; nothing recorded"""
    kept, dropped, order, shape = _walk(x.shape, axes)
    dtype = x.dtype
    if order is not None:
        moved = backend.empty(tuple([x.shape[a] for a in order]), dtype)
        backend.permute(x, moved, order)
        x = moved
    y = backend.empty(kept if keepdims else dropped, dtype)
    backend.reduce(op, shape, x, y)
    return y


def sum_to(backend: Backend, x: Array, shape: tuple[int, ...]) -> Array:
    """x summed over the axes along which ``shape`` was broadcast to x's shape; x itself if there are none"""
    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    axes = tuple(a for a in range(x.ndim) if a < lead or (shape[a - lead] == 1 and x.shape[a] != 1))
    return reduce_array(backend, "sum", x, axes).reshape(shape) if axes else x.reshape(shape)


def _axes(operation: str, x: Array, axis: Axes) -> Reduced:
    """Sorted, non-negative, distinct axes; None for all"""
    if not x.size:
        raise ValueError(f"{operation}: empty x: {x.shape}")
    if axis is None:
        return None
    axes = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    if not all(is_int(a) for a in axes):
        raise TypeError(f"{operation}: axis must be an int, a tuple of ints or None, received {axis!r}")
    if any(not -x.ndim <= a < x.ndim for a in axes):
        raise ValueError(f"{operation}: axis {axis} is out of range for x {x.shape}")
    distinct = sorted({a % x.ndim for a in axes})
    if len(distinct) != len(axes):
        raise ValueError(f"{operation}: axis {axis} names an axis twice")
    return tuple(distinct)


class _Walk(NamedTuple):
    kept: tuple[int, ...]  # the result's shape with the reduced axes as 1
    dropped: tuple[int, ...]  # and without them
    order: tuple[int, ...] | None  # of the axes, where the reduced ones are brought to the end
    walk: ReduceShape


@lru_cache(CACHED_SHAPES)
def _walk(shape: tuple[int, ...], axes: Reduced) -> _Walk:
    """How an array of the shape is reduced over sorted axes, None for all."""
    rank = len(shape)
    axes = tuple(range(rank)) if axes is None else axes
    others = [a for a in range(rank) if a not in axes]
    kept, dropped = tuple(1 if a in axes else n for a, n in enumerate(shape)), tuple(shape[a] for a in others)
    reduced = prod(shape[a] for a in axes)
    first, last = (axes[0], axes[-1]) if axes else (0, -1)
    if axes and last - first + 1 != len(axes):  # not neighbours
        return _Walk(kept, dropped, (*others, *axes), reduce_shape(prod(dropped), reduced, 1))
    return _Walk(kept, dropped, None, reduce_shape(prod(shape[:first]), reduced, prod(shape[last + 1 :])))
