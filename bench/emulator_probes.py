"""The small kernels by which the emulator is tested (tests/emulator: copies, barriers, TMA tiled and im2col, multicast,
clusters, ldmatrix, stmatrix, mma, wgmma), run by the emulator and by a GPU on the same inputs.

The tests' own functions drive them; each launch happens on both sides, and every array it was given is compared bit by
bit. The function's assertion is then about what the GPU left: NumPy's result is the third opinion. Kernels with planted
bugs are not among them.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnnengine import _launch
from cnnengine.jit import nvrtc
from cnnengine.jit.launch import DEFAULT_SHARED_BYTES, CudaRuntime

PROBES = {  # module of tests/emulator -> its tests of kernels that are right
    "test_asynchronous": (
        "test_copies", "test_small_copies", "test_matrices", "test_matrices_back", "test_fragments_stored_by_two_warps",
        "test_warp_product", "test_warp_products_of_8", "test_tensor_loads", "test_swizzled_loads",
        "test_strided_boxes", "test_swizzled_stores", "test_tensor_stores", "test_ring", "test_warpgroup_product",
        "test_warpgroup_product_of_mn_major_operands", "test_weight_gradient", "test_arrivals",
    ),
    "test_im2col": (
        "test_im2col_loads", "test_im2col_loads_channels_past_the_end_as_zeros", "test_swizzled_im2col_loads",
        "test_im2col_columns_of_every_tap_are_a_convolution",
    ),
    "test_clusters": (
        "test_ranks", "test_a_launch_without_clusters", "test_shared_memory_of_the_next_block",
        "test_threads_that_returned_are_not_waited_for", "test_remote_arrivals", "test_parts", "test_multicasts",
    ),
    "test_threads": (
        "test_reversed", "test_row_sum", "test_rotated", "test_warp_results", "test_votes", "test_named_barriers",
        "test_every_16_bit_number_becomes_a_float", "test_half_arithmetic_rounds_once",
    ),
}  # fmt: skip
# why bits may differ where the emulator is right; what is not here must be the same
EXPLAINED = {
    "test_warp_product": "the order in which mma adds its products",
    "test_warp_products_of_8": "the order in which mma adds its products",
    "test_ring": "the order in which wgmma adds its products, and how far it keeps bits of small ones",
    "test_warpgroup_product": "the order in which wgmma adds its products, and how far it keeps bits of small ones",
    "test_warpgroup_product_of_mn_major_operands": "as test_warpgroup_product",
    "test_weight_gradient": "as test_warpgroup_product",
    "test_row_sum": "where the compilers fuse a product and a sum",
    "test_every_16_bit_number_becomes_a_float": "which of the NaNs a conversion gives",
    "test_half_arithmetic_rounds_once": "which of the NaNs arithmetic gives",
}


@dataclass(frozen=True)
class Probe:
    """A test function with one choice of its parameters."""

    name: str
    function: Callable[..., None]
    arguments: dict[str, Any]

    @property
    def label(self) -> str:
        given = ", ".join(f"{k}={v}" for k, v in self.arguments.items())
        return f"{self.name}({given})"


@dataclass
class Compared:
    """What the launches of a probe showed."""

    launches: int = 0
    identical: bool = True
    error: float = 0.0  # the largest relative one of an array
    kernels: list[str] = field(default_factory=list)


def probes() -> Iterator[Probe]:
    """Every function with every combination of its pytest parameters."""
    from importlib import import_module

    for module_name, names in PROBES.items():
        module = import_module(f"tests.emulator.{module_name}")
        for name in names:
            function = getattr(module, name)
            for arguments in combinations(function):
                yield Probe(name, function, arguments)


def combinations(function: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """Of its ``parametrize`` marks."""
    marks = [m for m in getattr(function, "pytestmark", []) if m.name == "parametrize"]
    axes = []
    for mark in marks:
        names = [n.strip() for n in mark.args[0].split(",")] if isinstance(mark.args[0], str) else list(mark.args[0])
        axes.append([dict(zip(names, v if len(names) > 1 else (v,), strict=True)) for v in mark.args[1]])
    for choice in itertools.product(*axes):
        yield {k: v for chosen in choice for k, v in chosen.items()}


def run(probe: Probe, gpu: CudaRuntime) -> Compared:
    """Raises AssertionError where the GPU's result is not NumPy's, KernelError where a launch fails."""
    seen = Compared()
    given = dict(probe.arguments)
    for name in inspect.signature(probe.function).parameters:
        if name in ("emulate", "plain"):
            given[name] = lambda file: Both(file, gpu, seen)
        elif name == "rng":
            given[name] = np.random.default_rng(0)
    probe.function(**given)
    return seen


@dataclass(frozen=True)
class Map:
    """A tensor map that each side encodes for its own memory."""

    tensor: np.ndarray
    how: str  # the method of tests/emulator/machine.py
    options: tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]


class Both:
    """A machine as tests/emulator/machine.py's: ``launch`` runs a kernel on the emulator and on the GPU. The arrays
    keep what the GPU left."""

    def __init__(self, file: str, gpu: CudaRuntime, seen: Compared) -> None:
        from tests.emulator.machine import machine

        self._file, self._gpu, self._seen = file, gpu, seen
        self._emulator = machine(file)
        self._emulator.module.configure(0, 1)
        self.race = False

    def tensor_map(self, tensor: np.ndarray, *arguments: Any, **options: Any) -> Map:
        return Map(tensor, "tensor_map", (arguments, tuple(options.items())))

    def im2col_map(self, tensor: np.ndarray, *arguments: Any, **options: Any) -> Map:
        return Map(tensor, "im2col_map", (arguments, tuple(options.items())))

    def launch(
        self, kernel: str, grid: Any, block: Any, *arguments: Any, shared: int = 0, also: Any = (), cluster: Any = 1
    ) -> None:
        import cupy

        from tests.emulator.machine import three

        arrays = {id(a): a for a in arguments if isinstance(a, np.ndarray)}
        arrays |= {id(a.tensor): a.tensor for a in arguments if isinstance(a, Map)}
        before = {key: a.copy() for key, a in arrays.items()}
        self._emulator.launch(
            kernel, grid, block, *(self._on_emulator(a) for a in arguments), shared=shared, also=also, cluster=cluster
        )
        emulated = {key: a.copy() for key, a in arrays.items()}
        device = {key: cupy.asarray(a.reshape(-1).view(np.uint8)) for key, a in before.items()}
        sizes = three(cluster)
        self._function(kernel, shared)(
            three(grid),
            three(block),
            shared,
            self._gpu.stream(),
            tuple(self._on_gpu(a, device) for a in arguments),
            None if sizes == (1, 1, 1) else sizes,
            False,
        )
        cupy.cuda.get_current_stream().synchronize()
        for key, a in arrays.items():
            a[...] = cupy.asnumpy(device[key]).view(a.dtype).reshape(a.shape)
            self._note(a, emulated[key])
        self._seen.launches += 1
        if kernel not in self._seen.kernels:
            self._seen.kernels.append(kernel)

    def _on_emulator(self, argument: Any) -> Any:
        if not isinstance(argument, Map):
            return argument
        arguments, options = argument.options
        return getattr(self._emulator, argument.how)(argument.tensor, *arguments, **dict(options))

    def _on_gpu(self, argument: Any, device: dict[int, Any]) -> Any:
        if isinstance(argument, np.ndarray):
            return device[id(argument)]
        if not isinstance(argument, Map):
            return argument
        arguments, options = argument.options
        return getattr(OnGpu(device[id(argument.tensor)]), argument.how)(argument.tensor, *arguments, **dict(options))

    def _function(self, kernel: str, shared: int) -> Callable[..., None]:
        from tests.emulator.machine import FILES, source

        device = self._gpu.device()
        _launch.ensure_context(device)
        function = self._gpu.function(source(self._file, FILES[self._file]), kernel, device)
        if shared > DEFAULT_SHARED_BYTES:
            _launch.allow_dynamic_shared(function, shared)
        return lambda *arguments: _launch.launch_cuda(function, *arguments)

    def _note(self, ours: np.ndarray, emulated: np.ndarray) -> None:
        self._seen.identical &= ours.tobytes() == emulated.tobytes()
        with np.errstate(invalid="ignore"):  # signalling NaN
            a, b = (v.astype(np.float64) for v in (ours, emulated))
        finite = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            self._seen.error = float("inf")
        error = float(np.linalg.norm(a[finite] - b[finite]) / max(float(np.linalg.norm(b[finite])), 1e-30))
        self._seen.error = max(self._seen.error, error)


class OnGpu:
    """Encodes a map as the driver does, for the device's copy of a tensor: the methods are Machine's, which ask
    ``module`` for the encoding and take the address from it."""

    def __init__(self, copy: Any) -> None:
        self._address = int(copy.data.ptr)
        self.module = self

    def tensor_map(self, *arguments: Any, **options: Any) -> bytes:
        from tests.emulator.machine import Machine

        made: bytes = Machine.tensor_map(self, *arguments, **options)  # type: ignore[arg-type]
        return made

    def im2col_map(self, *arguments: Any, **options: Any) -> bytes:
        from tests.emulator.machine import Machine

        made: bytes = Machine.im2col_map(self, *arguments, **options)  # type: ignore[arg-type]
        return made

    def encode_tensor_map_tiled(self, dtype: int, address: int, *rest: Any, **named: int) -> bytes:
        lists = [list(a) for a in rest]
        made: bytes = _launch.encode_tensor_map_tiled(dtype, self._address, *lists, *_order(named))
        return made

    def encode_tensor_map_im2col(self, dtype: int, address: int, *rest: Any, **named: int) -> bytes:
        lists = [list(a) if isinstance(a, tuple) else a for a in rest]
        made: bytes = _launch.encode_tensor_map_im2col(dtype, self._address, *lists, *_order(named))
        return made


def _order(named: dict[str, int]) -> tuple[int, ...]:
    return tuple(named[name] for name in ("interleave", "swizzle", "promotion", "fill"))


def skipped() -> str | None:
    """Why the probes cannot run here: they need compute capability 9.0, NVRTC and pytest."""
    from importlib.util import find_spec

    if find_spec("pytest") is None:
        return "pytest is not installed"
    return nvrtc.problem()
