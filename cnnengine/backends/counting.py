"""A backend that computes nothing and counts: multiply-adds of convolutions and products, bytes of results.

Not registered: ``cnnengine.models.summary`` makes one. Its arrays are of ``OverlaidMemory``.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from math import prod
from typing import Any, ClassVar

import numpy as np

from ..shapes import Conv2dShape, GemmShape
from ._overlaid import OverlaidMemory
from .contract import CONV2D_VERBS, Array, Epilogue, PackedWeight


class _AnyName(Container[str]):
    """Other backends' algorithms: which of them computes what is counted makes no difference"""

    def __contains__(self, name: object) -> bool:
        return True


def _nothing(*_: Any) -> None:
    """What most verbs do"""


class CountingBackend:
    """Adds up ``macs``, a multiply and an add each, padding counted as it is usual, and ``allocated``, the bytes of all
    arrays that were asked for."""

    name = "counting"
    device = "cpu"
    dtypes = frozenset({"float16", "bfloat16", "float32", "float64"})
    algorithms: ClassVar[Mapping[str, Any]] = dict.fromkeys(CONV2D_VERBS, _AnyName())
    notes: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self.macs = 0
        self.allocated = 0
        self._memory = OverlaidMemory()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        self.allocated += prod(shape) * np.dtype(dtype).itemsize
        return self._memory.empty(shape, dtype)

    def workspace(self, nbytes: int) -> Array:
        return np.zeros(nbytes, np.uint8)

    def to_host(self, a: Array) -> np.ndarray:
        return np.asarray(a)

    def to_device(self, a: np.ndarray) -> Array:
        return a

    def conv2d_prepare(self, shape: Conv2dShape, w: Array, algorithm: str | None) -> PackedWeight:
        return PackedWeight(w, w, self.name, "")

    def conv2d_forward(
        self, shape: Conv2dShape, x: Array, w: Array | PackedWeight, y: Array, epilogue: Epilogue, algorithm: str | None
    ) -> None:
        self.macs += shape.flops() // 2

    def conv2d_norm_forward(self, shape: Conv2dShape, *rest: Any) -> None:
        self.macs += shape.flops() // 2

    def conv2d_backward_input(self, shape: Conv2dShape, *rest: Any) -> None:
        self.macs += shape.flops() // 2

    def conv2d_backward_weight(self, shape: Conv2dShape, *rest: Any) -> None:
        self.macs += shape.flops() // 2

    def gemm(self, shape: GemmShape, a: Array, b: Array, c: Array, epilogue: Epilogue) -> None:
        self.macs += shape.batch * shape.M * shape.N * shape.K

    synchronize = fill = cast = permute = activation_forward = activation_backward = unary = binary = reduce = _nothing
    pool2d_forward = pool2d_backward = apply_epilogue = norm_forward = norm_backward = dropout = _nothing
    softmax_cross_entropy_forward = softmax_cross_entropy_backward = normalize_images = optimizer_step = _nothing
