"""The kernels on an NVIDIA GPU: CuPy arrays, CuPy's current stream, kernels compiled at their first launch."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import cupy
import numpy as np
from numba import config, cuda

from .._conv2d_norm import COMPOSED
from ..contract import Array
from .backend import NumbaBackend

# Numba warns of every grid under 128 blocks; the last layers of a network have fewer, and that is no mistake
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


class GpuLauncher:
    def __init__(self, memory: GpuBackend) -> None:
        self._memory = memory

    def __call__(self, kernel: Any, grid: int, block: int | tuple[int, ...], *args: Any) -> None:
        """Launches on CuPy's current stream, so in order with CuPy's own work: no array needs a wait before."""
        if grid == 0:
            return
        pointer = cupy.cuda.get_current_stream().ptr
        stream = cuda.external_stream(pointer) if pointer else 0  # 0 is the default stream of both
        views = (cuda.as_cuda_array(a, sync=False) if isinstance(a, cupy.ndarray) else a for a in args)
        kernel[grid, block, stream](*views)

    def out(self, array: Array) -> Array:
        return array

    def integer(self, value: int) -> np.int32:
        return np.int32(value)

    def ints(self, tuple_class: Any, members: Any) -> Any:
        return _ints(tuple_class, members)

    def workspace(self, shape: tuple[int, ...]) -> Array:
        return self._memory.workspace(4 * int(np.prod(shape))).view(np.float32).reshape(shape)


@lru_cache(4096)
def _ints(tuple_class: Any, members: Any) -> Any:
    return tuple_class(*map(np.int32, members if isinstance(members, tuple) else members.members()))


class GpuBackend(NumbaBackend):
    device = "cuda"
    notes: ClassVar[Mapping[str, str]] = {
        "fill": "composed: CuPy's fill",
        "cast": "composed: CuPy's assignment",
        "permute": "composed: CuPy's transpose",
        "conv2d_prepare": "composed: the weight as it is",
        "conv2d_norm_forward": COMPOSED,
    }

    def __init__(self) -> None:
        self.launch = GpuLauncher(self)
        self._scratch = threading.local()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return cupy.empty(shape, dtype)

    def workspace(self, nbytes: int) -> Array:
        """One buffer a thread and device: a second stream of the same thread must wait for the first."""
        buffers = self._scratch.__dict__
        key = f"device{cupy.cuda.runtime.getDevice()}"
        if key not in buffers or buffers[key].nbytes < nbytes:
            buffers[key] = cupy.empty(nbytes, np.uint8)
        return buffers[key][:nbytes]

    def to_host(self, a: Array) -> np.ndarray:
        host: np.ndarray = cupy.asnumpy(a)
        return host

    def to_device(self, a: np.ndarray) -> Array:
        return cupy.asarray(a)

    def synchronize(self) -> None:
        cupy.cuda.get_current_stream().synchronize()

    def fill(self, y: Array, value: float) -> None:
        y.fill(value)

    def cast(self, x: Array, y: Array) -> None:
        y[...] = x

    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None:
        y[...] = x.transpose(axes)
