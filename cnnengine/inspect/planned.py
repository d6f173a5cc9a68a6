"""Which kernels a call launches on a GPU, and how: read off the backend's own plans, with no GPU. Needs the extension
``cnnengine._launch``."""

from __future__ import annotations

from typing import Any

from ..backends.planning import PlanningBackend, PlanningRuntime
from ..jit.launch import Kernel, Size3
from ..jit.source import KernelSource
from .launches import Launch
from .problem import Problem


class _NotingRuntime(PlanningRuntime):
    def __init__(self, arch: str) -> None:
        super().__init__(arch)
        self.launches: list[Launch] = []

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        def note(
            grid: Size3, block: Size3, shared_bytes: int, arguments: tuple[Any, ...], cluster: Size3 | None = None
        ) -> None:
            self.launches.append(Launch(source.only(expression), expression, grid, block, shared_bytes, cluster))

        return note


def launches(problem: Problem, arch: str, *, specialised: bool = True) -> tuple[str, list[Launch]]:
    """(the architecture's full name, launches in their order). ``specialised``: shapes are compiled in where they may
    be. Raises Unsupported for what the kernels cannot do, ValueError for an unknown architecture."""
    backend = PlanningBackend(arch, constant_shapes=specialised)
    runtime = backend.runtime = _NotingRuntime(arch)
    problem.run(backend, {name: backend.empty(o.shape, o.dtype) for name, o in problem.operands.items()})
    return runtime.arch, runtime.launches
