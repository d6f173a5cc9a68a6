"""A backend that launches nothing: it notes which kernels a GPU would need. Arrays have shapes and dtypes, no values.

Not registered: ``cnnengine.cuda.precompile`` makes one for an architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar

import numpy as np

from ..jit import nvrtc
from ..jit.launch import Kernel
from ..jit.source import KernelSource
from ..jit.tensor_map import TensorMap
from ._kernel_library import TYPES
from ._kernels import KernelBackend
from .contract import Array

ARCHITECTURE = re.compile(r"sm_(\d+)(\d)[af]?")
OWN_BYTES = 1 << 20  # arrays up to here have memory of their own
MAP_BYTES = 128


class PlanningRuntime:
    """Notes what is asked of it. Raises ValueError for an architecture that is not written as ``sm_90a``."""

    def __init__(self, arch: str) -> None:
        match = ARCHITECTURE.fullmatch(arch)
        if match is None:
            raise ValueError(f"arch must be an architecture such as 'sm_90a', received {arch!r}")
        major, minor = int(match[1]), int(match[2])
        self.arch = nvrtc.architecture((major, minor))
        self.kernels: dict[KernelSource, None] = {}  # one kernel each, in the order of their first use
        self._capability = 10 * major + minor

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        self.kernels[source.only(expression)] = None
        return _launch_nothing

    def capability(self) -> int:
        return self._capability

    def tensor_map(self, source: KernelSource, spec: TensorMap, array: Any) -> bytes:
        return bytes(MAP_BYTES)


def _launch_nothing(*_: Any, **__: Any) -> None:
    """In place of a kernel."""


class PlanningBackend(KernelBackend):
    """Takes NumPy arrays. Those it makes are zeros; large ones lie on top of each other in memory that nobody touches,
    so that a network of any size is planned in the memory of its largest array."""

    name = "planning"
    device = "cpu"
    notes: ClassVar[Mapping[str, str]] = {}
    runtime: PlanningRuntime

    def __init__(self, arch: str, *, constant_shapes: bool = False) -> None:
        super().__init__(PlanningRuntime(arch), constant_shapes=constant_shapes)
        self._arena = np.zeros(0, np.uint8)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        if nbytes <= OWN_BYTES:
            return np.zeros(shape, dtype)
        if self._arena.nbytes < nbytes:
            self._arena = np.zeros(nbytes, np.uint8)
        return np.ndarray(shape, dtype, self._arena.data)

    def workspace(self, nbytes: int) -> Array:
        return self.empty((nbytes,), np.uint8)

    def to_host(self, a: Array) -> np.ndarray:
        return np.asarray(a)

    def to_device(self, a: np.ndarray) -> Array:
        return self.empty(a.shape, a.dtype)

    def synchronize(self) -> None:
        """Nothing was launched."""

    def fill(self, y: Array, value: float) -> None:
        """A GPU's memory is filled without a kernel of ours."""

    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None:
        """As ``fill``."""

    def cast(self, x: Array, y: Array) -> None:
        if x.dtype.name in TYPES and y.dtype.name in TYPES:  # others are not ours
            super().cast(x, y)
