"""The kernels on an NVIDIA GPU: CuPy arrays, CuPy's current stream, kernels compiled at their first launch.

A verb plans and packs its launches at its first call of a kind and makes them again in one call into the launcher, as
the cuda backend's do (backends/cuda/prepared.py, csrc/launch/prepared.h).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

import cupy
import numpy as np

from ... import _launch
from ...jit.cache import Cache, default_cache
from ...jit.launch import CAPABILITY_MAJOR, CAPABILITY_MINOR
from .._conv2d_norm import COMPOSED
from ..contract import Array, PackedWeight
from ..cuda.prepared import PREPARED, SHAPES, NotPlanned, arrays_of, place_of
from . import compiled
from .backend import NumbaBackend

TENSOR_CORES = 80  # compute capability from which they take TF32


@dataclass(frozen=True, slots=True)
class Launch:
    kernel: Any
    grid: int
    block: tuple[int, int, int]
    arguments: tuple[Any, ...]


class Functions:
    """The driver's handles of kernels, by kernel, types and device."""

    def __init__(self, kept: Cache) -> None:
        self._kept = kept
        self._found: dict[tuple[Any, ...], int] = {}
        self._modules: list[int] = []
        self._lock = threading.Lock()

    def find(self, launch: Launch) -> int:
        """On the current device, whose context is current then. Compiles what is not in the cache."""
        device = cupy.cuda.runtime.getDevice()
        _launch.ensure_context(device)
        signature = compiled.signature_of(launch.arguments)
        key = launch.kernel, signature, device
        with self._lock:
            if key not in self._found:
                cubin = compiled.build(launch.kernel, signature, capability(device), self._kept)
                (symbol,) = cubin.names.values()
                self._modules.append(_launch.module_load(cubin.image))
                self._found[key] = _launch.module_function(self._modules[-1], symbol)
            return self._found[key]


@lru_cache(64)
def capability(device: int) -> tuple[int, int]:
    return (
        _launch.device_attribute(CAPABILITY_MAJOR, device),
        _launch.device_attribute(CAPABILITY_MINOR, device),
    )


class GpuLauncher:
    """Hands every launch to ``start``."""

    def __init__(self, start: Callable[[Launch], None], workspace: Callable[[int], Array]) -> None:
        self._start = start
        self._workspace = workspace

    def __call__(self, kernel: Any, grid: int, block: int | tuple[int, ...], *args: Any) -> None:
        if grid == 0:
            return
        threads = block if isinstance(block, tuple) else (block,)
        x, y, z = (*threads, 1, 1)[:3]
        self._start(Launch(kernel, grid, (x, y, z), args))

    def out(self, array: Array) -> Array:
        return array

    def integer(self, value: int) -> np.int32:
        return np.int32(value)

    def ints(self, tuple_class: Any, members: Any) -> Any:
        return _ints(tuple_class, members)

    def workspace(self, shape: tuple[int, ...]) -> Array:
        return self._workspace(4 * int(np.prod(shape))).view(np.float32).reshape(shape)


@lru_cache(4096)
def _ints(tuple_class: Any, members: Any) -> Any:
    return tuple_class(*map(np.int32, members if isinstance(members, tuple) else members.members()))


