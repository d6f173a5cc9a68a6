"""Transposed convolution as a module."""

from __future__ import annotations

from .. import functional as F
from ..shapes import Pair
from ..tensor import Tensor
from . import init
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
        if groups < 1 or in_channels < 1 or out_channels < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                "ConvTranspose2d: in_channels and out_channels must be multiples of groups, all at least 1, received"
                f" {in_channels}, {out_channels} and {groups}"
            )
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(
                f"ConvTranspose2d: kernel_size must be one or two numbers of at least 1, received {kernel_size!r}"
            )
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
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", 0), ("output_padding", 0), ("dilation", 1), ("groups", 1)):
            value = getattr(self, name)
            text += f", {name}={value!r}" if value != usual else ""
        return text if self.bias is not None else f"{text}, bias=False"
