"""In what order the axes of a value lie in memory, where that is not the order in which they are named.

ONNX names image axes N, C, H, W; memory here is N, H, W, C. A value is therefore kept as an array and an ``order``:
axis i of the array is axis ``order[i]`` of the value. A transposition then only changes the order, and one that undoes
another costs nothing. Operations that care about the order ask for the one they need.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

Order = tuple[int, ...]


def plain(rank: int) -> Order:
    """The axes as they are named."""
    return tuple(range(rank))


def channels_second(rank: int) -> Order:
    """The array (N, C, ...) of a value (N, ..., C)."""
    return (0, rank - 1, *range(1, rank - 1))


def channels_last(rank: int) -> Order:
    """The array (N, ..., C) of a value (N, C, ...)."""
    return (0, *range(2, rank), 1)


def permuted(order: Order, axes: Sequence[int]) -> Order:
    """The order of the same array when the value is transposed by ``axes``."""
    return tuple(list(axes).index(axis) for axis in order)


def path(source: Order, target: Order) -> Order:
    """What an array of one order is transposed by to be one of another."""
    return tuple(source.index(axis) for axis in target)


def without(order: Order, dropped: Collection[int]) -> Order:
    """The order when axes of the value are dropped."""
    kept = [axis for axis in order if axis not in dropped]
    return tuple(sorted(kept).index(axis) for axis in kept)


def same_memory(order: Order, shape: Sequence[int], other: Order | None = None) -> bool:
    """Whether the array has its elements where one of the ``other`` order (None: plain) has them: axes of size 1 may
    lie anywhere."""
    long = [axis for axis in order if shape[axis] != 1]
    return long == [axis for axis in other or plain(len(order)) if shape[axis] != 1]


def shape_of(order: Order, shape: Sequence[int]) -> tuple[int, ...]:
    """The array's shape of a value's."""
    return tuple(shape[axis] for axis in order)
