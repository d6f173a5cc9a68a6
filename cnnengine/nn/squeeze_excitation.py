"""Squeeze and excitation: every channel times a number that depends on the mean of all channels."""

from __future__ import annotations

from collections.abc import Callable

from .. import functional as F
from ..tensor import Tensor
from .activation import ReLU, Sigmoid
from .conv2d import Conv2d
from .module import Module


class SqueezeExcitation(Module):
    """x (N, H, W, input_channels) times ``scale_activation(fc2(activation(fc1(mean over H and W))))``.

    ``fc1`` and ``fc2`` are 1 x 1 convolutions to ``squeeze_channels`` and back. Hu et al., arXiv 1709.01507.
    """

    def __init__(
        self,
        input_channels: int,
        squeeze_channels: int,
        activation: Callable[[], Module] = ReLU,
        scale_activation: Callable[[], Module] = Sigmoid,
    ) -> None:
        super().__init__()
        self.fc1 = Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = Conv2d(squeeze_channels, input_channels, 1)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def forward(self, x: Tensor) -> Tensor:
        mean = F.adaptive_avg_pool2d(x, 1)
        return x * self.scale_activation(self.fc2(self.activation(self.fc1(mean))))  # type: ignore[no-any-return]
