"""Steps on the emulator: a capture is the list of its launches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ..backends._kernel_library import TYPES
from ..backends._kernels import KernelBackend
from ..backends.contract import Array
from ..backends.emulator.backend import EmulatorBackend
from ..jit.launch import Runtime
from ..jit.recording import Launch, Mapped, RecordingRuntime
from .arena import Block
from .on_host import HostCapture, HostStep


def at_once(backend: EmulatorBackend, block: Callable[[int], Block]) -> HostStep:
    """The verbs, whose launches are made."""
    return _StepBackend(backend, backend.runtime, block)


def written_down(backend: EmulatorBackend, capture: HostCapture) -> HostStep:
    """The verbs, whose launches become operations of the capture."""
    runtime = backend.runtime

    def record(launch: Launch) -> None:
        arguments = tuple(
            runtime.tensor_map(a.source, a.spec, a.array) if isinstance(a, Mapped) else capture.borrowed(a)
            for a in launch.arguments
        )
        capture.operations.append(
            partial(launch.kernel, launch.grid, launch.block, launch.shared_bytes, arguments, **launch.options)
        )

    return _StepBackend(backend, RecordingRuntime(runtime, record), capture.arena.block)


class _StepBackend(HostStep, KernelBackend):
    """The emulator's verbs for a step under way."""

    name, device = "emulator", "cpu"
    notes: ClassVar[Any] = EmulatorBackend.notes

    def __init__(self, backend: EmulatorBackend, runtime: Runtime, block: Callable[[int], Block]) -> None:
        super().__init__(runtime, constant_shapes=backend.constant_shapes)
        self.backend = backend
        self.block = block

    def close(self) -> None:
        super().close()
        self.runtime = self.backend.runtime
        self._found.clear()

    def cast(self, x: Array, y: Array) -> None:
        if x.dtype.name in TYPES and y.dtype.name in TYPES:
            KernelBackend.cast(self, x, y)
        else:
            super().cast(x, y)
