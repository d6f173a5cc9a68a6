"""What a benchmark asks every contender to compute, and the check that they all computed it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from cnnengine.backends.contract import Backend
from cnnengine.errors import Unsupported
from cnnengine.shapes import Conv2dShape, Pool2dShape

Arrays = Mapping[str, Any]
Run = Callable[[], Any]  # what is timed; returns the result, or None where there is nothing to compare
Ours = Callable[[Backend, Arrays], Run | None]  # None: this backend does not have it
Theirs = Callable[[Any, Arrays], Run]  # (torch, tensors)
Draw = Callable[[np.random.Generator], dict[str, np.ndarray]]
CACHE_LINE = 64  # bytes
CHUNK = 1 << 18  # elements compared at a time: in float64 they stay in the cache
# largest relative error ||theirs - first|| / ||first|| that counts as the same result
AGREEMENT = {"float32": 1e-4, "tf32": 3e-3, "float16": 1e-2, "bfloat16": 3e-2}
TF32 = "tf32"  # float32 in memory, multiplied on tensor cores with 10 bits of mantissa: asked for, never silently so
PERIOD = 4_194_301  # a prime: what repeats with it lies differently in every row


@dataclass(frozen=True)
class Prepared:
    """A contender's side of a task: ``run`` is timed, ``result`` brings what it returned to float32 in the order
    N, H, W, C, for NumPy or, where all contenders are on the GPU, in CuPy; ``notes`` are fields of the result row."""

    run: Run
    result: Callable[[Any], Any]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Task:
    """One operation at one size, and how each library computes it.

    ``draw`` makes the arrays, the same for everyone: floating-point ones are cast to ``dtype``, those with four axes
    (N, H, W, C) reach PyTorch as (N, C, H, W) in the layout of the contender. Who works in place copies first.
    """

    operation: str
    case: str
    draw: Draw
    ours: Mapping[str, Ours]  # by variant; "" is the backend's own choice
    torch: Mapping[str, Theirs]  # by variant; "nhwc" and "nchw" are memory layouts
    numpy: Callable[[Arrays], Run] | None = None
    shape: Conv2dShape | Pool2dShape | None = None  # what cuDNN goes by
    flops: int = 0  # 2 a multiply-add, 1 a comparison; 0 where only bytes count
    elements: int = 0  # numbers that have to move: every array once in each pass that cannot be avoided
    index_bytes: int = 0  # moved besides, of a size that does not depend on dtype
    streams: tuple[int, int] | None = (1, 1)  # how reads relate to writes where memory is the roof; None: multiply-adds
    agreement: float = 0.0  # where another library is known to round more than AGREEMENT allows
    backends: tuple[str, ...] = ("cuda", "numba")  # ours on a GPU
    dtype: str = field(default="float32")

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Random and float32, scaled so that outputs are about 1."""
        return drawn(self.draw)

    @property
    def storage(self) -> str:
        """The type of the arrays in memory."""
        return "float32" if self.dtype == TF32 else self.dtype

    @property
    def bytes(self) -> int:
        """The least traffic."""
        return self.elements * (4 if self.storage == "float32" else 2) + self.index_bytes

    def with_dtype(self, dtype: str) -> Task:
        return replace(self, dtype=dtype)


@lru_cache(maxsize=1)  # all contenders of a race read the same arrays; those of the last race are dropped
def drawn(draw: Draw) -> dict[str, np.ndarray]:
    """What ``draw`` draws, aligned."""
    return {name: _aligned(array) for name, array in draw(np.random.default_rng(0)).items()}


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins on a cache line, as what our pool and PyTorch's allocator hand out, and so every layer's
    input but the first; NumPy's large arrays lie 16 bytes past one, where half of all vectors cross into the next."""
    memory = np.empty(array.nbytes + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32; large arrays repeat a shorter one, so that hundreds of megabytes take no seconds."""
    size = prod(shape)
    if size <= PERIOD:
        return rng.standard_normal(shape, np.float32)
    return np.resize(rng.standard_normal(PERIOD, np.float32), shape)


def both_layouts(run: Theirs) -> dict[str, Theirs]:
    """The same operator on channels-last and on contiguous tensors."""
    return {"nhwc": run, "nchw": run}


def relative_error(a: Any, b: Any) -> float:
    """||a - b|| / ||b|| with sums in float64; infinite where shapes differ or anything is not finite."""
    if a.shape != b.shape:
        return float("inf")
    difference, norm = (_sums if isinstance(a, np.ndarray) else _sums_on_device)(a, b)
    if not (np.isfinite(difference) and np.isfinite(norm)):
        return float("inf")
    return float(np.sqrt(difference) / max(np.sqrt(norm), 1e-30))


def _sums(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Sums of (a - b)^2 and b^2; NaN and infinity stay in them."""
    difference, norm = 0.0, 0.0
    flat_a, flat_b = np.ravel(a), np.ravel(b)
    for start in range(0, flat_a.size, CHUNK):
        theirs, ours = (v[start : start + CHUNK].astype(np.float64) for v in (flat_a, flat_b))
        norm += float(np.dot(ours, ours))
        theirs -= ours
        difference += float(np.dot(theirs, theirs))
    return difference, norm


def _sums_on_device(a: Any, b: Any) -> tuple[float, float]:
    d = a - b
    return float((d * d).sum(dtype=np.float64)), float((b * b).sum(dtype=np.float64))


def check_agreement(
    task: Task, prepared: dict[str, Prepared], left_out: dict[str, str] | None = None
) -> dict[str, Prepared]:
    """Runs every contender once and returns those to be timed. One that refuses the task's shape is left out; so is one
    that breaks and is not the first. Raises ArithmeticError where one's result is not that of the first.

    With ``left_out`` nothing is raised as long as one contender works: the reason goes there by name, and the result
    that counts as right is the first with which at least half of the others agree. On a machine that is there for half
    an hour a kernel that is wrong must not cost what is known of the others.
    """
    results: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for name, p in prepared.items():
        try:
            results[name] = p.result(p.run())
        except Unsupported:
            continue
        except Exception as error:
            if left_out is None and not results:
                raise
            broken[name] = summary(error)
            print(f"{name}: no {task.operation} {task.case} {task.dtype}: {summary(error)}", file=sys.stderr)
    if left_out is None:
        wrong = _differing(task, results, next(iter(results)))
        for reason in wrong.values():
            raise ArithmeticError(f"{task.operation} {task.case}: {reason}")
        return {name: prepared[name] for name in results}
    if not results:
        raise ArithmeticError(f"{task.operation} {task.case}: no contender works: {broken}")
    wrong = next(
        (w for reference in results if 2 * len(w := _differing(task, results, reference)) <= len(results) - 1),
        _differing(task, results, next(iter(results))),
    )
    left_out.update(broken | {name: f"refused: {reason}" for name, reason in wrong.items()})
    return {name: prepared[name] for name in results if name not in wrong}


def summary(error: Exception) -> str:
    """Its type and the first line of what it says."""
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first[:200]}"


def _differing(task: Task, results: Mapping[str, Any], reference: str) -> dict[str, str]:
    """The contenders whose results are not the reference's, and by how much they differ. A result of None, where two
    libraries need not return the same, is not compared."""
    wrong, allowed = {}, max(task.agreement, AGREEMENT[task.dtype])
    for name, mine in results.items():
        if name == reference or mine is None or results[reference] is None:
            continue
        error = relative_error(mine, results[reference])
        if not error <= allowed:
            wrong[name] = f"{name} differs from {reference} by {error:.1e} (relative), more than {allowed:.0e}"
    return wrong
