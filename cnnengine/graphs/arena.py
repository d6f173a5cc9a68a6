"""Memory of a captured step: one piece, whose blocks are given back and taken again while the step is captured, and
whose addresses stay what they are for every replay."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Any

ALIGNMENT = 256  # bytes; TMA wants 16, a line of the L2 cache has 128


class Layout:
    """Offsets of blocks within memory that grows as needed: the smallest gap that fits, else behind the last block."""

    def __init__(self) -> None:
        self.peak = 0  # bytes that were in use up to their end
        self._end = 0
        self._gaps: list[tuple[int, int]] = []  # (offset, bytes), in order, none touching another or the end
        self._sizes: dict[int, int] = {}

    def take(self, nbytes: int) -> int:
        """The offset of a new block."""
        nbytes = max(1, -(-nbytes // ALIGNMENT)) * ALIGNMENT
        fitting = [(size, offset) for offset, size in self._gaps if size >= nbytes]
        if fitting:
            size, offset = min(fitting)
            self._gaps.remove((offset, size))
            if size > nbytes:
                insort(self._gaps, (offset + nbytes, size - nbytes))
        else:
            offset = self._end
            self._end += nbytes
            self.peak = max(self.peak, self._end)
        self._sizes[offset] = nbytes
        return offset

    def give_back(self, offset: int) -> None:
        """A block that was taken; what touches it becomes one gap with it."""
        size = self._sizes.pop(offset)
        at = bisect_left(self._gaps, (offset, 0))
        if at < len(self._gaps) and self._gaps[at][0] == offset + size:
            size += self._gaps.pop(at)[1]
        if at and sum(self._gaps[at - 1]) == offset:
            at -= 1
            offset, before = self._gaps.pop(at)
            size += before
        if offset + size == self._end:
            self._end = offset
        else:
            self._gaps.insert(at, (offset, size))


class Block:
    """Memory that somebody uses; NumPy makes an array of it, which holds it."""

    __slots__ = ("_give_back", "address", "holder", "nbytes")

    def __init__(self, address: int, nbytes: int, give_back: Callable[[], None] | None, holder: Any = None) -> None:
        self.address, self.nbytes, self._give_back, self.holder = address, nbytes, give_back, holder

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"version": 3, "data": (self.address, False), "shape": (self.nbytes,), "typestr": "|u1"}

    def __del__(self) -> None:
        if self._give_back is not None:
            self._give_back()


Allocate = Callable[[int], tuple[int, Any]]  # bytes -> (address, what holds that memory)


class Measure:
    """Blocks anywhere; ``peak`` is what an arena for them takes."""

    def __init__(self, allocate: Allocate) -> None:
        self._layout = Layout()
        self._allocate = allocate

    @property
    def peak(self) -> int:
        return self._layout.peak

    def block(self, nbytes: int) -> Block:
        """Memory until the result dies."""
        address, holder = self._allocate(max(1, nbytes))
        offset = self._layout.take(nbytes)
        return Block(address, nbytes, lambda: self._layout.give_back(offset), holder)


class Arena:
    """Blocks of one piece of memory, of a size that was measured; further pieces where that is too little."""

    def __init__(self, nbytes: int, allocate: Allocate) -> None:
        self._layout = Layout()
        self._allocate = allocate
        self._pieces: list[tuple[int, int, Any]] = []  # address, bytes, holder
        self._grow(max(nbytes, ALIGNMENT))

    @property
    def nbytes(self) -> int:
        return sum(size for _, size, _ in self._pieces)

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """(address, bytes)"""
        return [(address, size) for address, size, _ in self._pieces]

    def holds(self, address: int) -> bool:
        return any(start <= address < start + size for start, size, _ in self._pieces)

    def block(self, nbytes: int) -> Block:
        """Memory until the result dies."""
        offset = self._layout.take(nbytes)
        address, size, _ = self._pieces[0]
        if offset + nbytes <= size:
            return Block(address + offset, nbytes, lambda: self._layout.give_back(offset))
        self._layout.give_back(offset)
        return Block(self._grow(nbytes), nbytes, None)

    def _grow(self, nbytes: int) -> int:
        address, holder = self._allocate(max(1, nbytes))
        self._pieces.append((address, nbytes, holder))
        return address
