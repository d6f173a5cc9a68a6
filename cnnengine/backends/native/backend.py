"""The contract's verbs in terms of the extension: shapes go over packed, names as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ... import _native
from ...errors import Unsupported
from ...shapes import BroadcastShape, Conv2dShape, GemmShape, NormShape, Pool2dShape, ReduceShape
from .._conv2d_norm import COMPOSED, ComposedConv2dNorm
from .._host import HostMemory
from ..contract import ACTIVATIONS, BINARY, CONV2D_VERBS, UNARY, Array, Epilogue, PackedWeight

FLOAT32 = np.dtype(np.float32)
_UNARY = {op: i for i, op in enumerate(UNARY)}
_BINARY = {op: i for i, op in enumerate(BINARY)}
_REDUCE = {"sum": 0, "max": 1}
_ACTIVATION = {kind: i for i, kind in enumerate(ACTIVATIONS)}


class NativeBackend(ComposedConv2dNorm, HostMemory):
    """float32 on the CPU; results are bit-identical for any number of threads."""

    name = "native"
    dtypes = frozenset({"float32"})
    algorithms: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "conv2d_forward": ("implicit_gemm", "winograd", "winograd_6x6", "depthwise", "grouped", "direct"),
        "conv2d_backward_input": (
            "implicit_gemm",
            "winograd",
            "winograd_6x6",
            "columns",
            "depthwise",
            "grouped",
            "direct",
        ),
        "conv2d_backward_weight": ("implicit_gemm", "winograd", "depthwise", "grouped", "direct"),
    }
    notes: ClassVar[Mapping[str, str]] = {
        "conv2d_norm_forward": COMPOSED,
        "fill": "composed: NumPy's fill",
        "cast": "composed: NumPy's assignment",
    }
    empty = staticmethod(_native.empty)
    extension: Any = _native  # of a step under way for a graph: what writes its calls down

    def conv2d_prepare(self, shape: Conv2dShape, w: Array, algorithm: str | None) -> PackedWeight:
        algorithm = self._checked("conv2d_forward", shape, algorithm) or self.extension.conv2d_chosen(0, shape.packed)
        return PackedWeight(w, self.extension.conv2d_prepare(shape.packed, w, algorithm), self.name, algorithm)

    def conv2d_forward(
        self, shape: Conv2dShape, x: Array, w: Array | PackedWeight, y: Array, epilogue: Epilogue, algorithm: str | None
    ) -> None:
        packed = None
        if isinstance(w, PackedWeight):
            w, packed, algorithm = w.w, w.packed, w.algorithm
        elif algorithm is not None:
            self._checked("conv2d_forward", shape, algorithm)
        bias, scale, shift, residual, kind, parameter = epilogue
        activation = _ACTIVATION[kind]
        self.extension.conv2d_forward(
            shape.packed, x, w, packed, y, bias, scale, shift, residual, activation, parameter, algorithm
        )

    def conv2d_backward_input(self, shape: Conv2dShape, dy: Array, w: Array, dx: Array, algorithm: str | None) -> None:
        if algorithm is not None:
            self._checked("conv2d_backward_input", shape, algorithm)
        self.extension.conv2d_backward_input(shape.packed, dy, w, dx, algorithm)

    def conv2d_backward_weight(self, shape: Conv2dShape, x: Array, dy: Array, dw: Array, algorithm: str | None) -> None:
        if algorithm is not None:
            self._checked("conv2d_backward_weight", shape, algorithm)
        self.extension.conv2d_backward_weight(shape.packed, x, dy, dw, algorithm)

    def _checked(self, verb: str, shape: Conv2dShape, algorithm: str | None) -> str | None:
        if algorithm is not None and not self.extension.conv2d_can(CONV2D_VERBS.index(verb), shape.packed, algorithm):
            raise Unsupported(f"native: {verb} cannot use {algorithm!r} for {shape}")
        return algorithm

    def pool2d_forward(self, kind: str, shape: Pool2dShape, x: Array, y: Array, index: Array | None) -> None:
        if kind == "max":
            self.extension.max_pool2d_forward(shape.packed, x, y, index)
        else:
            self.extension.avg_pool2d_forward(shape.packed, x, y)

    def pool2d_backward(self, kind: str, shape: Pool2dShape, dy: Array, index: Array | None, dx: Array) -> None:
        if kind == "max":
            self.extension.max_pool2d_backward(shape.packed, dy, index, dx)
        else:
            self.extension.avg_pool2d_backward(shape.packed, dy, dx)

    def activation_forward(self, kind: str, x: Array, y: Array, parameter: float) -> None:
        self.extension.activation_forward(_ACTIVATION[kind], x, y, parameter)

    def activation_backward(self, kind: str, saved: Array, dy: Array, dx: Array, parameter: float) -> None:
        self.extension.activation_backward(_ACTIVATION[kind], saved, dy, dx, parameter)

    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None:
        if x.dtype == FLOAT32 and len(axes) <= 8:
            self.extension.permute(x, y, axes)
        else:
            super().permute(x, y, axes)

    def unary(self, op: str, x: Array, y: Array) -> None:
        self.extension.unary(_UNARY[op], x, y)

    def binary(self, op: str, shape: BroadcastShape, a: Array, b: Array, y: Array) -> None:
        self.extension.binary(_BINARY[op], shape.packed, a, b, y)

    def reduce(self, op: str, shape: ReduceShape, x: Array, y: Array) -> None:
        self.extension.reduce(_REDUCE[op], shape.packed, x, y)

    def gemm(self, shape: GemmShape, a: Array, b: Array, c: Array, epilogue: Epilogue) -> None:
        bias, scale, shift, residual, kind, parameter = epilogue
        self.extension.gemm(shape.packed, a, b, c, bias, scale, shift, residual, _ACTIVATION[kind], parameter)

    def apply_epilogue(self, x: Array, y: Array, epilogue: Epilogue) -> None:
        bias, scale, shift, residual, kind, parameter = epilogue
        self.extension.apply_epilogue(x, y, bias, scale, shift, residual, _ACTIVATION[kind], parameter)

    def norm_forward(
        self, shape: NormShape, x: Array, gain: Array | None, offset: Array | None, residual: Array | None, y: Array,
        mean: Array, variance: Array, epsilon: float, activation: str,
    ) -> None:  # fmt: skip
        relu = activation == "relu"
        self.extension.norm_forward(shape.packed, x, gain, offset, residual, y, mean, variance, epsilon, relu)

    def norm_backward(
        self, shape: NormShape, x: Array, gain: Array | None, mean: Array, variance: Array, y: Array | None, dy: Array,
        dx: Array | None, dgain: Array | None, doffset: Array | None, dresidual: Array | None, epsilon: float,
        activation: str,
    ) -> None:  # fmt: skip
        known = shape.packed, x, gain, mean, variance, y if activation == "relu" else None, dy
        self.extension.norm_backward(*known, dx, dgain, doffset, dresidual, epsilon)

    def softmax_cross_entropy_forward(self, x: Array, labels: Array, loss: Array, probability: Array) -> None:
        self.extension.softmax_cross_entropy_forward(x, labels, loss, probability)

    def softmax_cross_entropy_backward(self, probability: Array, labels: Array, dloss: Array, dx: Array) -> None:
        self.extension.softmax_cross_entropy_backward(probability, labels, dloss, dx)

    def dropout(self, x: Array, y: Array, threshold: int, scale: float, state: Array) -> None:
        self.extension.dropout(x, y, threshold, scale, state)

    def normalize_images(self, x: Array, factor: Array, offset: Array, y: Array) -> None:
        self.extension.normalize_images(x, factor, offset, y)

    def optimizer_step(
        self, kind: str, parameters: Sequence[Array], gradients: Sequence[Array], states: Sequence[Array], hyper: Array
    ) -> None:
        getattr(self.extension, kind)(parameters, gradients, states, hyper)
