"""Memory of backends that compute nothing: arrays have shapes and dtypes, no values."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .contract import Array

OWN_BYTES = 1 << 20  # arrays up to here have memory of their own


class OverlaidMemory:
    """Large arrays lie on top of each other in memory that nobody touches, so that a network of any size fits into the
    memory of its largest array. Small ones are zeros."""

    def __init__(self) -> None:
        self._arena = np.zeros(0, np.uint8)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        if nbytes <= OWN_BYTES:
            return np.zeros(shape, dtype)
        if self._arena.nbytes < nbytes:
            self._arena = np.zeros(nbytes, np.uint8)
        return np.ndarray(shape, dtype, self._arena.data)
