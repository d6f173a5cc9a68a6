"""From a recording to the steps of a page: requests in terms of elements of arrays and words of shared memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..jit.trace import BARRIER, COPY_LANDED, KINDS
from .recording import Recording, tags_of
from .rungs import VERBS
from .sums import Sums, lanes_of
from .tiles import regions

ALL_WARPS = -1
GLOBAL = ("global_load", "global_store", "global_copy")
SHARED = ("shared_load", "shared_store", "shared_copy", "ldmatrix", "stmatrix", COPY_LANDED)
FILLED = ("shared_store", COPY_LANDED)  # after which shared memory holds something else
ELSEWHERE = -1  # an address in no known array
ZERO = 0  # codes of what a word holds: ZERO, 1 + the operands' elements one behind the other, numbers behind those;
OTHER = -2  # or no number: where the block's tile lies


@dataclass(slots=True)
class Steps:
    """Columns, an entry a step. ``at``: for each lane that takes part the element of ``array`` (0 and 1 the operands, 2
    the result), or the byte of shared memory. ``held``: the codes of what a lane's words, of ``unit`` bytes, hold
    afterwards, for kinds of FILLED; ``numbers`` are those behind the operands' codes."""

    kind: list[int] = field(default_factory=list)
    warp: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    amount: list[int] = field(default_factory=list)
    lanes: list[int] = field(default_factory=list)
    array: list[int] = field(default_factory=list)
    unit: list[int] = field(default_factory=list)
    sectors: list[int] = field(default_factory=list)
    ideal: list[int] = field(default_factory=list)
    wavefronts: list[int] = field(default_factory=list)
    least: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)  # that the step is: more than one of a barrier
    at: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    of_request: list[int] = field(default_factory=list)  # the step of each request of the recording

    def __len__(self) -> int:
        return len(self.kind)


def steps_of(recording: Recording, sums: Sums) -> Steps:
    """A barrier of all warps is one step."""
    steps, contents = Steps(), _Contents(recording, sums)
    for request, tags in zip(recording.trace.requests, recording.tags, strict=True):
        kind = int(request["kind"])
        if kind == BARRIER and steps.kind and steps.kind[-1] == BARRIER and steps.place[-1] == request["place"]:
            steps.warp[-1] = ALL_WARPS
            steps.requests[-1] += 1
            steps.of_request.append(len(steps) - 1)
            continue
        name, lanes, amount = KINDS[kind], lanes_of(request), int(request["amount"])
        steps.of_request.append(len(steps))
        steps.kind.append(kind)
        steps.requests.append(1)
        for column, source in (
            ("warp", "warp"), ("place", "place"), ("amount", "amount"), ("lanes", "lanes"), ("sectors", "sectors"),
            ("ideal", "ideal_sectors"), ("wavefronts", "wavefronts"), ("least", "least_wavefronts"),
        ):  # fmt: skip
            getattr(steps, column).append(int(request[source]))
        array = ELSEWHERE
        if name in GLOBAL:
            array, base, item = contents.array(int(request["address"][lanes[0]]))
            steps.at += [int(a - base) // item for a in request["address"][lanes].astype(np.int64)]
        elif name in SHARED:
            steps.at += [int(a) for a in request["address"][lanes]]
        steps.array.append(array)
        steps.unit.append(contents.unit(name, amount) if name in FILLED else 0)
        if name in FILLED:
            contents.add(steps, request, tags, lanes)
    steps.numbers = contents.numbers
    return steps


class _Contents:
    """Which element a word of shared memory holds, by the tags"""

    def __init__(self, recording: Recording, sums: Sums) -> None:
        self.names = VERBS[recording.verb]
        self.recording = recording
        first, second = (recording.arrays[name] for name in self.names[:2])
        self.values = np.concatenate([first.reshape(-1), second.reshape(-1)]).astype(np.float32)
        tags = np.concatenate([t.reshape(-1) for t in tags_of(first, second)]).astype(np.float32)
        self.order = np.argsort(tags)
        self.tags = tags[self.order]
        self.item = first.dtype.itemsize
        self.dtype = first.dtype
        areas = regions(sums.tile)
        self.end = areas[-1].end if areas else 0
        self.numbers: list[float] = []

    def array(self, address: int) -> tuple[int, int, int]:
        """Which array an address lies in, where it begins, and the bytes of an element"""
        for i, name in enumerate(self.names):
            base, array = self.recording.addresses[name], self.recording.arrays[name]
            if base <= address < base + array.nbytes:
                return i, base, array.itemsize
        return ELSEWHERE, 0, 1

    def unit(self, name: str, amount: int) -> int:
        """Bytes of an element of shared memory: copies keep the operands' type, threads store floats."""
        return self.item if name == COPY_LANDED or amount < 4 else 4

    def add(self, steps: Steps, request: np.void, tags: np.ndarray, lanes: np.ndarray) -> None:
        amount, unit = int(request["amount"]), steps.unit[-1]
        dtype: Any = self.dtype if unit == self.item else np.float32
        for lane in lanes:
            if request["address"][lane] >= self.end:
                steps.held += [OTHER] * (amount // unit)
                continue
            real, tag = (
                np.frombuffer(v[lane].tobytes()[:amount], dtype).astype(np.float32) for v in (request["value"], tags)
            )
            steps.held += [self._code(float(r), float(t)) for r, t in zip(real, tag, strict=True)]

    def _code(self, real: float, tag: float) -> int:
        place = int(np.searchsorted(self.tags, tag)) if tag == tag else len(self.tags)
        if place < len(self.tags) and self.tags[place] == tag:
            element = int(self.order[place])
            if self.values[element] == real:
                return 1 + element
        if real == 0 == tag:
            return ZERO
        self.numbers.append(real)
        return len(self.values) + len(self.numbers)
