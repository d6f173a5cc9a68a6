"""Activations, one value at a time."""

from __future__ import annotations

from typing import ClassVar

from ..autograd import Function, grad_enabled
from ..backends.contract import ACTIVATION_SAVES, Array
from ..tensor import Tensor, record, wrap
from ._common import backend_of, tensor


class Activation(Function):
    """saved: (kind, x or y)"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        kind, saved = self.saved
        dx = self.backend.empty(dy.shape, dy.dtype)
        self.backend.activation_backward(kind, saved, dy, dx)
        return (dx,)


def relu(x: Tensor) -> Tensor:
    """max(x, 0) of any shape; NaN stays NaN, and the derivative at 0 is 0. Raises ValueError for an empty x."""
    return _activate("relu", tensor(x))


def _activate(kind: str, x: Tensor) -> Tensor:
    data = x.data
    if not data.size:
        raise ValueError(f"{kind}: empty x: {data.shape}")
    backend = backend_of(kind, x)
    y = backend.empty(data.shape, data.dtype)
    backend.activation_forward(kind, data, y)
    if x.requires_grad and grad_enabled():
        return record(y, Activation(backend, (x,), (kind, data if ACTIVATION_SAVES[kind] == "x" else y)))
    return wrap(y)
