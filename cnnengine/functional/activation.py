"""Activations, one value at a time. docs/semantics.md says what each does at its kinks, infinities and NaN."""

from __future__ import annotations

import math
from typing import ClassVar

from ..autograd import Function, grad_enabled
from ..backends.contract import ACTIVATION_SAVES, Array, Backend
from ..tensor import Tensor, record, wrap
from ._common import backend_of, tensor
from ._guided import guided

DEFAULT_PARAMETERS = {"leaky_relu": 0.01, "elu": 1.0}  # kind -> slope, scale


class Activation(Function):
    """An activation whose derivative is a function of its result; saved: (kind, y, parameter)"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return (gradient(self.backend, self.saved, dy),)


class ActivationOfInput(Activation):
    """One whose derivative needs the input; saved: (kind, x, parameter)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0,)
    reads_result: ClassVar[bool] = False


def gradient(backend: Backend, saved: tuple[str, Array, float], dy: Array) -> Array:
    """dx of an activation, in a new array; saved: (kind, x or y, parameter)"""
    kind, read, parameter = saved
    dx = backend.empty(dy.shape, dy.dtype)
    backend.activation_backward(kind, read, guided(backend, kind, dy), dx, parameter)
    return dx


def relu(x: Tensor) -> Tensor:
    """max(x, 0) of any shape; NaN stays NaN, and the derivative at 0 is 0. Raises ValueError for an empty x."""
    return activate("relu", tensor(x))


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6) of any shape; the derivative at 0 and 6 is 0. Raises as ``relu``."""
    return activate("relu6", tensor(x))


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else ``negative_slope`` * x. Raises as ``relu``, and ValueError for a slope that is not finite."""
    return activate("leaky_relu", tensor(x), negative_slope)


def silu(x: Tensor) -> Tensor:
    """x / (1 + exp(-x)), also called swish. Raises as ``relu``. Elfwing et al. 2018."""
    return activate("silu", tensor(x))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x P(X <= x) for a normal X; ``approximate="tanh"``: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).

    Raises as ``relu``, and ValueError for another ``approximate``. Hendrycks and Gimpel 2016.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', received {approximate!r}")
    return activate("gelu" if approximate == "none" else "gelu_tanh", tensor(x))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)). Raises as ``relu``."""
    return activate("sigmoid", tensor(x))


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent. Raises as ``relu``."""
    return activate("tanh", tensor(x))


def hardswish(x: Tensor) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6. Raises as ``relu``. Howard et al. 2019."""
    return activate("hardswish", tensor(x))


def hardsigmoid(x: Tensor) -> Tensor:
    """min(max(x + 3, 0), 6) / 6. Raises as ``relu``."""
    return activate("hardsigmoid", tensor(x))


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else ``alpha`` * (exp(x) - 1). Raises as ``relu``, and ValueError for an alpha that is not finite.
    Clevert et al. 2016."""
    return activate("elu", tensor(x), alpha)


def activate(kind: str, x: Tensor, parameter: float = 0.0) -> Tensor:
    """``kind`` of the contract's ACTIVATIONS. Raises ValueError for an empty x and a parameter that is not finite."""
    data = x.data
    if not data.size:
        raise ValueError(f"{kind}: empty x: {data.shape}")
    recorded = x.requires_grad and grad_enabled()
    if parameter:
        parameter = checked_parameter(kind, parameter)
        if recorded and parameter < 0 and kind == "elu":  # elu of -alpha, the lower side negated
            return activate("leaky_relu", activate("elu", x, -parameter), -1.0)
    backend = backend_of(kind, x)
    y = backend.empty(data.shape, data.dtype)
    backend.activation_forward(kind, data, y, parameter)
    if recorded:
        if reads_result(kind, parameter):
            return record(y, Activation(backend, (x,), (kind, y, parameter)))
        return record(y, ActivationOfInput(backend, (x,), (kind, data, parameter)))
    return wrap(y)


def reads_result(kind: str, parameter: float) -> bool:
    """Whether the backward pass is given the result. A slope or scale below 0 makes the result positive on both sides
    of 0: then only the input tells them apart."""
    return parameter >= 0 and ACTIVATION_SAVES[kind] == "y"


def parameter_of(operation: str, kind: str, parameter: float | None) -> float:
    """The slope or scale of an activation that follows ``operation``, 0 for a kind without one; None is the default.
    Raises ValueError, also for a kind that the contract does not have."""
    if kind not in ACTIVATION_SAVES:
        raise ValueError(f"{operation}: activation must be one of {', '.join(ACTIVATION_SAVES)}, received {kind!r}")
    if kind not in DEFAULT_PARAMETERS:
        return 0.0
    return checked_parameter(kind, DEFAULT_PARAMETERS[kind] if parameter is None else parameter)


def checked_parameter(kind: str, parameter: float) -> float:
    """The slope of leaky_relu or the scale of elu. Raises ValueError unless it is finite."""
    if not math.isfinite(parameter):
        name = "negative_slope" if kind == "leaky_relu" else "alpha"
        raise ValueError(f"{kind}: {name} must be a finite number, received {parameter!r}")
    return float(parameter)
