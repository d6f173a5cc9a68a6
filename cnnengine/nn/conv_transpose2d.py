"""Transposed convolution as a module."""

from __future__ import annotations

from .. import functional as F
from ..shapes import Pair
from ..tensor import Tensor
from . import init
from .conv2d import checked_kernel, convolution_repr
from .module import Module


class ConvTranspose2d(Module):
    """x (N, H, W, in_channels) -> y (N, P, Q, out_channels), by ``F.conv_transpose2d`` with the same arguments.

    ``weight`` is (in_channels, R, S, out_channels / groups), ``bias`` (out_channels,) or None; both start uniform in
    +-1 / sqrt(R S out_channels / groups), as PyTorch's. Raises ValueError for sizes that cannot be.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        output_padding: int | Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Pair = 1,
    ) -> None:
        super().__init__()
        size = checked_kernel("ConvTranspose2d", in_channels, out_channels, groups, kernel_size)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = size
        self.stride = stride
        self.padding = padding
        self.output_padding = output_padding
        self.groups = groups
        self.dilation = dilation
        self.weight = init.layer_weight((in_channels, *size, out_channels // groups))
        bound = init.fan_in(self.weight.shape) ** -0.5
        self.register_parameter("bias", init.uniform((out_channels,), -bound, bound) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            groups=self.groups,
            dilation=self.dilation,
        )

    def extra_repr(self) -> str:
        return convolution_repr(self, padding=0, output_padding=0, dilation=1, groups=1)
