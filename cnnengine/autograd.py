"""The tape: what a differentiable operation leaves behind, and the walk back over it.

An operation that a gradient may flow through makes a ``Function``: its backend, its parents, what its backward pass
reads. The graph holds nodes and leaves, no results, so that an activation lives only as long as somebody reads it.
``backward`` walks from the result to the leaves without recursion, each node once all its consumers are done, and frees
each node as it leaves it. There is no double backward.
"""

from __future__ import annotations

from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, ClassVar

from .backends.contract import Array, Backend
from .shapes import broadcast_shape

if TYPE_CHECKING:
    from .tensor import Tensor

_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)
grad_enabled = _grad_enabled.get


class no_grad(ContextDecorator):
    """Within the block nothing is recorded: results do not require a gradient. Also a decorator."""

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []  # one for each time it has been entered

    def __enter__(self) -> None:
        self._tokens.append(_grad_enabled.set(False))

    def __exit__(self, *exception: object) -> None:
        _grad_enabled.reset(self._tokens.pop())

    def _recreate_cm(self) -> no_grad:
        return no_grad()  # a decorated function may run in several threads


class Function:
    """One recorded operation.

    ``parents`` has for each input the node it came from, or the leaf itself; None where no gradient is wanted or the
    input is absent. A subclass sets ``reads``: which inputs its backward pass needs unchanged; ``reads_result``:
    whether it needs its own result; ``shares``: whether ``backward`` may return dy itself or a view of it.
    """

    __slots__ = ("backend", "parents", "read", "saved")
    reads: ClassVar[tuple[int, ...]] = ()
    reads_result: ClassVar[bool] = False
    shares: ClassVar[bool] = False

    def __init__(self, backend: Backend, inputs: tuple[Tensor | None, ...], saved: Any) -> None:
        self.backend = backend
        self.saved = saved
        self.parents: list[Function | Tensor | None] | None = []
        for t in inputs:
            self.parents.append(None if t is None or not t.requires_grad else t.node or t)
        self.read: list[tuple[Array, list[int], int, int]] = []  # memory, the counter of its changes, what it was, i
        for i in self.reads:
            t = inputs[i]
            if t is not None:
                self.read.append((t.data, t.version, t.version[0], i))

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        """Gradients of the parents, None where a parent needs none."""
        raise AssertionError(f"{type(self).__name__} defines no backward pass")

    def needs(self, i: int) -> bool:
        """Whether input i requires a gradient."""
        return self.parents[i] is not None  # type: ignore[index]

    def check_unchanged(self) -> None:
        for array, version, count, i in self.read:
            if version[0] != count:
                what = f"input {i}" if i >= 0 else "result"
                raise RuntimeError(
                    f"backward of {type(self).__name__}: its {what}, shape {array.shape}, was changed in place"
                    " since the forward pass (for instance by an optimizer step); run the forward pass again"
                )

    def __reduce__(self) -> Any:
        raise TypeError("the result of a recorded operation cannot be deep-copied or pickled: .detach() it first")


def backward(root: Tensor, gradient: Array) -> None:
    """Add d(root)/d(leaf) * gradient to the ``grad`` of every leaf that requires one. Raises RuntimeError, before any
    gradient is touched, where the tape is gone or what it reads was changed."""
    if root.node is None:
        root.add_gradient(gradient, root_backend(root), shared=True)
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
            results = node.backward(dy)
        for parent, dx in zip(parents, results, strict=True):
            if parent is None:
                continue
            if not isinstance(parent, Function):
                if dx is not None and parent.requires_grad:
                    parent.add_gradient(dx, node.backend, node.shares)
                continue
            if dx is not None:
                known = gradients.get(parent)
                gradients[parent] = dx if known is None else add(node.backend, known, dx)
            pending[parent] -= 1
            if not pending[parent]:
                ready.append(parent)
        node.parents = node.saved = None
        node.read.clear()


def add(backend: Backend, a: Array, b: Array, in_place: bool = False) -> Array:
    """a + b of equal shapes, in a new array or in a"""
    y = a if in_place else backend.empty(a.shape, a.dtype)
    backend.binary("add", broadcast_shape("add", a.shape, b.shape)[1], a, b, y)
    return y


def root_backend(tensor: Tensor) -> Backend:
    from .backends.registry import active

    return active(tensor.data)


def _count_consumers(root: Function) -> dict[Function, int]:
    """How many recorded operations wait for each node's result. Raises RuntimeError as ``backward``."""
    pending = {root: 0}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.parents is None:
            raise RuntimeError("backward: this graph was walked before and is freed; run the forward pass again")
        node.check_unchanged()
        for parent in node.parents:
            if isinstance(parent, Function):
                if parent not in pending:
                    pending[parent] = 0
                    stack.append(parent)
                pending[parent] += 1
    return pending
