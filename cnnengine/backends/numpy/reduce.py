"""Reductions of the middle axis: x (outer, reduced, inner) -> y (outer, inner)."""

from __future__ import annotations

import numpy as np

from ...shapes import ReduceShape
from ..contract import Array


@np.errstate(all="ignore")
def reduce(op: str, shape: ReduceShape, x: Array, y: Array) -> None:
    wide = np.asarray(x).reshape(shape.outer, shape.reduced, shape.inner).astype(np.float64)
    result = wide.sum(axis=1) if op == "sum" else wide.max(axis=1)
    y[...] = result.reshape(y.shape)
