"""Dropout (Srivastava et al., JMLR 15, 2014), inverted: what is kept is scaled by 1 / (1 - p).

The mask is Philox4x32-10 over the element's index, so it is the same on every backend for the same seed, and the
backward pass makes it again instead of keeping it.
"""

from __future__ import annotations

from functools import lru_cache

from .. import random, replay
from ..autograd import Function, grad_enabled
from ..backends.contract import Array
from ..tensor import Tensor, record, wrap
from ._common import backend_of, tensor


class Dropout(Function):
    """saved: (threshold, scale, state)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        threshold, scale, state = self.saved
        dx = self.backend.empty(dy.shape, dy.dtype)
        self.backend.dropout(dy, dx, threshold, scale, state)
        return (dx,)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """x of any shape, each element 0 with probability p, else x / (1 - p); x itself where not training or p is 0.

    p in [0, 1); it is rounded to a multiple of 2**-32. Raises ValueError.
    """
    x = tensor(x)
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1), received {p!r}")
    data = x.data
    if not data.size:
        raise ValueError(f"dropout: empty x: {data.shape}")
    threshold, scale = threshold_and_scale(float(p))
    if not training or threshold == 0:
        return x
    backend = backend_of("dropout", x)
    state = replay.fresh(backend, random.next_dropout_state)
    y = backend.empty(data.shape, data.dtype)
    backend.dropout(data, y, threshold, scale, state)
    if x.requires_grad and grad_enabled():
        return record(y, Dropout(backend, (x,), (threshold, scale, state)))
    return wrap(y)


@lru_cache(256)
def threshold_and_scale(p: float) -> tuple[int, float]:
    """(what a kept element's word is at least, what it is multiplied by)"""
    return min(round(p * 2**32), 2**32 - 1), 1.0 / (1.0 - p)
