"""As much of CuPy as the cuda backend and Tensor use, over host memory, for tests of that backend without a GPU."""

from __future__ import annotations

from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np

STREAM = 0x5EED


class ndarray:
    """C-contiguous; not a NumPy array, so that what expects one notices."""

    def __init__(self, host: np.ndarray) -> None:
        self.host = host

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.host.ctypes.data)

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    size = property(lambda self: self.host.size)
    ndim = property(lambda self: self.host.ndim)
    nbytes = property(lambda self: self.host.nbytes)
    flags = property(lambda self: self.host.flags)

    def view(self, dtype: Any) -> ndarray:
        return ndarray(self.host.view(dtype))

    def reshape(self, *shape: Any) -> ndarray:
        return ndarray(self.host.reshape(*shape))

    def transpose(self, *axes: Any) -> ndarray:
        return ndarray(self.host.transpose(*axes))

    def fill(self, value: Any) -> None:
        self.host.fill(value)

    def copy(self) -> ndarray:
        return ndarray(self.host.copy())

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(self.host[key])

    def __setitem__(self, key: Any, value: ndarray) -> None:
        self.host[key] = value.host


def empty(shape: Any, dtype: Any) -> ndarray:
    return ndarray(np.empty(shape, dtype))


def asarray(a: np.ndarray) -> ndarray:
    return ndarray(a.copy())


def asnumpy(a: ndarray) -> np.ndarray:
    return a.host.copy()


class Event:
    """The host's clock: the fake driver runs kernels at once."""

    def record(self) -> None:
        self.time = perf_counter()

    def synchronize(self) -> None:
        pass


uint8 = np.uint8
cuda = SimpleNamespace(
    Event=Event,
    get_elapsed_time=lambda start, end: 1e3 * (end.time - start.time),
    runtime=SimpleNamespace(getDevice=lambda: 0),
    get_current_stream=lambda: SimpleNamespace(ptr=STREAM, synchronize=lambda: None),
)
