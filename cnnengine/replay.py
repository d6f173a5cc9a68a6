"""What an operation does when the step it belongs to is captured, to be made again later (``cnnengine.graph``).

Launches are captured by themselves. Whatever else a step does in Python would happen once, at the capture: such code
says here what is to happen at every replay. Outside a capture all of it happens at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .errors import Unsupported

if TYPE_CHECKING:
    from .backends.contract import Array, Backend
    from .tensor import Tensor


class Capture(Protocol):
    """A step under way for a graph: its first run, or the capture."""

    records: bool  # whether launches are written down instead of made
    defers: bool  # whether NumPy's own operations on its arrays would come too early

    def every_time(self, action: Callable[[], object]) -> None: ...
    def check(self, condition: Callable[[], object]) -> None: ...
    def fresh(self, make: Callable[[], np.ndarray]) -> Array: ...
    def on_arrays(self, operation: Callable[[], object]) -> None: ...
    def copied(self, array: Array) -> Array: ...
    def lasting(self, make: Callable[[], Array]) -> Array: ...
    def leaf(self, tensor: Tensor, gradient: Tensor | None) -> None: ...


capture: ContextVar[Capture | None] = ContextVar("capture", default=None)
current = capture.get


def recording() -> bool:
    """Whether launches are written down instead of made."""
    step = current()
    return step is not None and step.records


def every_time(action: Callable[[], object]) -> None:
    """Now, and before each replay: what Python counts."""
    action()
    step = current()
    if step is not None:
        step.every_time(action)


def fresh(backend: Backend, make: Callable[[], np.ndarray]) -> Array:
    """What ``make`` returns, on the device; before each replay it is made anew and stored in the same place."""
    step = current()
    return backend.to_device(make()) if step is None else step.fresh(make)


def on_arrays(operation: Callable[[], object]) -> None:
    """An operation of NumPy or CuPy that is no verb of a backend."""
    step = current()
    if step is None:
        operation()
    else:
        step.on_arrays(operation)


def copied(array: Array) -> Array:
    """``array.copy()``"""
    step = current()
    return array.copy() if step is None else step.copied(array)


def lasting(make: Callable[[], Array]) -> Array:
    """An array that outlives the step, such as an optimizer's state: made in the first run, no part of a capture."""
    step = current()
    return make() if step is None else step.lasting(make)


def leaf(tensor: Tensor, gradient: Tensor | None) -> None:
    """A leaf got a gradient, or more of the one it had. While launches are written down that one is added to in place,
    so that each replay adds to what is there."""
    step = current()
    if step is not None:
        step.leaf(tensor, gradient)


def deferring() -> bool:
    """Whether NumPy's own operations on the arrays of the step would come too early."""
    step = current()
    return step is not None and step.defers


def refuse(what: str, why: str) -> None:
    """Raises Unsupported where a step is run for a graph: ``what`` cannot be part of one."""
    if current() is not None:
        raise Unsupported(f"{what} in a step of cnn.graph: {why}")


def refuse_deferred(what: str) -> None:
    """Raises Unsupported where NumPy would compute ``what`` before its inputs are there."""
    if deferring():
        raise Unsupported(f"{what} in a step of cnn.graph on the CPU: NumPy computes it, which is not captured")
