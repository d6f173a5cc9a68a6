"""What a benchmark asks every contender to compute, and the check that they all computed it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from cnnengine.backends.contract import Backend
from cnnengine.errors import Unsupported
from cnnengine.shapes import Conv2dShape, Pool2dShape

Arrays = Mapping[str, Any]
Run = Callable[[], Any]  # what is timed; returns the result, or None where there is nothing to compare
Ours = Callable[[Backend, Arrays], Run | None]  # None: this backend does not have it
Theirs = Callable[[Any, Arrays], Run]  # (torch, tensors)
CACHE_LINE = 64  # bytes
CHUNK = 1 << 18  # elements compared at a time: in float64 they stay in the cache
# largest relative error ||theirs - first|| / ||first|| that counts as the same result
AGREEMENT = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Prepared:
    """A contender's side of a task: ``run`` is timed, ``result`` brings what it returned to NumPy, N, H, W, C."""

    run: Run
    result: Callable[[Any], np.ndarray | None]


@dataclass(frozen=True, eq=False)
class Task:
    """One operation at one size, and how each library computes it.

    ``draw`` makes the arrays, the same for everyone: floating-point ones are cast to ``dtype``, those with four axes
    (N, H, W, C) reach PyTorch as (N, C, H, W) in the layout of the contender. Who works in place copies first.
    """

    operation: str
    case: str
    draw: Callable[[np.random.Generator], dict[str, np.ndarray]]
    ours: Mapping[str, Ours]  # by variant; "" is the backend's own choice
    torch: Mapping[str, Theirs]  # by variant; "nhwc" and "nchw" are memory layouts
    numpy: Callable[[Arrays], Run] | None = None
    shape: Conv2dShape | Pool2dShape | None = None  # what cuDNN goes by
    flops: int = 0  # 2 a multiply-add, 1 a comparison; 0 where only bytes count
    elements: int = 0  # numbers that have to move: every array once in each pass that cannot be avoided
    index_bytes: int = 0  # moved besides, of a size that does not depend on dtype
    streams: tuple[int, int] | None = (1, 1)  # how reads relate to writes where memory is the roof; None: multiply-adds
    agreement: float | None = None  # in place of AGREEMENT's, where another library is known to round more
    dtype: str = field(default="float32")

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Random and float32, scaled so that outputs are about 1."""
        return _drawn(self.draw)

    @property
    def bytes(self) -> int:
        """The least traffic."""
        return self.elements * (4 if self.dtype == "float32" else 2) + self.index_bytes

    def with_dtype(self, dtype: str) -> Task:
        return replace(self, dtype=dtype)


@lru_cache(maxsize=1)  # all contenders of a race read the same arrays; those of the last race are dropped
def _drawn(draw: Callable[[np.random.Generator], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: _aligned(array) for name, array in draw(np.random.default_rng(0)).items()}


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins on a cache line, as what our pool and PyTorch's allocator hand out, and so every layer's
    input but the first; NumPy's large arrays lie 16 bytes past one, where half of all vectors cross into the next."""
    memory = np.empty(array.nbytes + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def both_layouts(run: Theirs) -> dict[str, Theirs]:
    """The same operator on channels-last and on contiguous tensors."""
    return {"nhwc": run, "nchw": run}


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """||a - b|| / ||b|| in float64; infinite where shapes differ or anything is not finite."""
    if a.shape != b.shape:
        return float("inf")
    difference, norm = 0.0, 0.0  # squared; NaN and infinity stay in them
    flat_a, flat_b = np.ravel(a), np.ravel(b)
    for start in range(0, flat_a.size, CHUNK):
        theirs, ours = (v[start : start + CHUNK].astype(np.float64) for v in (flat_a, flat_b))
        norm += float(np.dot(ours, ours))
        theirs -= ours
        difference += float(np.dot(theirs, theirs))
    if not (np.isfinite(difference) and np.isfinite(norm)):
        return float("inf")
    return float(np.sqrt(difference) / max(np.sqrt(norm), 1e-30))


def check_agreement(task: Task, prepared: dict[str, Prepared]) -> dict[str, Prepared]:
    """Runs every contender once and returns those that do not refuse the task's shape; one that breaks, and is not the
    first, is left out too, which is said on standard error. Raises ArithmeticError where one's result is not that of
    the first."""
    results: dict[str, np.ndarray | None] = {}
    for name, p in prepared.items():
        try:
            results[name] = p.result(p.run())
        except Unsupported:
            continue
        except Exception as error:
            if not results:
                raise
            print(f"{name}: no {task.operation} {task.case} {task.dtype}: {error!r}", file=sys.stderr)
    reference, *others = results
    for name in others:
        mine, first = results[name], results[reference]
        if mine is None or first is None:
            continue
        error, allowed = relative_error(mine, first), task.agreement or AGREEMENT[task.dtype]
        if not error <= allowed:
            raise ArithmeticError(
                f"{task.operation} {task.case}: {name} differs from {reference} by {error:.1e} (relative), "
                f"more than {allowed:.0e}"
            )
    return {name: prepared[name] for name in results}
