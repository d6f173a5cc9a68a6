"""A call on the emulator, which counts what it costs by line of the source; a smaller one where the call is large.
Needs the extension ``cnnengine._launch``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends._conv2d_plans import CONFIGURED
from ..backends.emulator.backend import EmulatorBackend
from ..errors import Unsupported
from ..jit.cache import default_cache
from ..jit.counters import aligned
from ..jit.launch import EmulatorRuntime, Kernel, Size3
from ..jit.source import KernelSource
from ..jit.tensor_map import TensorMap
from .emulated import MOST, Emulated
from .launches import Launch
from .operations import reduced
from .problem import Problem

SEED = 0


class _Runtime(EmulatorRuntime):
    """Compiles the kernels that are launched and no others of their families."""

    def __init__(self) -> None:
        super().__init__(default_cache(), count=True)
        self.launched: list[str] = []

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        launch = super().kernel(source.only(expression), expression)

        def noting(
            grid: Size3, block: Size3, shared_bytes: int, arguments: tuple[Any, ...], cluster: Size3 | None = None
        ) -> None:
            self.launched.append(expression)
            launch(grid, block, shared_bytes, arguments, cluster)

        return noting

    def tensor_map(self, source: KernelSource, spec: TensorMap, array: Any) -> bytes:
        return super().tensor_map(KernelSource("cuda/platform.cuh", ()), spec, array)


class _Backend(EmulatorBackend):
    """Its memory begins where a GPU's would: sectors depend on it."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return aligned(np.empty(shape, dtype))

    def workspace(self, nbytes: int) -> np.ndarray:
        return aligned(np.empty(nbytes, np.uint8))


def emulate(problem: Problem, launches: list[Launch], algorithm: str | None, most: int = MOST) -> Emulated:
    """Runs a call, or a smaller one of about ``most`` operations, as ``launches`` would: with their rung and, where it
    can be chosen, their tile. Raises BackendUnavailable without g++, Unsupported where the smaller call has no such
    kernel."""
    small = reduced(problem, most)
    arrays = _arrays(small)
    runtime = _Runtime()
    backend = _Backend(runtime)
    for name in _names(launches, algorithm):
        runtime.launched.clear()
        runtime.take_counters()
        try:
            small.call(backend, arrays, name)
        except Unsupported:
            continue
        break
    else:
        raise Unsupported(f"{small} cannot be emulated with {algorithm}")
    kernels = tuple(dict.fromkeys(runtime.launched))
    planned = {f"{launch.name} {launch.tile}".strip() for launch in launches}
    ran = {_name_and_tile(expression) for expression in kernels}
    differs = "" if ran == planned else f"the GPU would run {', '.join(sorted(planned))}"
    return Emulated(str(small), small is problem, kernels, differs, runtime.take_counters())


def emulate_kernel(problem: Problem, launch: Launch, arguments: tuple[Any, ...]) -> Emulated:
    """Runs one kernel on these arguments. Raises as ``emulate``, KernelError for what the emulator finds wrong."""
    runtime = _Runtime()
    runtime.kernel(launch.source, launch.expression)(launch.grid, launch.block, launch.shared_bytes, arguments)
    return Emulated(str(problem), True, (launch.expression,), "", runtime.take_counters())


def _names(launches: list[Launch], algorithm: str | None) -> list[str | None]:
    """What to ask for, the closest first."""
    with_tile = next((launch for launch in launches if launch.tile), None)
    if algorithm is None or with_tile is None:
        return [algorithm]
    together = with_tile.cluster[0] if with_tile.cluster else 1
    clusters = f", clusters of {together}" if together > 1 else ""
    rung = algorithm.partition(CONFIGURED)[0]
    return [f"{rung}{CONFIGURED}{with_tile.tile}{clusters}", rung]


def _arrays(problem: Problem) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(SEED)
    return {name: aligned(operand.values(rng)) for name, operand in problem.operands.items()}


def _name_and_tile(expression: str) -> str:
    launch = Launch(KernelSource("", ()), expression, (1, 1, 1), (1, 1, 1), 0, None)
    return f"{launch.name} {launch.tile}".strip()
