"""Steps on the native backend: a capture is the list of its calls of the extension."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .. import _native
from ..backends.contract import Array
from ..backends.native.backend import FLOAT32, NativeBackend
from .arena import Block
from .on_host import HostCapture, HostStep

QUERIES = ("conv2d_can", "conv2d_chosen", "conv2d_prepare")  # answered at once: they read shapes and frozen weights


def at_once(backend: NativeBackend, block: Callable[[int], Block]) -> HostStep:
    """The verbs, whose calls are made."""
    return _StepBackend(backend, _native, block)


def written_down(backend: NativeBackend, capture: HostCapture) -> HostStep:
    """The verbs, whose calls become operations of the capture."""
    return _StepBackend(backend, _Recorder(capture), capture.arena.block)


class _Recorder:
    """The extension, whose functions are written down instead of called."""

    def __init__(self, capture: HostCapture) -> None:
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
