"""Steps on NumPy arrays: a capture is the list of what the step asked for, with addresses of an arena."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import numpy as np

from .. import replay
from ..backends import registry
from ..backends.contract import Array, Backend
from .arena import ALIGNMENT, Arena, Block, Measure
from .step import Captured, HostApart, Step


def allocate(nbytes: int) -> tuple[int, Any]:
    """Memory filled with NaN, and what holds it."""
    memory = np.full(nbytes + ALIGNMENT, 0xFF, np.uint8)
    return memory.ctypes.data + -memory.ctypes.data % ALIGNMENT, memory


class Verbs(Protocol):
    """What a backend has for steps under way: its verbs with memory from ``block``, made at once, or written down into
    the operations of a capture."""

    def at_once(self, backend: Any, block: Callable[[int], Block]) -> HostStep: ...
    def written_down(self, backend: Any, capture: HostCapture) -> HostStep: ...


class HostRun(Step):
    """The first run."""

    def __init__(self, backend: Backend, verbs: Verbs) -> None:
        super().__init__()
        self.measure = Measure(allocate)
        self.verbs = verbs
        self.backend: Any = verbs.at_once(backend, self.measure.block)

    def capture(self) -> HostCapture:
        return HostCapture(self)

    def fresh(self, make: Callable[[], np.ndarray]) -> Array:
        return make()

    def lasting(self, make: Callable[[], Array]) -> Array:
        with registry.using(self.backend.backend):
            return make()

    @contextmanager
    def running(self) -> Iterator[None]:
        with registry.using(self.backend):
            yield


class HostCapture(Captured):
    """The operations of a step. NumPy's own on its arrays would come too early: they are deferred, too, or refused; one
    that is neither reads NaN, which the arena is filled with."""

    defers = True

    def __init__(self, first: HostRun) -> None:
        super().__init__(first)
        self.arena = Arena(first.measure.peak, allocate)
        self.operations: list[Callable[[], object]] = []
        self.backend: Any = first.verbs.written_down(first.backend.backend, self)

    @property
    def nodes(self) -> int:
        return len(self.operations)

    @contextmanager
    def running(self) -> Iterator[None]:
        with registry.using(self.backend):
            yield
        self.backend.close()
        self.finish()

    def launch(self) -> None:
        for operation in self.operations:
            operation()

    def on_arrays(self, operation: Callable[[], object]) -> None:
        self.operations.append(operation)

    def copied(self, array: Array) -> Array:
        y: Array = self.backend.empty(array.shape, array.dtype)
        self.on_arrays(partial(np.copyto, self.borrowed(y), self.borrowed(array)))
        return y

    def fresh(self, make: Callable[[], np.ndarray]) -> Array:
        array = make()
        self.every_time(lambda: np.copyto(array, make()))
        return array

    def borrowed(self, value: Any) -> Any:
        """An array of the arena, or several, as such that do not hold their blocks, so that these may be taken again;
        anything else as it is."""
        if isinstance(value, list | tuple):
            return type(value)(map(self.borrowed, value))
        if not isinstance(value, np.ndarray):
            return value
        for address, nbytes in self.arena.pieces:
            offset = value.ctypes.data - address
            if 0 <= offset < nbytes:
                piece = np.asarray(Block(address, nbytes, None))
                return np.ndarray(value.shape, value.dtype, piece, offset, value.strides)
        return value


class HostStep(HostApart):
    """Of a backend on NumPy arrays, for a step under way: memory comes from ``block``, and what NumPy computes waits
    for the replay. Goes before the backend's own class."""

    block: Callable[[int], Block]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return np.asarray(self.block(nbytes)).view(dtype).reshape(shape)

    def workspace(self, nbytes: int) -> Array:
        return np.asarray(self.block(nbytes))

    def scalar(self, a: np.ndarray) -> Array:
        return a

    def fill(self, y: Array, value: float) -> None:
        replay.on_arrays(partial(_borrow(y).fill, value))

    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None:
        replay.on_arrays(partial(np.copyto, _borrow(y), _borrow(x).transpose(axes)))

    def cast(self, x: Array, y: Array) -> None:
        replay.on_arrays(partial(np.copyto, _borrow(y), _borrow(x), casting="unsafe"))

    def close(self) -> None:
        """Its step is over: hold its memory no longer."""
        del self.block


def _borrow(array: Array) -> Any:
    step = replay.current()
    return step.borrowed(array) if isinstance(step, HostCapture) else array
