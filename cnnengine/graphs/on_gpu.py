"""Steps on a GPU: the driver captures what CuPy's current stream is given; CuPy's memory is then an arena's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np

from .. import _launch
from ..backends import registry
from ..backends.contract import Array, Backend
from .arena import Arena, Block, Measure
from .step import Captured, HostApart, Step

RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED
VALUES_BYTES = 4096  # of a piece of memory for values that change between replays
VALUE_ALIGNMENT = 16


class GpuRun(Step):
    """The first run."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.device_id = int(cupy.cuda.runtime.getDevice())
        self.measure = Measure(_allocate)
        self.backend: Any = _StepBackend(backend)

    def fresh(self, make: Callable[[], np.ndarray]) -> Array:
        return self.backend.backend.to_device(make())

    def lasting(self, make: Callable[[], Array]) -> Array:
        with cupy.cuda.using_allocator(cupy.get_default_memory_pool().malloc):
            return make()

    @contextmanager
    def running(self) -> Iterator[None]:
        with registry.using(self.backend), cupy.cuda.using_allocator(_malloc(self.measure.block, self.device_id)):
            yield

    def capture(self) -> GpuCapture:
        return GpuCapture(self, self.backend.backend)


class GpuCapture(Captured):
    """A captured graph, its arena, and the values that Python writes before each launch."""

    def __init__(self, first: GpuRun, backend: Backend) -> None:
        super().__init__(first)
        self.device_id = first.device_id
        self.arena = Arena(first.measure.peak, _allocate)
        self.backend: Any = _StepBackend(backend, self._keep)
        self._kept: dict[int, Array] = {}  # arrays of others whose addresses the graph has
        self._graph: Any = None
        self._values: list[tuple[np.ndarray, int, Any]] = []  # on the host, address on the GPU, what holds that
        self._used = VALUES_BYTES  # of the last of them

    @property
    def nodes(self) -> int:
        nodes: int = self._graph.nodes
        return nodes

    @contextmanager
    def running(self) -> Iterator[None]:
        stream = cupy.cuda.Stream(non_blocking=True)
        allocator = _malloc(self.arena.block, self.device_id)
        with registry.using(self.backend), stream, cupy.cuda.using_allocator(allocator):
            _launch.begin_capture(stream.ptr)
            try:
                yield
            except BaseException:
                _launch.abandon_capture(stream.ptr)
                raise
            self._graph = _launch.CapturedGraph(stream.ptr)
        self.backend.close()
        self.finish()

    def launch(self) -> None:
        stream = int(cupy.cuda.get_current_stream().ptr)
        for host, address, _ in self._values:
            _launch.upload(address, host, stream)
        self._graph.launch(stream)

    def fresh(self, make: Callable[[], np.ndarray]) -> Array:
        value = make()
        start = -(-self._used // VALUE_ALIGNMENT) * VALUE_ALIGNMENT
        if start + value.nbytes > VALUES_BYTES:
            nbytes = max(VALUES_BYTES, value.nbytes)
            self._values.append((np.zeros(nbytes, np.uint8), *_allocate(nbytes)))
            start = 0
        self._used = start + value.nbytes
        host, address, holder = self._values[-1]
        place = host[start : self._used].view(value.dtype).reshape(value.shape)
        place[...] = value
        self.every_time(lambda: np.copyto(place, make()))
        memory = cupy.cuda.UnownedMemory(address + start, value.nbytes, holder, self.device_id)
        return cupy.ndarray(value.shape, value.dtype, cupy.cuda.MemoryPointer(memory, 0))

    def _keep(self, arguments: Any) -> None:
        for value in arguments:
            if isinstance(value, tuple | list):
                self._keep(value)
            elif isinstance(value, cupy.ndarray) and not self.arena.holds(value.data.ptr):
                self._kept[id(value)] = value


class _StepBackend(HostApart):
    """A backend for a step under way: its verbs, but nothing that the host reads. ``see`` is shown their arguments."""

    def __init__(self, backend: Backend, see: Callable[[Any], None] | None = None) -> None:
        self.backend = backend
        self._see = see

    def __getattr__(self, name: str) -> Any:
        found, see = getattr(self.backend, name), self._see
        if see is None or not callable(found):
            return found

        def seen(*arguments: Any) -> Any:
            see(arguments)
            return found(*arguments)

        return seen

    def close(self) -> None:
        """Its step is over."""
        self._see = None

    def scalar(self, a: np.ndarray) -> Array:
        y = self.backend.empty(a.shape, a.dtype)
        self.backend.fill(y, float(a.reshape(())))  # no copy of host memory, which a replay would repeat
        return y


def upload(array: Array, values: np.ndarray) -> None:
    """Into an array of the GPU, in the current stream's order."""
    bytes_of = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    _launch.upload(array.data.ptr, bytes_of, int(cupy.cuda.get_current_stream().ptr))


def _allocate(nbytes: int) -> tuple[int, Any]:
    """From CuPy's pool, also while a stream captures."""
    before = _launch.exchange_capture_mode(RELAXED)
    try:
        memory = cupy.get_default_memory_pool().malloc(nbytes)
    finally:
        _launch.exchange_capture_mode(before)
    return int(memory.ptr), memory


def _malloc(block: Callable[[int], Block], device_id: int) -> Callable[[int], Any]:
    """An allocator of CuPy's on blocks."""

    def malloc(nbytes: int) -> Any:
        taken = block(nbytes)
        return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(taken.address, nbytes, taken, device_id), 0)

    return malloc
