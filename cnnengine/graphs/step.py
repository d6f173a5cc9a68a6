"""A step under way for a graph: its first run, which measures its memory, and its capture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import numpy as np

from ..backends.contract import Array
from ..errors import Unsupported
from ..tensor import Tensor


class Step:
    """What ``replay.Capture`` is in a first run: everything happens at once."""

    records = defers = False

    def __init__(self) -> None:
        self.leaves: dict[int, Tensor] = {}  # those that got a gradient

    def every_time(self, action: Callable[[], object]) -> None:
        """It was done."""

    def check(self, condition: Callable[[], object]) -> None:
        """There is no replay yet."""

    def on_arrays(self, operation: Callable[[], object]) -> None:
        operation()

    def copied(self, array: Array) -> Array:
        return array.copy()

    def leaf(self, tensor: Tensor, gradient: Tensor | None) -> None:
        self.leaves[id(tensor)] = tensor


class Captured(Step, ABC):
    """A capture, and what makes its replays. ``first`` is the first run, which was on the same shapes."""

    records = True

    def __init__(self, first: Step) -> None:
        super().__init__()
        self._before = {key: leaf.grad for key, leaf in first.leaves.items()}
        self._checks: list[Callable[[], object]] = []
        self._actions: list[Callable[[], object]] = []
        self._bindings: list[tuple[Tensor, Tensor | None]] = []  # leaves with the gradients that a run leaves behind

    @abstractmethod
    def launch(self) -> None:
        """Everything that was captured, once."""

    def finish(self) -> None:
        """After the capture, before its first launch."""
        self._bindings = [(leaf, leaf.grad) for leaf in self.leaves.values()]

    def again(self) -> None:
        """A replay. Raises RuntimeError, having launched nothing, where it would not be what the step does now."""
        for condition in self._checks:
            condition()
        for action in self._actions:
            action()
        self.launch()
        for leaf, gradient in self._bindings:
            leaf.grad = gradient

    def every_time(self, action: Callable[[], object]) -> None:
        self._actions.append(action)

    def check(self, condition: Callable[[], object]) -> None:
        self._checks.append(condition)

    def lasting(self, make: Callable[[], Array]) -> Array:
        raise RuntimeError(
            "cnn.graph: an optimizer's state is missing that the step's first run had; make a new graph where a"
            " parameter begins to get gradients"
        )

    def leaf(self, tensor: Tensor, gradient: Tensor | None) -> None:
        if id(tensor) in self.leaves:
            return
        super().leaf(tensor, gradient)
        self.check(partial(_same_data, tensor, tensor.data))
        if gradient is not None:
            self.check(partial(_same_gradient, tensor, gradient))
        elif self._before.get(id(tensor)) is None:  # else the step itself clears it
            self.check(partial(_no_gradient, tensor))


def _same_data(tensor: Tensor, data: Array) -> None:
    if tensor.data is not data:
        raise RuntimeError(
            f"cnn.graph: the data of a parameter {tensor.shape} is another array than at the capture; write into"
            " it in place, as load_state_dict does, or call reset() on the graph"
        )


def _same_gradient(tensor: Tensor, gradient: Tensor) -> None:
    if tensor.grad is None or tensor.grad.data is not gradient.data:
        raise RuntimeError(
            f"cnn.graph: the captured step adds to the gradient of a parameter {tensor.shape}, which was cleared"
            " or replaced since; clear gradients in the step, or with zero_grad(set_to_none=False)"
        )


def _no_gradient(tensor: Tensor) -> None:
    if tensor.grad is not None:
        raise RuntimeError(
            f"cnn.graph: at the capture a parameter {tensor.shape} had no gradient before the step, now it has"
            " one; clear gradients in the step, or before each call of the graph"
        )


READ = (
    "a result is read on the host (float(tensor), .item(), .numpy(), .to('cpu'), an if on a tensor) in a step of"
    " cnn.graph: while it is captured nothing has been computed yet; return the tensor and read it after the call"
)


class HostApart(ABC):
    """Of a backend for a step under way: what it refuses, since a replay would not do it again. ``scalar`` makes an
    array of one number, which a replay may keep."""

    @abstractmethod
    def scalar(self, a: np.ndarray) -> Array: ...

    def to_host(self, a: Array) -> np.ndarray:
        raise Unsupported(READ)

    def synchronize(self) -> None:
        raise Unsupported(READ)

    def to_device(self, a: np.ndarray) -> Array:
        if a.size > 1:
            raise Unsupported(
                f"a host array {a.shape} {a.dtype} is moved to the device in a step of cnn.graph: every replay"
                " would see the values it has now; give it to the graph as an argument"
            )
        return self.scalar(a)
