"""Every warp request of one block, in order: what the counting build of the emulator keeps when it is asked to trace.

A request is one instruction of one warp, as the counters have it (docs/emulator.md); here it comes with the address and
the bytes of each lane, and with its place in the source.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .._paths import csrc_dir
from ..errors import KernelError
from .counters import Counts

WARP = 32
MOST = 40_000  # requests: 32 MB, and a page of a few MB
COPY_LANDED = "copy_landed"  # a cp.async that was waited for: what only a trace shows
KINDS = (*(f.name for f in fields(Counts)), COPY_LANDED)  # in the order of csrc/emulator/count.h
BARRIER = KINDS.index("block_barrier")
TRACED = np.dtype(  # struct Event of csrc/emulator/trace.cpp
    [
        *((name, "<u4") for name in ("place", "kind", "amount", "warp", "order", "lanes")),
        *((name, "<u4") for name in ("sectors", "ideal_sectors", "wavefronts", "least_wavefronts")),
        ("address", "<u8", WARP),
        ("value", "u1", (WARP, 16)),  # what a lane read, or what lay there after it wrote
    ]
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a source file; ``file`` is relative to ``csrc/`` where it lies there."""

    file: str
    number: int

    def __str__(self) -> str:
        """As the counters name it"""
        return f"{'/'.join(Path(self.file).parts[-2:])}:{self.number}"


@dataclass(frozen=True, slots=True)
class Trace:
    """``requests`` (n,) of dtype TRACED, their ``place`` an index into ``places``: the line, then those where the
    functions around it were inlined. Between two barriers of the block, warps take turns."""

    requests: np.ndarray
    places: tuple[tuple[Line, ...], ...]

    def kinds(self) -> list[str]:
        return [KINDS[kind] for kind in self.requests["kind"]]


def start(library: ctypes.CDLL, block: tuple[int, int, int], most: int = MOST) -> None:
    """From now on the requests of that block of every launch are kept, ``most`` at most."""
    library.cnn_emulator_trace((ctypes.c_uint * 3)(*block), ctypes.c_size_t(most))


def take(library: ctypes.CDLL) -> Trace:
    """What was kept, and an end to it. Raises KernelError where there was no room for all of it."""
    refused = ctypes.c_size_t()
    library.cnn_emulator_traced.restype = ctypes.c_size_t
    kept = library.cnn_emulator_traced(ctypes.byref(refused))
    requests = np.zeros(kept, TRACED)
    library.cnn_emulator_copy_trace(ctypes.c_void_p(requests.ctypes.data))
    library.cnn_emulator_trace_places.restype = ctypes.c_char_p
    text = library.cnn_emulator_trace_places().decode()
    library.cnn_emulator_trace(None, ctypes.c_size_t(0))
    if refused.value:
        raise KernelError(
            f"the block makes {kept + refused.value} warp requests, a trace keeps {kept}: make the sum over R, S and"
            " the channels shorter (a smaller filter, fewer channels), or the tile smaller"
        )
    return Trace(requests[_turns(requests)], tuple(_frames(line) for line in text.splitlines()))


def _turns(requests: np.ndarray) -> np.ndarray:
    """The order of a trace: each warp's own, and between two barriers of the block one request of each warp in turn."""
    section, turn = np.zeros(len(requests), np.int64), np.zeros(len(requests), np.int64)
    for warp in np.unique(requests["warp"]):
        mine = np.flatnonzero(requests["warp"] == warp)
        mine = mine[np.argsort(requests["order"][mine])]
        barrier = requests["kind"][mine] == BARRIER
        ended = np.cumsum(barrier) - barrier  # a barrier belongs to what it ends
        section[mine] = ended
        first = np.searchsorted(ended, ended)  # of each one's section
        turn[mine] = np.where(barrier, len(requests), np.arange(len(mine)) - first)
    return np.lexsort((requests["warp"], turn, section))


def _frames(text: str) -> tuple[Line, ...]:
    """The first is the line itself; of the frames, innermost first, those inside of it go."""
    own, *frames = [_line(frame) for frame in text.split("\t")]
    around = frames[frames.index(own) + 1 :] if own in frames else []
    return own, *(line for line in around if line.file)


def _line(place: str) -> Line:
    path, _, number = place.rpartition(":")
    file: Any = Path(path)
    root = csrc_dir().resolve()
    if file.is_absolute():
        file = file.resolve()
        file = file.relative_to(root) if file.is_relative_to(root) else file
    return Line(file.as_posix(), int(number or 0))
