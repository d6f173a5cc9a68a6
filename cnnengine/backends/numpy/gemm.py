"""Batched matrix product in float64."""

from __future__ import annotations

import numpy as np

from ...shapes import GemmShape
from ..contract import Array, Epilogue
from .epilogue import apply


@np.errstate(all="ignore")
def gemm(shape: GemmShape, a: Array, b: Array, c: Array, epilogue: Epilogue) -> None:
    s = shape
    a = a.reshape(1 if s.shared_a else s.batch, *((s.K, s.M) if s.transpose_a else (s.M, s.K))).astype(np.float64)
    b = b.reshape(1 if s.shared_b else s.batch, *((s.N, s.K) if s.transpose_b else (s.K, s.N))).astype(np.float64)
    if s.transpose_a:
        a = a.swapaxes(1, 2)
    if s.transpose_b:
        b = b.swapaxes(1, 2)
    c[...] = apply((a @ b).reshape(c.shape), epilogue)
