"""The tape: what a differentiable operation leaves behind, and the walk back over it.

An operation that a gradient may flow through makes a ``Function``: its backend, its parents, what its backward pass
reads. ``backward`` walks from the result to the leaves without recursion, each node once all its consumers are done,
and frees each node as it leaves it, so that activations live no longer than they must. There is no double backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

from .backends.contract import Array, Backend
from .shapes import broadcast_shape

if TYPE_CHECKING:
    from .tensor import Tensor

_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)
grad_enabled = _grad_enabled.get


@contextmanager
def no_grad() -> Iterator[None]:
    """Within the block nothing is recorded: results do not require a gradient. Also a decorator."""
    token = _grad_enabled.set(False)
    try:
        yield
    finally:
        _grad_enabled.reset(token)


class Function:
    """One recorded operation.

    ``parents`` are its inputs (None for one that is absent). A subclass sets ``reads``: which parents' values its
    backward pass needs unchanged; and ``shares``: True if ``backward`` may return dy itself or a view of it.
    """

    __slots__ = ("backend", "parents", "saved", "versions")
    reads: ClassVar[tuple[int, ...]] = ()
    shares: ClassVar[bool] = False

    def __init__(self, backend: Backend, parents: tuple[Tensor | None, ...], saved: Any) -> None:
        self.backend = backend
        self.parents: tuple[Tensor | None, ...] | None = parents
        self.saved = saved
        self.versions = [parents[i].version for i in self.reads]  # type: ignore[union-attr]

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        """Gradients of the parents, None where a parent needs none."""
        raise AssertionError(f"{type(self).__name__} defines no backward pass")

    def needs(self, i: int) -> bool:
        """Whether parent i requires a gradient."""
        parent = self.parents[i]  # type: ignore[index]
        return parent is not None and parent.requires_grad

    def check_unchanged(self) -> None:
        for i, version in zip(self.reads, self.versions, strict=True):
            parent = self.parents[i]  # type: ignore[index]
            if parent is not None and parent.version != version:
                raise RuntimeError(
                    f"backward of {type(self).__name__}: its input {i}, shape {parent.shape}, was changed in place"
                    " since the forward pass (for instance by an optimizer step); run the forward pass again"
                )


def backward(root: Tensor, gradient: Array) -> None:
    """Add d(root)/d(leaf) * gradient to the ``grad`` of every leaf that requires one."""
    if root.node is None:
        _accumulate(root, gradient, root_backend(root), shared=True)
        return
    pending = _count_consumers(root.node)
    gradients: dict[Function, Array] = {root.node: gradient}
    ready = [root.node]
    while ready:
        node = ready.pop()
        dy = gradients.pop(node, None)
        parents = node.parents
        assert parents is not None
        if dy is None:  # every path that led here carries no gradient
            results: tuple[Array | None, ...] = (None,) * len(parents)
        else:
            node.check_unchanged()
            results = node.backward(dy)
        for parent, dx in zip(parents, results, strict=True):
            if parent is None or not parent.requires_grad:
                continue
            source = parent.node
            if source is None:
                if dx is not None:
                    _accumulate(parent, dx, node.backend, node.shares)
                continue
            if dx is not None:
                known = gradients.get(source)
                gradients[source] = dx if known is None else add(node.backend, known, dx)
            pending[source] -= 1
            if not pending[source]:
                ready.append(source)
        node.parents = node.saved = None


def add(backend: Backend, a: Array, b: Array) -> Array:
    """a + b of equal shapes, in a new array"""
    y = backend.empty(a.shape, a.dtype)
    backend.binary("add", broadcast_shape("add", a.shape, b.shape)[1], a, b, y)
    return y


def root_backend(tensor: Tensor) -> Backend:
    from .backends.registry import active

    return active(tensor.data)


def _count_consumers(root: Function) -> dict[Function, int]:
    """How many recorded operations wait for each node's result. Raises RuntimeError where the tape is gone."""
    pending = {root: 0}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.parents is None:
            raise RuntimeError("backward: this graph was walked before and is freed; run the forward pass again")
        for parent in node.parents:
            if parent is not None and parent.node is not None:
                if parent.node not in pending:
                    pending[parent.node] = 0
                    stack.append(parent.node)
                pending[parent.node] += 1
    return pending


def _accumulate(leaf: Tensor, dx: Array, backend: Backend, shared: bool) -> None:
    """leaf.grad += dx; an array that others may hold is copied first, so that a gradient is its owner's alone."""
    from .tensor import wrap

    if leaf.grad is not None:
        leaf.grad = wrap(add(backend, leaf.grad.data, dx))
    else:
        leaf.grad = wrap(dx.copy() if shared else dx)
