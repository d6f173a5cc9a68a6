"""A convolution and the batch norm behind it, for backends that have no kernel which does both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shapes import Conv2dShape, NormShape, norm_shape
from .contract import IDENTITY, Array, Epilogue, PackedWeight

if TYPE_CHECKING:
    from .contract import Backend

COMPOSED = "composed: conv2d_forward and norm_forward"


def walk(shape: Conv2dShape) -> NormShape:
    """The norm of the convolution's result, channel by channel."""
    return norm_shape(1, shape.N * shape.P * shape.Q, shape.K, 1)


class ComposedConv2dNorm:
    def conv2d_norm_forward(
        self: Backend, shape: Conv2dShape, x: Array, w: Array | PackedWeight, bias: Array | None, y: Array,
        algorithm: str | None, gain: Array | None, offset: Array | None, residual: Array | None, z: Array,
        mean: Array, variance: Array, epsilon: float, activation: str,
    ) -> None:  # fmt: skip
        self.conv2d_forward(shape, x, w, y, IDENTITY if bias is None else Epilogue(bias), algorithm)
        self.norm_forward(walk(shape), y, gain, offset, residual, z, mean, variance, epsilon, activation)
