"""Stochastic depth (Huang, Sun, Liu, Sedra and Weinberger, arXiv 1603.09382): a branch beside a shortcut is left out at
random, for each image by itself or for the whole batch; where it stays it is scaled by 1 / (1 - p).

The numbers, one an image, are dropout's: Philox4x32-10, so that a seed gives the same ones on every backend.
"""

from __future__ import annotations

from ..autograd import Function, grad_enabled
from ..backends.contract import Array
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, full
from ._common import backend_of, tensor
from .dropout import dropout

MODES = ("row", "batch")


class DropPath(Function):
    """dx = dy * mask; saved: mask (N, 1, ...) or (1, 1, ...)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        return (binary_array(self.backend, "mul", dy, self.saved),)


def drop_path(x: Tensor, p: float = 0.5, training: bool = True, mode: str = "row") -> Tensor:
    """x (N, ...), each x[n] 0 with probability p, else x[n] / (1 - p); with ``mode="batch"`` all of x or nothing. x
    itself where not training or p is 0.

    p in [0, 1). Raises ValueError.
    """
    x = tensor(x)
    if not 0 <= p < 1:
        raise ValueError(f"drop_path: p must be in [0, 1), received {p!r}")
    if mode not in MODES:
        raise ValueError(f"drop_path: mode must be one of {', '.join(MODES)}, received {mode!r}")
    if not x.ndim or not x.size:
        raise ValueError(f"drop_path: x must be (N, ...) and not empty, received {x.shape}")
    if not training or p == 0:
        return x
    backend = backend_of("drop_path", x)
    shape = (x.shape[0] if mode == "row" else 1, *(1,) * (x.ndim - 1))
    mask = dropout(wrap(full(backend, shape, x.dtype, 1.0)), p).data
    y = binary_array(backend, "mul", x.data, mask)
    if x.requires_grad and grad_enabled():
        return record(y, DropPath(backend, (x,), mask))
    return wrap(y)
