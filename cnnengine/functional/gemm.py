"""Matrix products: ``matmul`` with NumPy's meaning, and ``linear``, a layer's x @ w.T + b."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, ClassVar

from ..autograd import Function, grad_enabled
from ..backends.contract import IDENTITY, Array, Backend, Epilogue
from ..shapes import CACHED_SHAPES, GemmShape, gemm_shape, reduce_shape
from ..tensor import Tensor, record, wrap
from ._common import autocast_region, backend_of, operands, same_kind, tensor
from .activation import activate, gradient, parameter_of, reads_result
from .layout import reshape


class Linear(Function):
    """saved: (x as (M, in), w)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, w = self.saved
        backend = self.backend
        (rows, inputs), outputs = x.shape, w.shape[0]
        dx = dw = db = None
        if self.needs(0):
            dx = backend.empty((*dy.shape[:-1], inputs), dy.dtype)
            backend.gemm(gemm_shape(1, rows, inputs, outputs, False, False, False, False), dy, w, dx, IDENTITY)
        if self.needs(1):
            dw = backend.empty(w.shape, dy.dtype)
            backend.gemm(gemm_shape(1, outputs, inputs, rows, True, False, False, False), dy, x, dw, IDENTITY)
        if self.needs(2):
            db = backend.empty((outputs,), dy.dtype)
            backend.reduce("sum", reduce_shape(1, rows, outputs), dy, db)
        return dx, dw, db


class LinearActivation(Linear):
    """A linear layer and an activation whose derivative is a function of its result; saved: (Linear's, Activation's)"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        self.saved, activation = self.saved
        return super().backward(gradient(self.backend, activation, dy))


class Matmul(Function):
    """c (batch, M, N) = a (batch, M, K) or (M, K) @ b (batch, K, N); saved: (a, b)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        a, b = self.saved
        backend, batch = self.backend, b.shape[0]
        M, N, K = dy.shape[1], dy.shape[2], b.shape[1]
        shared = a.ndim == 2
        da = db = None
        if self.needs(0):
            da = backend.empty((batch, M, K), dy.dtype)
            backend.gemm(gemm_shape(batch, M, K, N, False, True, False, False), dy, b, da, IDENTITY)
            if shared:
                total = backend.empty((M, K), dy.dtype)
                backend.reduce("sum", reduce_shape(1, batch, M * K), da, total)
                da = total
        if self.needs(1):
            db = backend.empty(b.shape, dy.dtype)
            backend.gemm(gemm_shape(batch, K, N, M, True, False, shared, False), a, dy, db, IDENTITY)
        return da, db


def linear(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    activation: str = "identity",
    activation_parameter: float | None = None,
) -> Tensor:
    """x (..., in) @ w (out, in).T + b (out,): (..., out), then an activation as in ``conv2d``. Raises ValueError for
    shapes and names, TypeError for dtypes."""
    x, w, region = tensor(x), tensor(w), autocast_region()
    if region is not None:
        x, w, b = region.low("linear", x, w, b)
    data, w_data = x.data, w.data
    x_shape, w_shape, dtype = data.shape, w_data.shape, data.dtype
    backend = backend_of("linear", x)
    same_kind("linear", x, "w", w)
    y_shape, shape = _linear_shape(x_shape, w_shape)
    bias = None
    if b is not None:
        b = tensor(b)
        same_kind("linear", x, "b", b)
        bias = b.data
        if bias.shape != (w_shape[0],):
            raise ValueError(f"linear: b must have shape ({w_shape[0]},), received {bias.shape}")
    recorded = grad_enabled() and (x.requires_grad or w.requires_grad or (b is not None and b.requires_grad))
    parameter, fused = 0.0, activation != "identity"
    if fused:
        parameter = parameter_of("linear", activation, activation_parameter)
        fused = not recorded or reads_result(activation, parameter)
    epilogue = IDENTITY
    if bias is not None or fused:
        epilogue = Epilogue(bias, None, None, None, activation if fused else "identity", parameter)
    rows = data if len(x_shape) == 2 else data.reshape(-1, shape.K)
    y = backend.empty(y_shape, dtype)
    backend.gemm(shape, rows, w_data, y, epilogue)
    if not recorded:
        return wrap(y)
    if fused:
        return record(y, LinearActivation(backend, (x, w, b), ((rows, w_data), (activation, y, parameter))))
    result = record(y, Linear(backend, (x, w, b), (rows, w_data)))
    return result if activation == "identity" else activate(activation, result, parameter)


@lru_cache(CACHED_SHAPES)
def _linear_shape(x: tuple[int, ...], w: tuple[int, ...]) -> tuple[tuple[int, ...], GemmShape]:
    """y's shape, and that of the product with x as (M, in). Raises ValueError."""
    if len(w) != 2 or not x or x[-1] != w[1]:
        raise ValueError(f"linear: expected x (..., in) and w (out, in), received x {x}, w {w}")
    if 0 in x or 0 in w:
        raise ValueError(f"linear: an operand is empty: x {x}, w {w}")
    return (*x[:-1], w[0]), gemm_shape(1, prod(x[:-1]), w[0], w[1], False, True, False, False)


def matmul(a: Any, b: Any) -> Tensor:
    """a @ b: (..., M, K) @ (..., K, N); a vector is a row on the left, a column on the right.

    Leading axes must be equal, or one operand has none. Raises ValueError for shapes, TypeError for dtypes.
    """
    region = autocast_region()
    if region is not None:
        a, b = region.low("matmul", a, b)
    a, b = operands("matmul", a, b)
    if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: expected (..., M, K) @ (..., K, N), received {a.shape} @ {b.shape}")
    if not a.size or not b.size:
        raise ValueError(f"matmul: an operand is empty: {a.shape} @ {b.shape}")
    if a.ndim > 2 and b.ndim > 2 and a.shape[:-2] != b.shape[:-2]:
        raise ValueError(f"matmul: leading axes differ: {a.shape} @ {b.shape}")
    left = reshape(a, (1, -1)) if a.ndim == 1 else a
    right = reshape(b, (-1, 1)) if b.ndim == 1 else b
    lead = left.shape[:-2] or right.shape[:-2]
    M, N, K = left.shape[-2], right.shape[-1], left.shape[-1]
    if right.ndim == 2:  # one b for all rows of a: a single product
        c = _product(reshape(left, (1, -1, K)), reshape(right, (1, K, N)))
    elif left.ndim == 2:
        c = _product(left, reshape(right, (-1, K, N)))
    else:
        c = _product(reshape(left, (-1, M, K)), reshape(right, (-1, K, N)))
    shape = (*lead, *((M,) if a.ndim > 1 else ()), *((N,) if b.ndim > 1 else ()))
    assert prod(shape) == c.size
    return reshape(c, shape)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a (batch, M, K) or (M, K) @ b (batch, K, N)"""
    backend: Backend = backend_of("matmul", a)
    batch, K, N = b.shape
    M, shared = a.shape[-2], a.ndim == 2
    c = backend.empty((batch, M, N), a.dtype)
    backend.gemm(gemm_shape(batch, M, N, K, False, False, shared, False), a.data, b.data, c, IDENTITY)
    if grad_enabled() and (a.requires_grad or b.requires_grad):
        return record(c, Matmul(backend, (a, b), (a.data, b.data)))
    return wrap(c)