def _stream() -> int:
    return int(cupy.cuda.get_current_stream().ptr)


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
        self.functions = Functions(default_cache())
        self.launch = GpuLauncher(self.start, self.workspace)
        self._prepared = _launch.PreparedVerbs(_stream, _no_maps, SHAPES)

    def start(self, launch: Launch) -> None:
        """Launches on CuPy's current stream, so in order with CuPy's own work."""
        function = self.functions.find(launch)
        arguments = compiled.flat(launch.arguments)
        _launch.launch_cuda(function, (launch.grid, 1, 1), launch.block, 0, _stream(), arguments)

    def _prepare(self, verb: str, arguments: tuple[Any, ...]) -> None:
        """Makes the call, and prepares calls of its kind where that is possible."""
        planner = Planner(self)
        getattr(planner, verb)(*arguments)
        if not planner.launches:
            return
        arrays = [*arrays_of(arguments), *(array for array, _ in planner.temporaries)]
        makers = tuple(make for _, make in planner.temporaries)
        try:
            packed = [self._packed(launch, arrays) for launch in planner.launches]
            prepared = self._prepared.add(verb, arguments, packed, makers)
        except NotPlanned:
            prepared = False
        if prepared:
            self._prepared.run(verb, arguments)
        else:
            for launch in planner.launches:
                self.start(launch)

    def _packed(self, launch: Launch, arrays: list[Array]) -> tuple[Any, ...]:
        """A launch as ``PreparedVerbs.add`` takes it."""
        values, slots = list(compiled.flat(launch.arguments)), []
        for i, value in enumerate(values):
            if isinstance(value, cupy.ndarray):
                slots.append((i, *place_of(value, arrays)))
                values[i] = None
        sizes = self.functions.find(launch), (launch.grid, 1, 1), launch.block, 0, None, False
        return (*sizes, tuple(values), slots, [])

    def conv2d_prepare(self, shape: Any, w: Array, algorithm: str | None) -> PackedWeight:
        return Planner(self).conv2d_prepare(shape, w, algorithm)

    def refuse_tensor_cores(self) -> str | None:
        major, minor = capability(cupy.cuda.runtime.getDevice())
        if 10 * major + minor < TENSOR_CORES:
            return f"needs compute capability 8.0, this GPU has {major}.{minor}"
        return None

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return cupy.empty(shape, dtype)

    def workspace(self, nbytes: int) -> Array:
        """From CuPy's pool, whose blocks are reused in the stream's order: freed here, it is still there for the
        kernels already launched."""
        return cupy.empty(nbytes, np.uint8)

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


class Planner(NumbaBackend):
    """Runs one verb; its launches and the memory it asks for are written down."""

    device = "cuda"

    def __init__(self, backend: GpuBackend) -> None:
        self._backend = backend
        self.launches: list[Launch] = []
        self.temporaries: list[tuple[Array, Callable[[], Array]]] = []
        self.launch = GpuLauncher(self.launches.append, self.workspace)

    def workspace(self, nbytes: int) -> Array:
        make = partial(self._backend.workspace, nbytes)
        self.temporaries.append((make(), make))
        return self.temporaries[-1][0]

    def refuse_tensor_cores(self) -> str | None:
        return self._backend.refuse_tensor_cores()


def _verb(name: str) -> Callable[..., None]:
    plain = getattr(NumbaBackend, name)

    def verb(self: GpuBackend, *arguments: Any, **named: Any) -> None:
        if named:
            plain(self, *arguments, **named)
        elif not self._prepared.run(name, arguments):
            self._prepare(name, arguments)

    def on_packed_weights(self: GpuBackend, *arguments: Any, **named: Any) -> None:
        if not named and isinstance(arguments[2], PackedWeight):
            shape, x, w, y, epilogue, algorithm = arguments
            arguments = shape, x, w.packed, y, epilogue, algorithm or w.algorithm
        verb(self, *arguments, **named)

    def on_lists(self: GpuBackend, *arguments: Any, **named: Any) -> None:
        """As tuples: csrc/launch/prepared.h says what tells two kinds of call apart."""
        verb(self, *(tuple(a) if isinstance(a, list) else a for a in arguments), **named)

    chosen = {"conv2d_forward": on_packed_weights, "optimizer_step": on_lists}.get(name, verb)
    chosen.__name__, chosen.__doc__ = name, plain.__doc__
    return chosen


def _no_maps(spec: Any, dtype: str, address: int) -> bytes:
    raise AssertionError("no Numba kernel takes a tensor map")


for _name in (*PREPARED, "optimizer_step"):
    if _name in vars(NumbaBackend):
        setattr(GpuBackend, _name, _verb(_name))
