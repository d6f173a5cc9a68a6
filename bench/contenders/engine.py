"""The engine's own backends, one contract verb at a time: what is timed is the output's allocation and the kernel."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from cnnengine import backends
from cnnengine.backends.contract import IDENTITY, Array, Backend
from cnnengine.shapes import Conv2dShape, Pool2dShape

from ..task import Prepared, Task

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}


class Engine:
    """``algorithm`` names a rung of the ladder; None is the backend's documented choice."""

    def __init__(self, backend: str, algorithm: str | None = None, device: str = "cpu") -> None:
        self.name = backend if algorithm is None else f"{backend} {algorithm}"
        self.device = device
        self._backend, self._algorithm = backend, algorithm

    def unavailable(self) -> str | None:
        reason = backends.available()[self._backend]
        if reason is None and backends.get(self._backend).device != self.device:
            return f"runs on {backends.get(self._backend).device} here, not on {self.device}"
        return reason

    def prepare(self, task: Task) -> Prepared | None:
        backend = backends.get(self._backend)
        if task.dtype not in backend.dtypes:
            return None
        if self._algorithm is not None and self._algorithm not in backend.algorithms.get(task.operation, ()):
            return None
        dtype = DTYPES[task.dtype]
        arrays = {name: backend.to_device(a.astype(dtype, copy=False)) for name, a in task.arrays.items()}
        run = self._runner(task, backend, arrays, dtype)
        return Prepared(run, lambda y: backend.to_host(y).astype(np.float32, copy=False))

    def _runner(self, task: Task, backend: Backend, a: dict[str, Array], dtype: np.dtype[Any]) -> Any:
        shape, algorithm = task.shape, self._algorithm
        if isinstance(shape, Conv2dShape):
            return _conv2d(task.operation, shape, backend, a, dtype, algorithm)
        if isinstance(shape, Pool2dShape):
            return _max_pool2d(task.operation, shape, backend, a, dtype)
        return _relu(task.operation, shape, backend, a, dtype)


def _conv2d(
    operation: str,
    shape: Conv2dShape,
    backend: Backend,
    a: dict[str, Array],
    dtype: np.dtype[Any],
    algorithm: str | None,
) -> Any:
    def forward() -> Array:
        y = backend.empty(shape.y, dtype)
        backend.conv2d_forward(shape, a["x"], a["w"], y, IDENTITY, algorithm)
        return y

    def backward_input() -> Array:
        dx = backend.empty(shape.x, dtype)
        backend.conv2d_backward_input(shape, a["dy"], a["w"], dx, algorithm)
        return dx

    def backward_weight() -> Array:
        dw = backend.empty(shape.w, dtype)
        backend.conv2d_backward_weight(shape, a["x"], a["dy"], dw, algorithm)
        return dw

    return {
        "conv2d_forward": forward,
        "conv2d_backward_input": backward_input,
        "conv2d_backward_weight": backward_weight,
    }[operation]


def _max_pool2d(operation: str, shape: Pool2dShape, backend: Backend, a: dict[str, Array], dtype: np.dtype[Any]) -> Any:
    def forward() -> Array:  # with the index, as in training; PyTorch's operator makes one too
        y, index = backend.empty(shape.y, dtype), backend.empty(shape.y, shape.index_dtype)
        backend.pool2d_forward("max", shape, a["x"], y, index)
        return y

    if operation == "max_pool2d_forward":
        return forward
    saved = backend.empty(shape.y, shape.index_dtype)
    backend.pool2d_forward("max", shape, a["x"], backend.empty(shape.y, dtype), saved)

    def backward() -> Array:
        dx = backend.empty(shape.x, dtype)
        backend.pool2d_backward("max", shape, a["dy"], saved, dx)
        return dx

    return backward


def _relu(operation: str, shape: tuple[int, ...], backend: Backend, a: dict[str, Array], dtype: np.dtype[Any]) -> Any:
    def forward() -> Array:
        y = backend.empty(shape, dtype)
        backend.activation_forward("relu", a["x"], y)
        return y

    if operation == "relu_forward":
        return forward
    saved = forward()

    def backward() -> Array:
        dx = backend.empty(shape, dtype)
        backend.activation_backward("relu", saved, a["dy"], dx)
        return dx

    return backward
