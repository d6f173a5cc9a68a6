"""Steps on the emulator: a capture is the list of its launches, with addresses of an arena of NumPy memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np

from .. import replay
from ..backends import registry
from ..backends._kernel_library import TYPES
from ..backends._kernels import KernelBackend
from ..backends.contract import Array
from ..backends.emulator.backend import EmulatorBackend
from ..jit.launch import Runtime
from ..jit.recording import Launch, Mapped, RecordingRuntime
from .arena import ALIGNMENT, Arena, Block, Measure
from .step import Captured, HostApart, Step


class EmulatorRun(Step):
    """The first run."""

    def __init__(self, backend: EmulatorBackend) -> None:
        super().__init__()
        self.measure = Measure(_allocate)
        self.backend = _StepBackend(backend, backend.runtime, self.measure.block)

    def fresh(self, make: Callable[[], np.ndarray]) -> Array:
        return make()

    def lasting(self, make: Callable[[], Array]) -> Array:
        with registry.using(self.backend.backend):
            return make()

    @contextmanager
    def running(self) -> Iterator[None]:
        with registry.using(self.backend):
            yield

    def capture(self) -> EmulatorCapture:
        return EmulatorCapture(self, self.backend.backend)


class EmulatorCapture(Captured):
    """The launches of a step. NumPy's own operations on its arrays would come too early: they are deferred, too, or
    refused; one that is neither reads NaN, which the arena is filled with."""

    defers = True

    def __init__(self, first: EmulatorRun, backend: EmulatorBackend) -> None:
        super().__init__(first)
        self.arena = Arena(first.measure.peak, _allocate)
        self._runtime = backend.runtime
        self._operations: list[Callable[[], object]] = []
        self.backend = _StepBackend(backend, RecordingRuntime(backend.runtime, self._record), self.arena.block)

    @property
    def nodes(self) -> int:
        return len(self._operations)

    @contextmanager
    def running(self) -> Iterator[None]:
        with registry.using(self.backend):
            yield
        self.backend.close()
        self.finish()

    def launch(self) -> None:
        for operation in self._operations:
            operation()

    def on_arrays(self, operation: Callable[[], object]) -> None:
        self._operations.append(operation)

    def copied(self, array: Array) -> Array:
        y = self.backend.empty(array.shape, array.dtype)
        self.on_arrays(partial(np.copyto, self._borrowed(y), self._borrowed(array)))
        return y

    def fresh(self, make: Callable[[], np.ndarray]) -> Array:
        array = make()
        self.every_time(lambda: np.copyto(array, make()))
        return array

    def _record(self, launch: Launch) -> None:
        arguments = tuple(
            self._runtime.tensor_map(a.source, a.spec, a.array) if isinstance(a, Mapped) else self._borrowed(a)
            for a in launch.arguments
        )
        self._operations.append(
            partial(launch.kernel, launch.grid, launch.block, launch.shared_bytes, arguments, **launch.options)
        )

    def _borrowed(self, value: Any) -> Any:
        """An array of the arena as one that does not hold its block, so that the block may be taken again."""
        if not isinstance(value, np.ndarray):
            return value
        for address, nbytes in self.arena.pieces:
            offset = value.ctypes.data - address
            if 0 <= offset < nbytes:
                piece = np.asarray(Block(address, nbytes, None))
                return np.ndarray(value.shape, value.dtype, piece, offset, value.strides)
        return value


class _StepBackend(HostApart, KernelBackend):
    """The emulator's verbs with memory from ``block``, for a step under way."""

    name, device = "emulator", "cpu"
    notes: ClassVar[Any] = EmulatorBackend.notes

    def __init__(self, backend: EmulatorBackend, runtime: Runtime, block: Callable[[int], Block]) -> None:
        super().__init__(runtime, constant_shapes=backend.constant_shapes)
        self.backend = backend
        self._block = block

    def close(self) -> None:
        """Its step is over: hold its memory no longer."""
        self.runtime = self.backend.runtime
        self._found.clear()
        del self._block

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return np.asarray(self._block(nbytes)).view(dtype).reshape(shape)

    def workspace(self, nbytes: int) -> Array:
        return np.asarray(self._block(nbytes))

    def scalar(self, a: np.ndarray) -> Array:
        return a

    def fill(self, y: Array, value: float) -> None:
        replay.on_arrays(partial(_borrow(y).fill, value))

    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None:
        replay.on_arrays(partial(np.copyto, _borrow(y), _borrow(x).transpose(axes)))

    def cast(self, x: Array, y: Array) -> None:
        if x.dtype.name in TYPES and y.dtype.name in TYPES:
            super().cast(x, y)
        else:
            replay.on_arrays(partial(np.copyto, _borrow(y), _borrow(x), casting="unsafe"))


def _borrow(array: Array) -> Array:
    step = replay.current()
    return step._borrowed(array) if isinstance(step, EmulatorCapture) else array


def _allocate(nbytes: int) -> tuple[int, Any]:
    memory = np.full(nbytes + ALIGNMENT, 0xFF, np.uint8)
    return memory.ctypes.data + -memory.ctypes.data % ALIGNMENT, memory
