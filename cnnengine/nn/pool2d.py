"""Pooling as modules; arguments and sizes as the functions of the same name in ``functional``."""

from __future__ import annotations

from .. import functional as F
from ..shapes import Pair
from ..tensor import Tensor
from .module import Module


class MaxPool2d(Module):
    """x (N, H, W, C) -> the largest of each window (N, P, Q, C). ``stride`` None is ``kernel_size``."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor, activation: str = "identity") -> Tensor:
        return F.max_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, activation=activation
        )

    def extra_repr(self) -> str:
        return (
            f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation},"
            f" ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """x (N, H, W, C) -> the mean of each window (N, P, Q, C). ``stride`` None is ``kernel_size``."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, x: Tensor) -> Tensor:
        counted = self.ceil_mode, self.count_include_pad, self.divisor_override
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, *counted)

    def extra_repr(self) -> str:
        divisor = "" if self.divisor_override is None else f", divisor_override={self.divisor_override}"
        return (
            f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode},"
            f" count_include_pad={self.count_include_pad}{divisor}"
        )


class AdaptiveAvgPool2d(Module):
    """x (N, H, W, C) -> (N, P, Q, C) for ``output_size`` P or (P, Q), whatever H and W are."""

    def __init__(self, output_size: int | Pair) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class GlobalAvgPool2d(Module):
    """x (N, H, W, C) -> the mean of each channel (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.global_avg_pool2d(x)


class AdaptiveMaxPool2d(Module):
    """x (N, H, W, C) -> the largest of each of P x Q windows (N, P, Q, C) for ``output_size`` P or (P, Q)."""

    def __init__(self, output_size: int | Pair) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class GlobalMaxPool2d(Module):
    """x (N, H, W, C) -> the largest value of each channel (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.global_max_pool2d(x)
