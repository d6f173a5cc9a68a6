"""As much of CuPy as the cuda backend, Tensor, graphs and the benchmarks use, over host memory, without a GPU."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np

STREAM = 0x5EED
_driver = ctypes.CDLL(os.environ["CNNENGINE_LIBCUDA"])
_Node = ctypes.CFUNCTYPE(ctypes.c_int)
_nodes: list[Any] = []  # kept for the driver
_streams = [STREAM]  # the current one last
_allocators: list[Callable[[int], MemoryPointer]] = []


def _run(operation: Callable[[], object]) -> None:
    """At once, or as a node of the graph that the current stream captures."""

    def node() -> int:
        operation()
        return 0

    if _driver.fake_capturing(ctypes.c_void_p(_streams[-1])):
        _nodes.append(_Node(node))
        _driver.fake_add_node(_nodes[-1])
    else:
        node()


class UnownedMemory:
    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id


class MemoryPointer:
    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.ptr = mem, mem.ptr + offset

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)


class _Exported:
    """Memory that an array lies in, as NumPy takes it; holds the pointer and so its owner."""

    def __init__(self, memory: MemoryPointer, nbytes: int) -> None:
        self.memory = memory
        data = memory.ptr, False
        self.__array_interface__ = {"version": 3, "data": data, "shape": (nbytes,), "typestr": "|u1"}


class _Pool:
    """Fresh memory, filled with NaN."""

    def malloc(self, size: int) -> MemoryPointer:
        memory = np.full(size + 512, 0xFF, np.uint8)
        start = -memory.ctypes.data % 512
        return MemoryPointer(UnownedMemory(memory.ctypes.data + start, size, memory, 0), 0)


class ndarray:
    """C-contiguous; not a NumPy array, so that what expects one notices."""

    def __init__(self, shape: Any, dtype: Any = float, memptr: MemoryPointer | None = None) -> None:
        self.host: np.ndarray
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if memptr is None:
            memptr = (_allocators[-1] if _allocators else _Pool().malloc)(nbytes)
        self.host = np.asarray(_Exported(memptr, nbytes)).view(dtype).reshape(shape)

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
        return _wrap(self.host.view(dtype))

    def reshape(self, *shape: Any) -> ndarray:
        return _wrap(self.host.reshape(*shape))

    def transpose(self, *axes: Any) -> ndarray:
        return _wrap(self.host.transpose(*axes))

    def sum(self, dtype: Any = None) -> ndarray:
        return _wrap(np.asarray(self.host.sum(dtype=dtype)))

    def fill(self, value: Any) -> None:
        _run(lambda: self.host.fill(value))

    def copy(self) -> ndarray:
        new = empty(self.shape, self.dtype)
        new[...] = self
        return new

    def astype(self, dtype: Any, order: str = "C", copy: bool = True) -> ndarray:
        if not copy and self.dtype == dtype:
            return self
        new = empty(self.shape, dtype)
        new[...] = self
        return new

    def __iadd__(self, other: Any) -> ndarray:
        _run(lambda: np.add(self.host, other, out=self.host))
        return self

    def __sub__(self, other: ndarray) -> ndarray:
        return _wrap(np.asarray(self.host - other.host))

    def __mul__(self, other: ndarray) -> ndarray:
        return _wrap(np.asarray(self.host * other.host))

    def __matmul__(self, other: ndarray) -> ndarray:
        return _wrap(self.host @ other.host)

    def __lshift__(self, bits: int) -> ndarray:
        return _wrap(self.host << bits)

    def __float__(self) -> float:
        return float(self.host)

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, key: Any) -> ndarray:
        return _wrap(self.host[tuple(_host(k) for k in key) if isinstance(key, tuple) else _host(key)])

    def __setitem__(self, key: Any, value: ndarray) -> None:
        _run(lambda: self.host.__setitem__(key, value.host))

    def __dlpack__(self, **options: Any) -> Any:
        return self.host.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.host.__dlpack_device__()


def _host(key: Any) -> Any:
    return key.host if isinstance(key, ndarray) else key


def _wrap(host: np.ndarray) -> ndarray:
    array = ndarray.__new__(ndarray)
    array.host = host
    return array


def empty(shape: Any, dtype: Any) -> ndarray:
    return ndarray(shape, dtype)


def empty_like(a: ndarray) -> ndarray:
    return empty(a.shape, a.dtype)


def asarray(a: np.ndarray) -> ndarray:
    if _driver.fake_capturing(ctypes.c_void_p(_streams[-1])):
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")
    new = empty(a.shape, a.dtype)
    new.host[...] = a
    return new


def asnumpy(a: ndarray) -> np.ndarray:
    if _driver.fake_capturing(ctypes.c_void_p(_streams[-1])):
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")
    return a.host.copy()


def copyto(target: ndarray, source: ndarray) -> None:
    target.host[...] = source.host


def from_dlpack(a: Any) -> ndarray:
    return _wrap(np.from_dlpack(a))


clock = SimpleNamespace(busy=0.0)  # seconds that the device says it took, so that one plan is quicker than another


class Event:
    """Everything before it is done when it is recorded: there is no queue. The host's time hardly counts."""

    def record(self) -> None:
        self.seconds = 1e-3 * perf_counter() + clock.busy

    def synchronize(self) -> None:
        assert self.seconds


class Stream:
    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr = STREAM + 1

    def __enter__(self) -> Stream:
        _streams.append(self.ptr)
        return self

    def __exit__(self, *exception: object) -> None:
        _streams.pop()


@contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer]) -> Iterator[None]:
    _allocators.append(allocator)
    try:
        yield
    finally:
        _allocators.pop()


def get_default_memory_pool() -> _Pool:
    return _Pool()


uint8 = np.uint8
cuda = SimpleNamespace(
    runtime=SimpleNamespace(getDevice=lambda: 0, getDeviceProperties=lambda device: {"name": b"NVIDIA A100-SXM4-80GB"}),
    get_current_stream=lambda: SimpleNamespace(ptr=_streams[-1], synchronize=lambda: None),
    Device=lambda: SimpleNamespace(synchronize=lambda: None),
    Event=Event,
    get_elapsed_time=lambda start, end: 1e3 * (end.seconds - start.seconds),
    set_allocator=lambda allocator: None,
    using_allocator=using_allocator,
    Stream=Stream,
    MemoryPointer=MemoryPointer,
    UnownedMemory=UnownedMemory,
)
