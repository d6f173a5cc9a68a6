"""Guided backpropagation: within a scope, rectifiers let only positive gradients through.

Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for simplicity: the all convolutional net", arXiv 1412.6806,
section 3.4: at a ReLU, dx = dy where y > 0 and dy > 0, else 0. A ReLU6 is treated alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ..backends.contract import Array, Backend

RECTIFIERS = ("relu", "relu6")


@dataclass(slots=True)
class Guided:
    """How many rectifiers a backward pass has met within the scope."""

    rectifiers: int = 0


_scope: ContextVar[Guided | None] = ContextVar("guided_relu", default=None)


@contextmanager
def guided_relu() -> Iterator[Guided]:
    """Within the block, backward passes are guided: where a ReLU or ReLU6 would hand on a gradient, it hands on its
    positive part. Yields the number of those that did, so that a network without any can be told apart."""
    scope = Guided()
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def guided(backend: Backend, kind: str, dy: Array) -> Array:
    """What an activation of that kind multiplies its derivative with: dy, or within ``guided_relu`` its positive
    part."""
    scope = _scope.get()
    if scope is None or kind not in RECTIFIERS:
        return dy
    scope.rectifiers += 1
    positive = backend.empty(dy.shape, dy.dtype)
    backend.activation_forward("relu", dy, positive, 0.0)
    return positive
