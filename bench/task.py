"""What a benchmark asks every contender to compute, and the check that they all computed it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from cnnengine.errors import Unsupported
from cnnengine.shapes import Conv2dShape, Pool2dShape

from .layers import Layer

Shape = Conv2dShape | Pool2dShape | tuple[int, int, int, int]
CONV2D = ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight")
POOL = ("max_pool2d_forward", "max_pool2d_backward")
ACTIVATION = ("relu_forward", "relu_backward")
# largest relative error ||theirs - first|| / ||first|| that counts as the same result
AGREEMENT = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Prepared:
    """A contender's side of a task: ``run`` is timed, ``result`` brings what it returned to NumPy, N, H, W, C."""

    run: Callable[[], Any]
    result: Callable[[Any], np.ndarray]


@dataclass(frozen=True, eq=False)
class Task:
    """One operation at one size. ``arrays`` are random and float32; contenders cast them to ``dtype``."""

    operation: str
    case: str
    shape: Shape
    dtype: str = "float32"

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """x, dy and, for convolutions, w, scaled so that outputs are about 1."""
        return _random_arrays(self.shape)

    def with_dtype(self, dtype: str) -> Task:
        return replace(self, dtype=dtype)

    @property
    def itemsize(self) -> int:
        return 4 if self.dtype == "float32" else 2

    @property
    def flops(self) -> int:
        """2 a multiply-add; comparisons count as 1."""
        return prod(self.shape) if isinstance(self.shape, tuple) else self.shape.flops()

    @property
    def bytes(self) -> int:
        """The least traffic: every array once. Max-pooling's backward pass also needs its 1-byte index."""
        if isinstance(self.shape, tuple):
            arrays = 3 if self.operation == "relu_backward" else 2
            return arrays * self.itemsize * prod(self.shape)
        index = prod(self.shape.y) if self.operation == "max_pool2d_backward" else 0
        return self.shape.bytes(self.itemsize) + index


@lru_cache(maxsize=1)  # all contenders of a race read the same arrays; those of the last race are dropped
def _random_arrays(shape: Shape) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    x, y = (shape, shape) if isinstance(shape, tuple) else (shape.x, shape.y)
    arrays = {"x": generator.standard_normal(x, np.float32), "dy": generator.standard_normal(y, np.float32)}
    if isinstance(shape, Conv2dShape):
        arrays["w"] = generator.standard_normal(shape.w, np.float32) * np.float32(shape.reduction**-0.5)
    return arrays


def tasks(operations: tuple[str, ...], layers: tuple[Layer, ...]) -> list[Task]:
    """Every operation on every layer."""
    return [Task(operation, layer.name, layer.shape) for layer in layers for operation in operations]


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """||a - b|| / ||b|| in float64; infinite where shapes differ or anything is not finite."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    norm = float(np.linalg.norm(b.astype(np.float64)))
    return float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64))) / max(norm, 1e-30)


def check_agreement(task: Task, prepared: dict[str, Prepared]) -> dict[str, Prepared]:
    """Runs every contender once and returns those that do not refuse the task's shape; one that breaks, and is not the
    first, is left out too, which is said on standard error. Raises ArithmeticError where one's result is not that of
    the first."""
    results: dict[str, np.ndarray] = {}
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
        error = relative_error(results[name], results[reference])
        if not error <= AGREEMENT[task.dtype]:
            raise ArithmeticError(
                f"{task.operation} {task.case}: {name} differs from {reference} by {error:.1e} (relative), "
                f"more than {AGREEMENT[task.dtype]:.0e}"
            )
    return {name: prepared[name] for name in results}
