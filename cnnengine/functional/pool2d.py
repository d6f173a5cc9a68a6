"""Pooling. Padding never wins a maximum; of equal values the first in the window wins; a NaN wins over all."""

from __future__ import annotations

from typing import ClassVar

from ..autograd import Function, grad_enabled
from ..backends.contract import Array
from ..shapes import Pair, Pool2dShape, adaptive_pool2d_shape, pool2d_shape
from ..tensor import Tensor, record, wrap
from ._common import backend_of, shape_of, tensor
from .activation import activate, gradient, parameter_of, reads_result
from .layout import reshape


class Pool2d(Function):
    """saved: (kind, shape, index)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        kind, shape, index = self.saved
        dx = self.backend.empty(shape.x, dy.dtype)
        self.backend.pool2d_backward(kind, shape, dy, index, dx)
        return (dx,)


class Pool2dActivation(Pool2d):
    """Pooling and an activation whose derivative is a function of its result; saved: (Pool2d's, Activation's)"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        self.saved, activation = self.saved
        return super().backward(gradient(self.backend, activation, dy))


def max_pool2d(
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
    *,
    activation: str = "identity",
    activation_parameter: float | None = None,
) -> Tensor:
    """Largest value of each window of x (N, H, W, C): (N, P, Q, C), then an activation as in ``conv2d``. ``stride``
    defaults to ``kernel_size``. Raises ValueError."""
    x = tensor(x)
    shape = shape_of(pool2d_shape, "max_pool2d", x.data.shape, kernel_size, stride, padding, dilation, ceil_mode)
    if activation == "identity":
        return _pool("max_pool2d", "max", shape, x)
    parameter = parameter_of("max_pool2d", activation, activation_parameter)
    if not reads_result(activation, parameter):
        return activate(activation, _pool("max_pool2d", "max", shape, x), parameter)
    return _pool("max_pool2d", "max", shape, x, activation, parameter)


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


def _pool(
    operation: str, kind: str, shape: Pool2dShape, x: Tensor, activation: str = "identity", parameter: float = 0.0
) -> Tensor:
    """Pooling, then an activation whose backward pass is given its result."""
    backend, data, y_shape = backend_of(operation, x), x.data, shape.y
    y = backend.empty(y_shape, data.dtype)
    record_it = x.requires_grad and grad_enabled()
    index = backend.empty(y_shape, shape.index_dtype) if record_it and kind == "max" else None
    backend.pool2d_forward(kind, shape, data, y, index)
    if activation != "identity":
        backend.activation_forward(activation, y, y, parameter)
    if not record_it:
        return wrap(y)
    saved = kind, shape, index
    if activation == "identity":
        return record(y, Pool2d(backend, (x,), saved))
    return record(y, Pool2dActivation(backend, (x,), (saved, (activation, y, parameter))))
