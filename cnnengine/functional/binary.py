"""Elementwise arithmetic with NumPy's broadcasting, and its derivatives. A Python number takes the tensor's dtype."""

from __future__ import annotations

from typing import Any, ClassVar

from ..autograd import Function, grad_enabled
from ..backends.contract import Array
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, full, unary_array
from ._common import backend_of, operands, tensor
from .reduce import sum_to


class Binary(Function):
    """An operation of two operands; saved: (a, b)"""

    __slots__ = ()

    def _pass(self, da: Array | None, db: Array | None) -> tuple[Array | None, ...]:
        """Gradients of the broadcast operands, summed back to the operands' shapes"""
        a, b = self.saved
        return (
            None if da is None else sum_to(self.backend, da, a.shape),
            None if db is None else sum_to(self.backend, db, b.shape),
        )


class Add(Binary):
    __slots__ = ()
    shares: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return self._pass(dy if self.needs(0) else None, dy if self.needs(1) else None)


class Sub(Binary):
    __slots__ = ()
    shares: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return self._pass(
            dy if self.needs(0) else None, unary_array(self.backend, "neg", dy) if self.needs(1) else None
        )


class Mul(Binary):
    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        a, b = self.saved
        return self._pass(
            binary_array(self.backend, "mul", dy, b) if self.needs(0) else None,
            binary_array(self.backend, "mul", dy, a) if self.needs(1) else None,
        )


class Div(Binary):
    """d(a/b) = dy/b, -dy*(a/b)/b"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        (a, b), backend = self.saved, self.backend
        over = binary_array(backend, "div", dy, b)
        db = None
        if self.needs(1):
            quotient = binary_array(backend, "div", a, b)
            db = unary_array(backend, "neg", binary_array(backend, "mul", over, quotient))
        return self._pass(over if self.needs(0) else None, db)


class Pow(Binary):
    """d(a^b) = dy * b * a^(b-1), dy * a^b * log(a)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        (a, b), backend = self.saved, self.backend
        da = db = None
        if self.needs(0):
            less = binary_array(backend, "sub", b, full(backend, (), dy.dtype, 1.0))
            lower = binary_array(backend, "pow", a, less)
            da = binary_array(backend, "mul", dy, binary_array(backend, "mul", b, lower))
        if self.needs(1):
            power = binary_array(backend, "mul", binary_array(backend, "pow", a, b), unary_array(backend, "log", a))
            db = binary_array(backend, "mul", dy, power)
        return self._pass(da, db)


class Unary(Function):
    """saved: (op, x, y)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0,)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        op, x, y = self.saved
        backend = self.backend
        if op == "neg":
            return (unary_array(backend, "neg", dy),)
        if op == "exp":
            return (binary_array(backend, "mul", dy, y),)
        if op == "log":
            return (binary_array(backend, "div", dy, x),)
        half = binary_array(backend, "mul", dy, full(backend, (), dy.dtype, 0.5))
        return (binary_array(backend, "div", half, y),)  # sqrt: dy / (2 y)


def add(a: Any, b: Any) -> Tensor:
    """a + b, broadcast. Raises ValueError for shapes, TypeError for dtypes."""
    return _binary("add", Add, a, b)


def sub(a: Any, b: Any) -> Tensor:
    """a - b, broadcast. Raises as ``add``."""
    return _binary("sub", Sub, a, b)


def mul(a: Any, b: Any) -> Tensor:
    """a * b, broadcast. Raises as ``add``."""
    return _binary("mul", Mul, a, b)


def div(a: Any, b: Any) -> Tensor:
    """a / b, broadcast; division by zero gives infinity or NaN. Raises as ``add``."""
    return _binary("div", Div, a, b)


def pow(a: Any, b: Any) -> Tensor:
    """a ** b, broadcast; NaN for a negative a and a fractional b. Raises as ``add``."""
    return _binary("pow", Pow, a, b)


def neg(x: Any) -> Tensor:
    """-x of any shape."""
    return _unary("neg", x)


def exp(x: Any) -> Tensor:
    """e to the power of x, of any shape."""
    return _unary("exp", x)


def log(x: Any) -> Tensor:
    """Natural logarithm of any shape; -infinity at 0, NaN below."""
    return _unary("log", x)


def sqrt(x: Any) -> Tensor:
    """Square root of any shape; NaN below 0."""
    return _unary("sqrt", x)


def _binary(op: str, function: type[Binary], a: Any, b: Any) -> Tensor:
    a, b = operands(op, a, b)
    backend = backend_of(op, a)
    y = binary_array(backend, op, a.data, b.data)
    if (a.requires_grad or b.requires_grad) and grad_enabled():
        return record(y, function(backend, (a, b), (a.data, b.data)))
    return wrap(y)


def _unary(op: str, x: Any) -> Tensor:
    x = tensor(x)
    if not x.size:
        raise ValueError(f"{op}: empty x: {x.shape}")
    backend = backend_of(op, x)
    y = unary_array(backend, op, x.data)
    if x.requires_grad and grad_enabled():
        return record(y, Unary(backend, (x,), (op, x.data, y)))
    return wrap(y)
