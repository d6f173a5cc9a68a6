"""What kernels cost, counted by the emulator: sectors, wavefronts, instructions, by line of the source.

The model is in docs/emulator.md. Everything is counted in requests: one instruction of one warp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

ALIGNMENT = 256  # bytes, of cuMemAlloc


class _Sum:
    """Adds field by field."""

    def __add__(self, other: Self) -> Self:
        return type(self)(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Requests(_Sum):
    """One kind of instruction."""

    requests: int = 0
    partial: int = 0  # requests in which not all lanes of the warp took part
    lanes: int = 0  # lanes that took part, over all requests


@dataclass(frozen=True, slots=True)
class Accesses(Requests):
    nbytes: int = 0  # asked for, lane by lane
    sizes: Counter[int] = field(default_factory=Counter)  # bytes of a lane's access -> requests


@dataclass(frozen=True, slots=True)
class GlobalAccesses(Accesses):
    sectors: int = 0  # of 32 bytes, that requests touched
    ideal_sectors: int = 0  # that would hold the same bytes, side by side

    @property
    def sectors_per_request(self) -> float:
        return self.sectors / self.requests if self.requests else 0.0

    @property
    def efficiency(self) -> float:
        """1 where every sector is asked for in full."""
        return self.ideal_sectors / self.sectors if self.sectors else 1.0


@dataclass(frozen=True, slots=True)
class SharedAccesses(Accesses):
    wavefronts: int = 0
    least_wavefronts: int = 0  # where no bank has to give two words

    @property
    def conflicts(self) -> int:
        return self.wavefronts - self.least_wavefronts


@dataclass(frozen=True, slots=True)
class Products(Requests):
    multiply_adds: int = 0


@dataclass(frozen=True, slots=True)
class Branches(Requests):
    """Branches that were seen to go two ways; a warp's execution of one is a request."""

    divergent: int = 0  # requests from which lanes went on at different places


@dataclass(frozen=True, slots=True)
class Counts(_Sum):
    """Of one line or of all; the fields stand in the order of csrc/emulator/count.h."""

    global_load: GlobalAccesses = GlobalAccesses()
    global_store: GlobalAccesses = GlobalAccesses()
    global_atomic: GlobalAccesses = GlobalAccesses()
    global_copy: GlobalAccesses = GlobalAccesses()  # what cp.async reads
    shared_load: SharedAccesses = SharedAccesses()
    shared_store: SharedAccesses = SharedAccesses()
    shared_atomic: Accesses = Accesses()
    shared_copy: SharedAccesses = SharedAccesses()  # what cp.async writes
    ldmatrix: SharedAccesses = SharedAccesses()
    stmatrix: SharedAccesses = SharedAccesses()
    bulk_load: Accesses = Accesses()  # TMA; bytes of whole boxes
    bulk_store: Accesses = Accesses()
    mma: Products = Products()
    wgmma: Products = Products()
    block_barrier: Requests = Requests()
    named_barrier: Requests = Requests()
    warp_barrier: Requests = Requests()
    warp_exchange: Requests = Requests()  # shuffles, votes, matches
    mbarrier_wait: Requests = Requests()
    branch: Branches = Branches()

    @property
    def global_sectors(self) -> int:
        """Read and written; without those of bulk copies."""
        return sum(part.sectors for part in _parts(self, GlobalAccesses))

    @property
    def wavefronts(self) -> int:
        """Of shared memory; without those of atomics, bulk copies and wgmma."""
        return sum(part.wavefronts for part in _parts(self, SharedAccesses))

    @property
    def conflicts(self) -> int:
        """Wavefronts of shared memory beyond the least."""
        return sum(part.conflicts for part in _parts(self, SharedAccesses))


@dataclass(frozen=True, slots=True)
class Counters:
    """``lines``: by place, "cuda/tile.cuh:93"."""

    lines: Mapping[str, Counts] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        return sum(self.lines.values(), Counts())

    def __add__(self, other: Counters) -> Counters:
        both = dict(self.lines)
        for place, counts in other.lines.items():
            both[place] = both.get(place, Counts()) + counts
        return Counters(both)

    def file(self, ending: str) -> Counts:
        """The total of the lines of one file, "tile.cuh"."""
        return sum((c for place, c in self.lines.items() if place.rpartition(":")[0].endswith(ending)), Counts())

    def table(self) -> str:
        """What touches memory, line by line, for people."""
        rows = [
            f"{'line':32} {'access':13} {'requests':>10} {'sectors':>10} {'a request':>9} {'wavefronts':>10} conflicts"
        ]
        for place, counts in self.lines.items():
            for one in fields(counts):
                part = getattr(counts, one.name)
                if not isinstance(part, Accesses) or not part.requests:
                    continue
                row = f"{place:32} {one.name:13} {part.requests:10}"
                if isinstance(part, GlobalAccesses):
                    row += f" {part.sectors:10} {part.sectors_per_request:9.2f}"
                elif isinstance(part, SharedAccesses):
                    row += f" {'':10} {'':9} {part.wavefronts:10} {part.conflicts:9}"
                rows.append(row)
        return "\n".join(rows)


def aligned(values: np.ndarray) -> np.ndarray:
    """A copy that begins where a GPU's allocator would let it, at a multiple of 256 bytes: the sectors that a kernel
    touches depend on it."""
    store = np.empty(values.nbytes + ALIGNMENT, np.uint8)
    start = -store.ctypes.data % ALIGNMENT
    copy = store[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def _parts(counts: Counts, kind: type) -> list[Any]:
    return [part for part in (getattr(counts, f.name) for f in fields(counts)) if isinstance(part, kind)]


def parse(table: str) -> Counters:
    """From the text of csrc/emulator/count_totals.cpp."""
    lines: dict[str, Counts] = {}
    for row in table.splitlines():
        place, *numbers = row.split("\t")
        lines[place] = lines.get(place, Counts()) + _counts(*map(int, numbers))
    return Counters(lines)


def _counts(
    kind: int,
    amount: int,
    requests: int,
    partial: int,
    lanes: int,
    amounts: int,
    sectors: int,
    ideal_sectors: int,
    wavefronts: int,
    least_wavefronts: int,
) -> Counts:
    one = fields(Counts)[kind]
    part: Any = type(one.default)
    values: dict[str, Any] = {"requests": requests, "partial": partial, "lanes": lanes}
    if issubclass(part, Accesses):
        values |= {"nbytes": amounts, "sizes": Counter({amount: requests})}
    if issubclass(part, GlobalAccesses):
        values |= {"sectors": sectors, "ideal_sectors": ideal_sectors}
    if issubclass(part, SharedAccesses):
        values |= {"wavefronts": wavefronts, "least_wavefronts": least_wavefronts}
    if issubclass(part, Products):
        values |= {"multiply_adds": amounts}
    if issubclass(part, Branches):
        values |= {"divergent": amounts}
    return Counts(**{one.name: part(**values)})
