"""Elementwise arithmetic with NumPy's broadcasting, and its derivatives. A Python number takes the tensor's dtype."""

from __future__ import annotations

from typing import Any, ClassVar

from ..autograd import Function, grad_enabled
from ..backends.contract import Array
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, constant, unary_array
from ._autocast import wide
from ._common import autocast_region, backend_of, operands, tensor
from .reduce import sum_to


class Binary(Function):
    """An operation of two operands; saved: (shape of a, shape of b, a, b), without a and b where ``reads`` is empty"""

    __slots__ = ()

    def _pass(self, da: Array | None, db: Array | None) -> tuple[Array | None, ...]:
        """Gradients of the broadcast operands, summed back to the operands' shapes"""
        a_shape, b_shape = self.saved[:2]
        return (
            None if da is None else sum_to(self.backend, da, a_shape),
            None if db is None else sum_to(self.backend, db, b_shape),
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
        _, _, a, b = self.saved
        return self._pass(
            binary_array(self.backend, "mul", dy, b) if self.needs(0) else None,
            binary_array(self.backend, "mul", dy, a) if self.needs(1) else None,
        )


class Div(Binary):
    """d(a/b) = dy/b, -dy*(a/b)/b"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        (_, _, a, b), backend = self.saved, self.backend
        over = binary_array(backend, "div", dy, b)
        db = None
        if self.needs(1):
            quotient = binary_array(backend, "div", a, b)
            db = unary_array(backend, "neg", binary_array(backend, "mul", over, quotient))
        return self._pass(over if self.needs(0) else None, db)


class Pow(Binary):
    """d(a^b) = dy * b * a^(b-1), dy * a^b * log(a); both 0 at 0^0, as PyTorch's"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        (_, _, a, b), backend = self.saved, self.backend
        da = db = None
        zero = constant(backend, dy.dtype, 0.0)
        if self.needs(0):  # where b is 0 the exponent stays 0: 0 * a^-1 is NaN at a = 0
            less = binary_array(backend, "sub", b, constant(backend, dy.dtype, 1.0))
            less = binary_array(backend, "add", less, binary_array(backend, "equal", b, zero))
            lower = binary_array(backend, "pow", a, less)
            da = binary_array(backend, "mul", dy, binary_array(backend, "mul", b, lower))
        if self.needs(1):  # where a is 0 the logarithm is that of 1: 0 * log(0) is NaN
            positive = binary_array(backend, "add", a, binary_array(backend, "equal", a, zero))
            slope = binary_array(
                backend, "mul", binary_array(backend, "pow", a, b), unary_array(backend, "log", positive)
            )
            db = binary_array(backend, "mul", dy, slope)
        return self._pass(da, db)


class Neg(Function):
    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return (unary_array(self.backend, "neg", dy),)


class Exp(Function):
    """d exp(x) = dy * y; saved: y"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return (binary_array(self.backend, "mul", dy, self.saved),)


class Log(Function):
    """d log(x) = dy / x; saved: x"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0,)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return (binary_array(self.backend, "div", dy, self.saved),)


class Sqrt(Function):
    """d sqrt(x) = dy / (2 y); saved: y"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        half = binary_array(self.backend, "mul", dy, constant(self.backend, dy.dtype, 0.5))
        return (binary_array(self.backend, "div", half, self.saved),)


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
    if not isinstance(a, Tensor) and autocast_region() is not None:  # a reciprocal leaves float16's range
        b = wide(b)
    return _binary("div", Div, a, b)


def pow(a: Any, b: Any) -> Tensor:
    """a ** b, broadcast; NaN for a negative a and a fractional b. Raises as ``add``."""
    if autocast_region() is not None:
        a, b = wide(a), wide(b)
    return _binary("pow", Pow, a, b)


def neg(x: Any) -> Tensor:
    """-x of any shape."""
    return _unary("neg", Neg, x)


def exp(x: Any) -> Tensor:
    """e to the power of x, of any shape."""
    return _unary("exp", Exp, x if autocast_region() is None else wide(x))


def log(x: Any) -> Tensor:
    """Natural logarithm of any shape; -infinity at 0, NaN below."""
    return _unary("log", Log, x if autocast_region() is None else wide(x))


def sqrt(x: Any) -> Tensor:
    """Square root of any shape; NaN below 0."""
    return _unary("sqrt", Sqrt, x)


def _binary(op: str, function: type[Binary], a: Any, b: Any) -> Tensor:
    a, b = operands(op, a, b)
    backend = backend_of(op, a)
    y = binary_array(backend, op, a.data, b.data)
    if (a.requires_grad or b.requires_grad) and grad_enabled():
        kept = (a.data, b.data) if function.reads else ()
        return record(y, function(backend, (a, b), (a.data.shape, b.data.shape, *kept)))
    return wrap(y)


def _unary(op: str, function: type[Function], x: Any) -> Tensor:
    x = tensor(x)
    if not x.size:
        raise ValueError(f"{op}: empty x: {x.shape}")
    backend = backend_of(op, x)
    y = unary_array(backend, op, x.data)
    if x.requires_grad and grad_enabled():
        return record(y, function(backend, (x,), x.data if function.reads else y if function.reads_result else None))
    return wrap(y)
