"""A backend that launches nothing: it notes which kernels a GPU would need. Arrays have shapes and dtypes, no values.

Not registered: ``cnnengine.cuda.precompile`` makes one for an architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..jit import nvrtc
from ..jit.launch import Kernel
from ..jit.source import KernelSource
from ..jit.tensor_map import TensorMap
from ._kernel_library import TYPES
from ._kernels import KernelBackend
from ._overlaid import OverlaidMemory
from .contract import Array

ARCHITECTURE = re.compile(r"sm_(\d+)(\d)[af]?")
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
    """Takes NumPy arrays; those it makes are of ``OverlaidMemory``."""

    name = "planning"
    device = "cpu"
    notes: ClassVar[Mapping[str, str]] = {}
    runtime: PlanningRuntime

    def __init__(self, arch: str, *, constant_shapes: bool = False) -> None:
        super().__init__(PlanningRuntime(arch), constant_shapes=constant_shapes)
        self._memory = OverlaidMemory()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self._memory.empty(shape, dtype)

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
