"""Launches written down instead of made: to pack them once, or to make them again later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .launch import Kernel, Runtime, Size3
from .source import KernelSource
from .tensor_map import TensorMap


@dataclass(frozen=True, slots=True)
class Mapped:
    """In place of a tensor map's bytes: what it describes."""

    source: KernelSource
    spec: TensorMap
    array: Any


@dataclass(frozen=True, slots=True)
class Launch:
    """One call of a kernel."""

    kernel: Kernel
    grid: Size3
    block: Size3
    shared_bytes: int
    arguments: tuple[Any, ...]  # Mapped where a kernel takes a tensor map
    options: dict[str, Any]  # cluster and the like, where they were given

    def make(self, runtime: Runtime) -> None:
        """Launches it."""
        arguments = tuple(
            runtime.tensor_map(a.source, a.spec, a.array) if isinstance(a, Mapped) else a for a in self.arguments
        )
        self.kernel(self.grid, self.block, self.shared_bytes, arguments, **self.options)


class RecordingRuntime:
    """A Runtime whose kernels call ``record`` with their launch and do nothing else."""

    def __init__(self, runtime: Runtime, record: Callable[[Launch], None]) -> None:
        self.runtime = runtime
        self.record = record

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        kernel = self.runtime.kernel(source, expression)

        def record(
            grid: Size3, block: Size3, shared_bytes: int, arguments: tuple[Any, ...], *cluster: Any, **options: Any
        ) -> None:
            if cluster:
                options["cluster"] = cluster[0]
            self.record(Launch(kernel, grid, block, shared_bytes, arguments, options))

        return record

    def capability(self) -> int:
        return self.runtime.capability()

    def tensor_map(self, source: KernelSource, spec: TensorMap, array: Any) -> Any:
        return Mapped(source, spec, array)
