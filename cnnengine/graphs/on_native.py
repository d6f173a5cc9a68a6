"""Steps on the native backend: a capture is the list of its calls of the extension."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .. import _native
from ..backends.contract import Array
from ..backends.native.backend import FLOAT32, NativeBackend
from .arena import Block
from .on_host import HostCapture, HostRun, HostStep

QUERIES = ("conv2d_can", "conv2d_chosen", "conv2d_prepare")  # answered at once: they read shapes and frozen weights


class NativeRun(HostRun):
    """The first run."""

    def __init__(self, backend: NativeBackend) -> None:
        self._native_backend = backend
        super().__init__()

    def step_backend(self) -> HostStep:
        return _StepBackend(self._native_backend, _native, self.measure.block)

    def capture(self) -> HostCapture:
        return NativeCapture(self, self._native_backend)


class NativeCapture(HostCapture):
    """The calls of a step."""

    def __init__(self, first: NativeRun, backend: NativeBackend) -> None:
        self._native_backend = backend
        super().__init__(first)

    def step_backend(self) -> HostStep:
        return _StepBackend(self._native_backend, _Recorder(self), self.arena.block)


class _Recorder:
    """The extension, whose functions are written down instead of called."""

    def __init__(self, capture: NativeCapture) -> None:
        self._capture = capture

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(_native, name)
        return function if name in QUERIES else partial(self._record, function)

    def _record(self, function: Callable[..., object], *arguments: Any) -> None:
        capture = self._capture
        capture.operations.append(partial(function, *map(capture.borrowed, arguments)))


class _StepBackend(HostStep, NativeBackend):
    """The native verbs for a step under way."""

    def __init__(self, backend: NativeBackend, extension: Any, block: Callable[[int], Block]) -> None:
        super().__init__()
        self.backend = backend
        self.extension = extension
        self.block = block

    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None:
        if x.dtype == FLOAT32:
            NativeBackend.permute(self, x, y, axes)
        else:
            super().permute(x, y, axes)

    def close(self) -> None:
        super().close()
        self.extension = _native
