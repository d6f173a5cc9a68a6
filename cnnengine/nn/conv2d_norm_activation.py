"""The commonest piece of a convolutional network: a convolution, its batch norm, an activation."""

from __future__ import annotations

from collections.abc import Callable

from .. import functional as F
from ..shapes import Padding
from ..tensor import Tensor
from . import init
from .activation import ReLU
from .container import Sequential
from .conv2d import Conv2d
from .conv_norm import activation_kind, conv_norm
from .module import Module, is_plain
from .norm import BatchNorm2d


class Conv2dNormActivation(Sequential):
    """x (N, H, W, in_channels) -> y (N, P, Q, out_channels): a convolution without bias ("0"), its norm ("1") and an
    activation ("2"), whose children and keys are torchvision's.

    ``padding`` None is ``kernel_size // 2``, which keeps the size but for the stride; ``norm(out_channels)`` makes the
    norm, ``activation()`` the activation, None for neither. Called with ``residual`` it adds that before the
    activation, in the norm's pass. Weights start normal, of standard deviation sqrt(2 / fan_out): He et al. 2015.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: Padding | None = None,
        groups: int = 1,
        norm: Callable[[int], Module] = BatchNorm2d,
        activation: Callable[[], Module] | None = ReLU,
    ) -> None:
        around = kernel_size // 2 if padding is None else padding
        conv = Conv2d(in_channels, out_channels, kernel_size, stride, around, groups=groups, bias=False)
        conv.weight = init.kaiming_normal(conv.weight.shape, "fan_out")
        super().__init__(conv, norm(out_channels), *([] if activation is None else [activation()]))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if residual is None:
            y: Tensor = super().forward(x)
            return y
        conv, norm, *rest = self
        kind = activation_kind(rest[0]) if rest else "identity"
        if kind is not None:
            return conv_norm(conv, norm, x, kind, residual)
        y = rest[0](conv_norm(conv, norm, x, "identity", residual))
        return y

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        return [("0", "1")]


def with_shortcut(branch: Sequential, x: Tensor) -> Tensor:
    """``branch(x) + x``. Where the branch ends in a Conv2dNormActivation, or in a convolution and its norm, the sum is
    done in the norm's pass; where it or its last module has hooks, behind them."""
    *front, before, last = branch
    if not is_plain(branch):
        y: Tensor = branch(x)
        return F.add(y, x)
    y = x
    for module in front:
        y = module(y)
    if isinstance(last, Conv2dNormActivation):
        if is_plain(last):
            return last.forward(before(y), x)
    elif isinstance(before, Conv2d):
        return conv_norm(before, last, y, "identity", x)
    y = last(before(y))
    return F.add(y, x)
