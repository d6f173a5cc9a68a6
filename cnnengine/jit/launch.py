"""A kernel to call, on the emulator or on a GPU: ``runtime.kernel(source, expression)(grid, block, shared, args)``.

``grid`` and ``block`` are (x, y, z), ``shared`` is the dynamic shared memory in bytes; what may be an argument says
csrc/launch/arguments.h. A source is compiled at its first use, or found in the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from .. import _launch
from ..errors import KernelError
from . import host, nvrtc
from .cache import Cache
from .counters import Counters
from .source import KernelSource
from .tensor_map import TensorMap, TensorMaps

Size3 = tuple[int, int, int]

DEFAULT_SHARED_BYTES = 48 << 10  # more dynamic shared memory must be asked for, once a kernel
EMULATED_CAPABILITY = 90
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class Kernel(Protocol):
    def __call__(
        self,
        grid: Size3,
        block: Size3,
        shared_bytes: int,
        arguments: tuple[Any, ...],
        cluster: Size3 | None = None,
    ) -> None:
        """Launches it. ``cluster`` (x, y, z) blocks run together; it needs compute capability 9.0."""
        ...


class Runtime(Protocol):
    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        """The kernel of that expression. Raises KernelError with the compiler's log, or where the source has none."""
        ...

    def capability(self) -> int:
        """The compute capability that kernels run with, 90 for 9.0."""
        ...

    def tensor_map(self, source: KernelSource, spec: TensorMap, array: Any) -> bytes:
        """What a kernel of ``source`` takes for an array that it reaches through TMA; made once an address."""
        ...


class EmulatorRuntime:
    """Kernels compiled by g++ over ``csrc/emulator``; ``schedule`` and ``threads`` as in ``HostModule.configure``,
    ``race`` and ``count`` as in ``host.build``."""

    def __init__(
        self,
        cache: Cache,
        *,
        schedule: int = 0,
        threads: int = 0,
        flags: tuple[str, ...] = ("-O2",),
        race: bool = False,
        count: bool = False,
    ) -> None:
        self.cache = cache
        self.flags = flags
        self.race = race
        self.count = count
        self._schedule = schedule
        self._threads = threads
        self._modules: dict[KernelSource, host.HostModule] = {}
        self._maps = TensorMaps()
        self._lock = threading.Lock()

    def module(self, source: KernelSource) -> host.HostModule:
        """The loaded shared object of a source."""
        with self._lock:
            found = self._modules.get(source)
            if found is None:
                found = host.build(source, cache=self.cache, flags=self.flags, race=self.race, count=self.count)
                found.configure(self._schedule, self._threads)
                self._modules[source] = found
        return found

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        module = self.module(source)
        return partial(_launch.launch_emulator, module.launch_address, module.index(expression))

    def take_counters(self) -> Counters:
        """What the launches of all sources have cost since the last call; ``count=True`` builds count."""
        with self._lock:
            return sum((module.take_counters() for module in self._modules.values()), Counters())

    def capability(self) -> int:
        """The newest whose instructions the emulator has."""
        return EMULATED_CAPABILITY

    def tensor_map(self, source: KernelSource, spec: TensorMap, array: Any) -> bytes:
        return self._maps.find(spec, array, self.module(source))

    def configure(self, schedule: int, threads: int = 0) -> None:
        """Order of a block's threads and number of cores, from now on."""
        with self._lock:
            self._schedule, self._threads = schedule, threads
            for module in self._modules.values():
                module.configure(schedule, threads)


class CudaRuntime:
    """Kernels compiled by NVRTC for the device at hand, each by itself when it is first launched. ``device`` gives the
    current device's ordinal, ``stream`` the current stream's handle: both are asked at every launch."""

    def __init__(self, cache: Cache, device: Callable[[], int], stream: Callable[[], int]) -> None:
        self.cache = cache
        self.device = device
        self.stream = stream
        self._modules: dict[tuple[KernelSource, int], tuple[int, dict[str, str]]] = {}
        self._capabilities: dict[int, tuple[int, int]] = {}
        self._maps = TensorMaps()
        self._lock = threading.Lock()

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        if expression not in source.expressions:
            raise KernelError(f"{source.file} has no kernel {expression}, it has {list(source.expressions)}")
        return CudaKernel(self, source.only(expression), expression)  # most of a family are never launched

    def tensor_map(self, source: KernelSource, spec: TensorMap, array: Any) -> bytes:
        return self._maps.find(spec, array, _launch)

    def capability(self) -> int:
        major, minor = self._capability(self.device())
        return 10 * major + minor

    def _capability(self, device: int) -> tuple[int, int]:
        found = self._capabilities.get(device)
        if found is None:
            found = self._capabilities[device] = (
                _launch.device_attribute(CAPABILITY_MAJOR, device),
                _launch.device_attribute(CAPABILITY_MINOR, device),
            )
        return found

    def function(self, source: KernelSource, expression: str, device: int) -> int:
        """The driver's handle of a kernel on one device, whose context is current."""
        with self._lock:
            loaded = self._modules.get((source, device))
            if loaded is None:
                cubin = nvrtc.build(source, nvrtc.architecture(self._capability(device)), self.cache)
                loaded = self._modules[source, device] = (_launch.module_load(cubin.image), cubin.names)
        module, names = loaded
        function: int = _launch.module_function(module, names[expression])
        return function


class CudaKernel:
    """One kernel on every device it was launched on. ``cluster`` (x, y, z) and ``programmatic`` (the launch need not
    wait for the one before it to end) need compute capability 9.0."""

    __slots__ = ("_functions", "_shared_bytes", "expression", "runtime", "source")

    def __init__(self, runtime: CudaRuntime, source: KernelSource, expression: str) -> None:
        self.runtime = runtime
        self.source = source
        self.expression = expression
        self._functions: dict[int, int] = {}
        self._shared_bytes: dict[int, int] = {}

    def __call__(
        self,
        grid: Size3,
        block: Size3,
        shared_bytes: int,
        arguments: tuple[Any, ...],
        cluster: Size3 | None = None,
        programmatic: bool = False,
    ) -> None:
        function = self.function(shared_bytes)
        stream = self.runtime.stream()
        _launch.launch_cuda(function, grid, block, shared_bytes, stream, arguments, cluster, programmatic)

    def function(self, shared_bytes: int) -> int:
        """The driver's handle on the current device, whose context is current then, with that much dynamic shared
        memory allowed."""
        device = self.runtime.device()
        _launch.ensure_context(device)  # a thread that CuPy has not called the driver in has none
        function = self._functions.get(device)
        if function is None:
            function = self._functions[device] = self.runtime.function(self.source, self.expression, device)
        if shared_bytes > DEFAULT_SHARED_BYTES and shared_bytes > self._shared_bytes.get(device, 0):
            _launch.allow_dynamic_shared(function, shared_bytes)
            self._shared_bytes[device] = shared_bytes
        return function
