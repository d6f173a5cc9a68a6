"""What is inspected: one call of a backend's verb, with its operands, its operations and its least traffic."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..backends._kernel_library import ITEM_BYTES
from ..shapes import Padding, Pair

Arrays = Mapping[str, Any]
Size3 = tuple[int, int, int]
SMALLEST_ROWS, SMALLEST_SIDE, SMALLEST_CHANNELS = 32, 4, 64  # to which axes shrink before others do
DTYPES = tuple(ITEM_BYTES)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, as the command line and ``inspect`` take it."""

    operation: str
    x: tuple[int, ...]
    w: tuple[int, ...] | None = None
    verb: str = "forward"
    kind: str | None = None
    window: int | Pair | None = None
    stride: int | Pair | None = None
    padding: Padding = 0
    dilation: int | Pair = 1
    groups: int = 1
    dtype: str = "float32"
    algorithm: str | None = None

    def as_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Request:
        """What ``as_json`` wrote."""
        return cls(**{name: _tuples(value) for name, value in json.loads(text).items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Operand:
    """``moved``: how often memory has to move it at least, 2 where it is read and written. ``below``: it holds integers
    in [0, below), else standard normal numbers."""

    shape: tuple[int, ...]
    dtype: str
    moved: int = 1
    below: int = 0
    positive: bool = False

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def values(self, rng: np.random.Generator) -> np.ndarray:
        if self.below:
            return rng.integers(0, self.below, self.shape).astype(self.dtype)
        normal = rng.standard_normal(self.shape, np.float32)
        return (np.abs(normal) if self.positive else normal).astype(self.dtype)


@dataclass(frozen=True, slots=True)
class Problem:
    """``call(backend, arrays, algorithm)`` runs it on arrays that are named as ``operands``."""

    request: Request
    verb: str  # of the contract, such as conv2d_forward
    operands: dict[str, Operand]
    flops: int
    call: Callable[[Any, Arrays, str | None], None] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Least traffic: every operand once, or as often as it has to be."""
        return sum(operand.nbytes * operand.moved for operand in self.operands.values())

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.nbytes

    def run(self, backend: Any, arrays: Arrays) -> None:
        self.call(backend, arrays, self.request.algorithm)

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {operand.shape}" for name, operand in self.operands.items())
        return f"{self.verb}: {shapes}, {self.request.dtype}"


def work(problem: Problem) -> int:
    """What emulating it takes: its operations, or a few for each element that it moves."""
    return max(problem.flops, 8 * sum(prod(operand.shape) for operand in problem.operands.values()))


def smaller(x: tuple[int, ...], groups: int = 1) -> tuple[int, ...] | None:
    """The next smaller array of the same kind: fewer images, then fewer lines and columns, then fewer channels. None
    where it is as small as it gets."""
    if len(x) == 4:
        least: tuple[int, ...] = (1, SMALLEST_SIDE, SMALLEST_SIDE)
        axes = sorted((1, 2), key=lambda axis: -x[axis])
    else:
        least, axes = (SMALLEST_ROWS,) * len(x), list(range(1, len(x) - 1))
    for axis in (0, *axes):
        if x[axis] > least[axis] and axis < len(x) - 1:
            return (*x[:axis], max(least[axis], x[axis] // 2), *x[axis + 1 :])
    channels = x[-1] // 2
    if len(x) == 1 or (channels >= SMALLEST_CHANNELS and groups == 1):
        return (*x[:-1], channels) if channels >= SMALLEST_ROWS else None
    return None
