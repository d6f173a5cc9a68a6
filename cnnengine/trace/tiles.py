"""How a rung lays its tile out: which of a block's sums a thread keeps, and what shared memory holds.

The numbers of the templates in csrc/cuda/tile.cuh, simt_tile.cuh and mma_tile.cuh, read from the kernel's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..backends._kernel_library import MmaTile, SimtTile, Tile

TILE = re.compile(r"\b(Tile|SimtTile|MmaTile)<([\d, ]+)>")
AnyTile = Tile | SimtTile | MmaTile


@dataclass(frozen=True, slots=True)
class Region:
    """An array in shared memory: ``name[i][j]...`` with ``dims`` elements of ``item`` bytes each, from byte ``begin``
    on. The last dimension may be longer than what is used of it."""

    name: str
    begin: int
    item: int
    dims: tuple[int, ...]
    axes: tuple[str, ...]

    @property
    def end(self) -> int:
        size = self.item
        for dim in self.dims:
            size *= dim
        return self.begin + size


def tile_of(expression: str, dtype: str) -> AnyTile | None:
    """None of a kernel without one."""
    found = TILE.search(expression)
    if found is None:
        return None
    numbers = [int(n) for n in found[2].split(",")]
    if found[1] == "MmaTile":
        return replace(MmaTile(*numbers), item_bytes=4 if dtype == "float32" else 2)
    return (Tile if found[1] == "Tile" else SimtTile)(*numbers)


def regions(tile: AnyTile | None) -> tuple[Region, ...]:
    """Of the operands: a's rows and b's columns, both along the reduction k."""
    if tile is None:
        return ()
    if isinstance(tile, MmaTile):
        rows, columns = tile.m * tile.k, tile.n * tile.k
        axes = ("stage", "element")
        a = Region("a", 0, tile.item_bytes, (tile.stages, rows), axes)
        return a, Region("b", a.end, tile.item_bytes, (tile.stages, columns), axes)
    a = Region("a", 0, 4, (2, tile.k, tile.m + 4), ("buffer", "k", "row"))
    return a, Region("b", a.end, 4, (2, tile.k, tile.n + 4), ("buffer", "k", "column"))


def fragment(tile: MmaTile, warp: int, number: int) -> tuple[int, int]:
    """The first row and column of a warp's fragment of 16 x 8 sums, ``number`` counted along its rows."""
    rows, columns = tile.m // tile.warps_m, tile.n // tile.warps_n  # of a warp
    across = columns // 8
    row = warp // tile.warps_n * rows + number // across * 16
    return row, warp % tile.warps_n * columns + number % across * 8
