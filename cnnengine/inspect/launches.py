"""A launch of a kernel, and what its expression tells."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..jit.source import KernelSource
from .problem import Problem, Size3

TILE = re.compile(r"(?:Wgmma|Simt|Mma|)Tile<[^>]*>")
TENSOR_CORES = re.compile(r"_w?g?mma<")
RUNGS = {  # of convolutions, by what a kernel's expression has
    "conv2d_first_layer": "first_layer", "_depthwise<": "depthwise", "_grouped": "grouped", "_winograd": "winograd",
    "_direct<": "direct", "_tiled<": "tiled", "_implicit_gemm<": "implicit_gemm", "_wgmma<": "implicit_gemm_wgmma",
    "Rounded::tf32_3x": "implicit_gemm_3xtf32", "Rounded::tf32": "implicit_gemm_tf32", "_mma<": "implicit_gemm_mma",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Launch:
    """``shared_bytes`` is dynamic shared memory."""

    source: KernelSource  # of this kernel alone
    expression: str
    grid: Size3
    block: Size3
    shared_bytes: int
    cluster: Size3 | None

    @property
    def blocks(self) -> int:
        x, y, z = self.grid
        return x * y * z

    @property
    def threads(self) -> int:
        """Of a block."""
        x, y, z = self.block
        return x * y * z

    @property
    def name(self) -> str:
        """conv2d_forward_tiled"""
        return self.expression.split("<")[0]

    @property
    def tile(self) -> str:
        """The tile among the template's arguments, or ""."""
        found = TILE.search(self.expression)
        return found[0] if found else ""

    @property
    def on_tensor_cores(self) -> bool:
        return TENSOR_CORES.search(self.expression) is not None


def rung(problem: Problem, planned: list[Launch]) -> str | None:
    """The algorithm that a convolution's launches belong to; None of other operations."""
    if problem.request.operation != "conv2d":
        return None
    everything = " ".join(launch.expression for launch in planned)
    return next(name for part, name in RUNGS.items() if part in everything)
