"""Sum, mean and largest value over any axes: the axes are brought into the order (outer, reduced, inner) first."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from .._arguments import is_int
from ..autograd import Function, grad_enabled
from ..backends.contract import Array, Backend
from ..shapes import reduce_shape
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, full
from ._common import backend_of, tensor

Axes = int | tuple[int, ...] | None


class Sum(Function):
    """saved: (x's shape, y's shape with the reduced axes kept)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, kept = self.saved
        zeros = full(self.backend, shape, dy.dtype, 0.0)
        return (binary_array(self.backend, "add", zeros, dy.reshape(kept)),)


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
    axes = _axes("sum", x.data, axis)
    backend = backend_of("sum", x)
    kept, dropped = _result_shapes(x.shape, axes)
    y = reduce_array(backend, "sum", x.data, axes).reshape(kept if keepdims else dropped)
    if x.requires_grad and grad_enabled():
        return record(y, Sum(backend, (x,), (x.shape, kept)))
    return wrap(y)


def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Mean over ``axis`` (an int, a tuple, None for all). Raises ValueError."""
    from .binary import mul
    from .layout import cast

    x = tensor(x)
    if x.dtype.itemsize == 2:  # float16 holds neither the sum of many elements nor one divided by their number
        backend_of("mean", x)
        return cast(mean(cast(x, "float32"), axis, keepdims), x.dtype)
    count = prod(x.shape[a] for a in _axes("mean", x.data, axis))
    return mul(sum(x, axis, keepdims), 1.0 / count)


def max(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element over ``axis``; NaN where there is one. The gradient is shared equally by equal elements, as
    PyTorch's ``amax``. Raises ValueError."""
    x = tensor(x)
    axes = _axes("max", x.data, axis)
    backend = backend_of("max", x)
    kept, dropped = _result_shapes(x.shape, axes)
    y = reduce_array(backend, "max", x.data, axes)
    if x.requires_grad and grad_enabled():
        return record(y.reshape(kept if keepdims else dropped), Max(backend, (x,), (x.data, y.reshape(kept), axes)))
    return wrap(y.reshape(kept if keepdims else dropped))


def reduce_array(backend: Backend, op: str, x: Array, axes: tuple[int, ...]) -> Array:
    """x reduced over sorted axes, which the result lacks; nothing recorded"""
    kept = [a for a in range(x.ndim) if a not in axes]
    shape = tuple(x.shape[a] for a in kept)
    first, last = (axes[0], axes[-1]) if axes else (0, -1)
    if axes and last - first + 1 != len(axes):  # not neighbours: bring them to the end
        order = (*kept, *axes)
        moved = backend.empty(tuple(x.shape[a] for a in order), x.dtype)
        backend.permute(x, moved, order)
        x, outer, inner = moved, prod(shape), 1
    else:
        outer, inner = prod(x.shape[:first]), prod(x.shape[last + 1 :])
    y = backend.empty(shape, x.dtype)
    backend.reduce(op, reduce_shape(outer, x.size // (outer * inner), inner), x, y)
    return y


def sum_to(backend: Backend, x: Array, shape: tuple[int, ...]) -> Array:
    """x summed over the axes along which ``shape`` was broadcast to x's shape; x itself if there are none"""
    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    axes = tuple(a for a in range(x.ndim) if a < lead or (shape[a - lead] == 1 and x.shape[a] != 1))
    return reduce_array(backend, "sum", x, axes).reshape(shape) if axes else x.reshape(shape)


def _axes(operation: str, x: Array, axis: Axes) -> tuple[int, ...]:
    """Sorted, non-negative, distinct axes"""
    if not x.size:
        raise ValueError(f"{operation}: empty x: {x.shape}")
    if axis is None:
        return tuple(range(x.ndim))
    axes = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    if not all(is_int(a) for a in axes):
        raise TypeError(f"{operation}: axis must be an int, a tuple of ints or None, received {axis!r}")
    if any(not -x.ndim <= a < x.ndim for a in axes):
        raise ValueError(f"{operation}: axis {axis} is out of range for x {x.shape}")
    distinct = sorted({a % x.ndim for a in axes})
    if len(distinct) != len(axes):
        raise ValueError(f"{operation}: axis {axis} names an axis twice")
    return tuple(distinct)


def _result_shapes(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(with the reduced axes kept as 1, without them)"""
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
    return kept, tuple(n for a, n in enumerate(shape) if a not in axes)
