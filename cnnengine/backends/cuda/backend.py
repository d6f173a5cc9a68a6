"""The CUDA backend: CuPy's memory pool and current stream, our kernels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import cupy
import numpy as np

from ...jit.cache import default_cache
from ...jit.launch import CudaRuntime
from ..contract import Array
from .prepared import PreparedBackend


def _current_stream() -> int:
    return int(cupy.cuda.get_current_stream().ptr)


def _bits(a: Array) -> Array:
    """The same memory as unsigned integers where elements have two bytes: copies need no arithmetic in that dtype."""
    return a.view(np.uint16) if a.dtype.itemsize == 2 else a


class CudaBackend(PreparedBackend):
    """Everything runs on CuPy's current device and stream, in order."""

    name = "cuda"
    device = "cuda"
    notes: ClassVar[Mapping[str, str]] = {
        "conv2d_prepare": "composed: every rung reads w as it is",
        "fill": "composed: CuPy's fill",
        "permute": "composed: CuPy's transpose and copy",
    }

    def __init__(self) -> None:
        runtime = CudaRuntime(default_cache(), cupy.cuda.runtime.getDevice, _current_stream)
        super().__init__(runtime, constant_shapes=os.environ.get("CNNENGINE_CONSTANT_SHAPES") == "1")

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return cupy.empty(shape, dtype)

    def workspace(self, nbytes: int) -> Array:
        """From CuPy's pool, whose blocks are reused in the stream's order: freed here, it is still there for the
        kernels already launched."""
        return cupy.empty(nbytes, np.uint8)

    def to_host(self, a: Array) -> np.ndarray:
        host: np.ndarray = cupy.asnumpy(_bits(a)).view(a.dtype)
        return host

    def to_device(self, a: np.ndarray) -> Array:
        return cupy.asarray(_bits(np.asarray(a, order="C"))).view(a.dtype)

    def synchronize(self) -> None:
        cupy.cuda.get_current_stream().synchronize()

    def fill(self, y: Array, value: float) -> None:
        _bits(y).fill(np.asarray(value, y.dtype).view(_bits(y).dtype)[()])

    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None:
        _bits(y)[...] = _bits(x).transpose(axes)
