"""The sums that a block keeps in registers: which products have reached each, request by request.

Of tensor cores they are recorded: the emulator's mma leaves four sums a lane. On CUDA cores they are followed: a thread
that has read a factor of each operand can multiply them, and the values that it read tell the product; it adds in
float32, as the kernel does. ``check`` compares the last of them with what the kernel stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..backends._kernel_library import MmaTile
from ..errors import KernelError
from ..jit.trace import KINDS, WARP
from .recording import Recording
from .rungs import VERBS
from .tiles import AnyTile, Region, fragment, regions, tile_of

SHARED_LOAD, GLOBAL_LOAD, GLOBAL_STORE, MMA = map(KINDS.index, ("shared_load", "global_load", "global_store", "mma"))
FIRST, SECOND = 0, 1  # operands: rows and columns of the tile
NOBODY = -1


@dataclass(slots=True)
class Sums:
    """``index`` (rows, columns): the element of the result that each sum of the tile becomes, NOBODY where there is
    none; ``final`` (rows, columns): the last sums, ``sizes`` the same of absolute products.

    ``groups``: requests that read factors of both operands; with the last of each, the products of what a lane read of
    one with what it read of the other are added to the sums of ``rows`` x ``columns`` of the thread. ``fragments``: mma
    requests -> the first row and column of their fragment, and ``values`` (16, 8) after it; ``depth`` products were
    added to each."""

    index: np.ndarray
    final: np.ndarray
    sizes: np.ndarray
    tile: AnyTile | None
    roles: np.ndarray  # of each request: FIRST, SECOND or NOBODY
    groups: list[list[int]] = field(default_factory=list)
    rows: dict[int, tuple[int, ...]] = field(default_factory=dict)  # by thread
    columns: dict[int, tuple[int, ...]] = field(default_factory=dict)
    fragments: dict[int, tuple[int, int]] = field(default_factory=dict)
    values: dict[int, np.ndarray] = field(default_factory=dict)
    depth: dict[int, int] = field(default_factory=dict)


def lanes_of(request: np.void) -> np.ndarray:
    """The lanes that took part, ascending."""
    return np.flatnonzero(int(request["lanes"]) >> np.arange(WARP) & 1)


def follow(recording: Recording) -> Sums:
    """Raises KernelError where the sums that were followed are not those that the kernel stored."""
    requests = recording.trace.requests
    tile = tile_of(recording.launched.expression, recording.result.dtype.name)
    lines, columns, owners = _outputs(recording)
    shape = (len(lines), len(columns)) if tile is None else (tile.m, tile.n)
    index = np.full(shape, NOBODY, np.int64)
    for row, line in enumerate(lines):
        for column, place in enumerate(columns):
            element = line * _width(recording) + place
            if element in owners:
                index[row, column] = element
    roles = np.full(len(requests), NOBODY)
    sums = Sums(index, np.zeros(shape, np.float32), np.zeros(shape, np.float32), tile, roles)
    if isinstance(tile, MmaTile):
        _recorded(recording, tile, sums)
    else:
        _added(recording, sums, {int(e): (r, c) for (r, c), e in np.ndenumerate(index) if e != NOBODY}, owners)
    _check(recording, sums)
    return sums


def _width(recording: Recording) -> int:
    """Of the result as a matrix: pixels by channels, or filters by taps."""
    shape: tuple[int, ...] = recording.result.shape
    return shape[3] if recording.verb != "backward_weight" else shape[1] * shape[2] * shape[3]


def _outputs(recording: Recording) -> tuple[list[int], list[int], dict[int, int]]:
    """Lines and columns of the result that the block stores; and which thread stores each element."""
    base, item = recording.addresses[VERBS[recording.verb][2]], recording.result.dtype.itemsize
    owners: dict[int, int] = {}
    for request in recording.trace.requests[recording.trace.requests["kind"] == GLOBAL_STORE]:
        for lane in lanes_of(request):
            first = (int(request["address"][lane]) - base) // item
            for element in range(first, first + int(request["amount"]) // item):
                owners[element] = int(request["warp"]) * WARP + int(lane)
    if any(not 0 <= element < recording.result.size for element in owners):
        raise KernelError(f"{recording.launched.expression}: stores outside of its result")
    width = _width(recording)
    return sorted({e // width for e in owners}), sorted({e % width for e in owners}), owners


def _recorded(recording: Recording, tile: MmaTile, sums: Sums) -> None:
    requests = recording.trace.requests
    numbers = np.flatnonzero(requests["kind"] == MMA)
    parts = 3 if recording.algorithm == "implicit_gemm_3xtf32" else 1  # products that together are one
    done = np.zeros(sums.final.shape, np.int64)
    for warp in np.unique(requests["warp"]):
        mine = numbers[requests["warp"][numbers] == warp]
        places = {address: i for i, address in enumerate(np.unique(requests["address"][mine, 0]))}
        for number in mine:
            row, column = fragment(tile, int(warp), places[requests["address"][number, 0]])
            values = requests["value"][number].view(np.float32)  # (32, 4): see ptx.cuh
            corner = values.reshape(8, 4, 2, 2).transpose(2, 0, 1, 3).reshape(16, 8)
            sums.final[row : row + 16, column : column + 8] = corner
            sums.fragments[int(number)], sums.values[int(number)] = (row, column), corner
            done[row, column] += 1
            k = int(requests["amount"][number]) * WARP // (16 * 8)
            sums.depth[int(number)] = k if done[row, column] % parts == 0 else 0
    sums.sizes[...] = np.abs(sums.final)


def _added(recording: Recording, sums: Sums, places: dict[int, tuple[int, int]], owners: dict[int, int]) -> None:
    """What threads read of the operands, group by group, and the products of it."""
    requests = recording.trace.requests
    areas = regions(sums.tile)
    for number, request in enumerate(requests):
        sums.roles[number] = _role(recording, request, areas)
    if sums.tile is None:
        for element, thread in owners.items():
            row, column = places[element]
            sums.rows[thread], sums.columns[thread] = (row,), (column,)
    for group in _groups(requests, sums.roles):
        last = requests[group[-1]]
        sums.groups.append(group)
        for lane in lanes_of(last):
            thread = int(last["warp"]) * WARP + int(lane)
            factors: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
            where: tuple[list[int], list[int]] = ([], [])
            for number in group:
                role = int(sums.roles[number])
                factors[role].append(_floats(requests[number], int(lane), recording))
                if areas:
                    where[role].extend(_along(requests[number], int(lane), areas[role]))
            if areas:
                known = sums.rows.setdefault(thread, tuple(where[0])), sums.columns.setdefault(thread, tuple(where[1]))
                if known != (tuple(where[0]), tuple(where[1])):
                    raise KernelError(f"{recording.launched.expression}: thread {thread} does not keep its corner")
            corner = np.ix_(sums.rows[thread], sums.columns[thread])
            products = np.concatenate(factors[0])[:, None] * np.concatenate(factors[1])[None, :]
            sums.final[corner] += products
            sums.sizes[corner] += np.abs(products)


def _role(recording: Recording, request: np.void, areas: tuple[Region, ...]) -> int:
    """Of which operand a request reads factors"""
    lane = int(lanes_of(request)[0])
    address, kind = int(request["address"][lane]), int(request["kind"])
    if areas:
        found = [i for i, area in enumerate(areas) if area.begin <= address < area.end]
        return found[0] if kind == SHARED_LOAD and found else NOBODY
    for i, name in enumerate(VERBS[recording.verb][:2]):
        if kind == GLOBAL_LOAD and 0 <= address - recording.addresses[name] < recording.arrays[name].nbytes:
            return i
    return NOBODY


def _groups(requests: np.ndarray, roles: np.ndarray) -> Iterator[list[int]]:
    """Reads of a warp that belong together: of both operands, one behind the other."""
    for warp in np.unique(requests["warp"]):
        group: list[int] = []
        for number in np.flatnonzero((requests["warp"] == warp) & (roles != NOBODY)):
            both = {int(roles[i]) for i in group} == {FIRST, SECOND}
            if both and roles[number] != roles[group[-1]]:
                yield group
                group = []
            group.append(int(number))
        if group:
            yield group


def _floats(request: np.void, lane: int, recording: Recording) -> np.ndarray:
    """What a lane read, as float32: a tile is float32, an operand may be of another type."""
    dtype = np.dtype(np.float32) if request["kind"] == SHARED_LOAD else recording.result.dtype
    values: np.ndarray = request["value"][lane][: int(request["amount"])].view(dtype)
    return values.astype(np.float32)


def _along(request: np.void, lane: int, area: Region) -> range:
    """Rows or columns of the tile that a lane read"""
    first = (int(request["address"][lane]) - area.begin) // area.item % area.dims[-1]
    return range(first, first + int(request["amount"]) // area.item)


def _check(recording: Recording, sums: Sums) -> None:
    """As exact as an order of additions is known: where the compiler fuses a multiplication into an addition, a sum is
    rounded once instead of twice."""
    dtype, kept = recording.result.dtype, sums.index != NOBODY
    stored = recording.result.reshape(-1)[sums.index[kept]].astype(np.float32)
    with np.errstate(over="ignore"):
        followed = sums.final[kept].astype(dtype).astype(np.float32)
    step = 2.0 ** -{"float32": 23, "float16": 10, "bfloat16": 7}[dtype.name]
    allowed = 1e-5 * sums.sizes[kept] + step * np.abs(stored)
    wrong = ~(np.abs(followed - stored) <= allowed)
    if wrong.any():
        raise KernelError(
            f"{recording.launched.expression}: {wrong.sum()} of {wrong.size} sums are not what the kernel stored, the"
            f" first is {followed[wrong][0]} and not {stored[wrong][0]}"
        )
