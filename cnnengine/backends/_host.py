"""What every backend on NumPy arrays shares: memory, and the operations that are NumPy's own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from .contract import Array


class HostMemory:
    """Memory verbs of the contract over NumPy; ``permute``, ``cast`` and ``fill`` are NumPy's."""

    device = "cpu"
    notes: ClassVar[Mapping[str, str]] = {
        "fill": "composed: ndarray.fill",
        "cast": "composed: NumPy's assignment",
        "permute": "composed: NumPy's transpose and assignment",
    }

    def __init__(self) -> None:
        self._scratch = threading.local()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return np.empty(shape, dtype)

    def workspace(self, nbytes: int) -> Array:
        buffer = getattr(self._scratch, "buffer", None)
        if buffer is None or buffer.nbytes < nbytes:
            buffer = self._scratch.buffer = np.empty(nbytes, np.uint8)
        return buffer[:nbytes]

    def to_host(self, a: Array) -> np.ndarray:
        return np.asarray(a)

    def to_device(self, a: np.ndarray) -> Array:
        return a

    def synchronize(self) -> None:
        """NumPy arrays are always up to date."""

    def fill(self, y: Array, value: float) -> None:
        y.fill(value)

    @np.errstate(all="ignore")
    def cast(self, x: Array, y: Array) -> None:
        y[...] = x

    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None:
        y[...] = x.transpose(axes)
