"""One file an operation; this one only gathers them into the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ...shapes import BroadcastShape, Conv2dShape, GemmShape, Pool2dShape, ReduceShape
from .._conv2d_norm import COMPOSED, ComposedConv2dNorm
from .._host import HostMemory
from ..contract import CONV2D_VERBS, Array, Epilogue, PackedWeight
from . import (
    activation,
    binary,
    conv2d,
    dropout,
    gemm,
    norm,
    normalize_images,
    optimizer_step,
    pool2d,
    reduce,
    softmax_cross_entropy,
)


class NumpyBackend(ComposedConv2dNorm, HostMemory):
    name = "numpy"
    dtypes = frozenset({"float16", "bfloat16", "float32", "float64"})
    algorithms: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(CONV2D_VERBS, ("direct",))
    notes: ClassVar[Mapping[str, str]] = {**HostMemory.notes, "conv2d_norm_forward": COMPOSED}

    def conv2d_prepare(self, shape: Conv2dShape, w: Array, algorithm: str | None) -> PackedWeight:
        return PackedWeight(w, w, self.name, "direct")

    def conv2d_forward(
        self, shape: Conv2dShape, x: Array, w: Array | PackedWeight, y: Array, epilogue: Epilogue, algorithm: str | None
    ) -> None:
        conv2d.forward(shape, x, w.w if isinstance(w, PackedWeight) else w, y, epilogue)

    def conv2d_backward_input(self, shape: Conv2dShape, dy: Array, w: Array, dx: Array, algorithm: str | None) -> None:
        conv2d.backward_input(shape, dy, w, dx)

    def conv2d_backward_weight(self, shape: Conv2dShape, x: Array, dy: Array, dw: Array, algorithm: str | None) -> None:
        conv2d.backward_weight(shape, x, dy, dw)

    def pool2d_forward(self, kind: str, shape: Pool2dShape, x: Array, y: Array, index: Array | None) -> None:
        pool2d.forward(kind, shape, x, y, index)

    def pool2d_backward(self, kind: str, shape: Pool2dShape, dy: Array, index: Array | None, dx: Array) -> None:
        pool2d.backward(kind, shape, dy, index, dx)

    def activation_forward(self, kind: str, x: Array, y: Array, parameter: float) -> None:
        activation.forward(kind, x, y, parameter)

    def activation_backward(self, kind: str, saved: Array, dy: Array, dx: Array, parameter: float) -> None:
        activation.backward(kind, saved, dy, dx, parameter)

    def unary(self, op: str, x: Array, y: Array) -> None:
        binary.unary(op, x, y)

    def binary(self, op: str, shape: BroadcastShape, a: Array, b: Array, y: Array) -> None:
        binary.binary(op, a, b, y)

    def reduce(self, op: str, shape: ReduceShape, x: Array, y: Array) -> None:
        reduce.reduce(op, shape, x, y)

    def gemm(self, shape: GemmShape, a: Array, b: Array, c: Array, epilogue: Epilogue) -> None:
        gemm.gemm(shape, a, b, c, epilogue)

    apply_epilogue = staticmethod(norm.apply_epilogue)
    norm_forward = staticmethod(norm.forward)
    norm_backward = staticmethod(norm.backward)

    def softmax_cross_entropy_forward(self, x: Array, labels: Array, loss: Array, probability: Array) -> None:
        softmax_cross_entropy.forward(x, labels, loss, probability)

    def softmax_cross_entropy_backward(self, probability: Array, labels: Array, dloss: Array, dx: Array) -> None:
        softmax_cross_entropy.backward(probability, labels, dloss, dx)

    def dropout(self, x: Array, y: Array, threshold: int, scale: float, state: Array) -> None:
        dropout.dropout(x, y, threshold, scale, state)

    def normalize_images(self, x: Array, factor: Array, offset: Array, y: Array) -> None:
        normalize_images.normalize_images(x, factor, offset, y)

    def optimizer_step(
        self, kind: str, parameters: Sequence[Array], gradients: Sequence[Array], states: Sequence[Array], hyper: Array
    ) -> None:
        optimizer_step.step(kind, parameters, gradients, states, hyper)
