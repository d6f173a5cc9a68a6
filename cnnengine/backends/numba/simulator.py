"""The kernels on NumPy arrays, in Numba's simulator: each CUDA thread is Python code. To read, to test, to debug."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numba import cuda

from ...kernels import ptx
from .._conv2d_norm import COMPOSED
from .._host import HostMemory
from ..contract import Array
from .backend import NumbaBackend


class SimulatorLauncher:
    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory

    def __call__(self, kernel: Any, grid: int, block: int | tuple[int, ...], *args: Any) -> None:
        """Arrays go in read-only, ``out`` arrays both ways; floating-point warnings are off, as on a GPU."""
        if grid == 0:
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(overflow|divide by zero|invalid value) encountered", RuntimeWarning)
            kernel[grid, block](*(cuda.In(a) if isinstance(a, np.ndarray) else a for a in args))

    def out(self, array: Array) -> Any:
        return cuda.InOut(array)

    def integer(self, value: int) -> int:
        return int(value)

    def ints(self, tuple_class: Any, members: Any) -> Any:
        return _ints(tuple_class, members)

    def workspace(self, shape: tuple[int, ...]) -> Array:
        return self._memory.workspace(4 * int(np.prod(shape))).view(np.float32).reshape(shape)


@lru_cache(4096)
def _ints(tuple_class: Any, members: Any) -> Any:
    return tuple_class(*(members if isinstance(members, tuple) else members.members()))


class SimulatorBackend(NumbaBackend, HostMemory):
    notes: ClassVar[Mapping[str, str]] = {
        "fill": "composed: NumPy's fill",
        "cast": "composed: NumPy's assignment",
        "permute": "composed: NumPy's transpose",
        "conv2d_prepare": "composed: the weight as it is",
        "conv2d_norm_forward": COMPOSED,
    }

    def __init__(self) -> None:
        HostMemory.__init__(self)
        self.launch = SimulatorLauncher(self)

    def refuse_tensor_cores(self) -> str | None:
        if ptx.meet_warp is None:
            return "needs a GPU: in Numba's simulator the threads of a warp cannot do an instruction together"
        return None
