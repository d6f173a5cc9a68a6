"""Pooling. Padding never wins a maximum; of equal values the first in the window wins; a NaN wins over all."""

from __future__ import annotations

from ..autograd import Function, grad_enabled
from ..backends.contract import Array
from ..shapes import Pair, Pool2dShape, adaptive_pool2d_shape, pool2d_shape
from ..tensor import Tensor, record, wrap
from ._common import backend_of, shape_of, tensor
from .layout import reshape


class Pool2d(Function):
    """saved: (kind, shape, index)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        kind, shape, index = self.saved
        dx = self.backend.empty(shape.x, dy.dtype)
        self.backend.pool2d_backward(kind, shape, dy, index, dx)
        return (dx,)


def max_pool2d(
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest value of each window of x (N, H, W, C): (N, P, Q, C). ``stride`` defaults to ``kernel_size``.
    Raises ValueError."""
    x = tensor(x)
    shape = shape_of(pool2d_shape, "max_pool2d", x.data.shape, kernel_size, stride, padding, dilation, ceil_mode)
    return _pool("max_pool2d", "max", shape, x)


def avg_pool2d(
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window of x (N, H, W, C): (N, P, Q, C). With ``count_include_pad`` the padding counts as zeros,
    without it only real elements are averaged; a ``divisor_override`` divides every window's sum. Raises ValueError."""
    x = tensor(x)
    geometry = (kernel_size, stride, padding, 1, ceil_mode, count_include_pad, divisor_override)
    shape = shape_of(pool2d_shape, "avg_pool2d", x.data.shape, *geometry)
    return _pool("avg_pool2d", "avg", shape, x)


def adaptive_avg_pool2d(x: Tensor, output_size: int | Pair) -> Tensor:
    """Mean of P x Q windows that cover x (N, H, W, C): rows floor(p*H/P) to ceil((p+1)*H/P) - 1. Raises ValueError."""
    return _adaptive("adaptive_avg_pool2d", "avg", x, output_size)


def global_avg_pool2d(x: Tensor) -> Tensor:
    """Mean over H and W of x (N, H, W, C): (N, C). Raises ValueError."""
    y = _adaptive("global_avg_pool2d", "avg", x, 1)
    return reshape(y, (y.shape[0], y.shape[3]))


def adaptive_max_pool2d(x: Tensor, output_size: int | Pair) -> Tensor:
    """Largest value of P x Q windows that cover x (N, H, W, C), as in ``adaptive_avg_pool2d``. Raises ValueError."""
    return _adaptive("adaptive_max_pool2d", "max", x, output_size)


def global_max_pool2d(x: Tensor) -> Tensor:
    """Largest value over H and W of x (N, H, W, C): (N, C). Raises ValueError."""
    y = _adaptive("global_max_pool2d", "max", x, 1)
    return reshape(y, (y.shape[0], y.shape[3]))


def _adaptive(operation: str, kind: str, x: Tensor, output_size: int | Pair) -> Tensor:
    x = tensor(x)
    return _pool(operation, kind, shape_of(adaptive_pool2d_shape, operation, x.data.shape, output_size), x)


def _pool(operation: str, kind: str, shape: Pool2dShape, x: Tensor) -> Tensor:
    backend = backend_of(operation, x)
    y = backend.empty(shape.y, x.data.dtype)
    record_it = x.requires_grad and grad_enabled()
    index = backend.empty(shape.y, shape.index_dtype) if record_it and kind == "max" else None
    backend.pool2d_forward(kind, shape, x.data, y, index)
    return record(y, Pool2d(backend, (x,), (kind, shape, index))) if record_it else wrap(y)
