"""Squeeze and excitation (Hu, Shen, Albanie, Sun and Wu, arXiv 1709.01507): each channel scaled by what all say."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from .activation import ReLU, Sigmoid
from .conv2d import Conv2d
from .module import Module


class SqueezeExcitation(Module):
    """x (N, H, W, input_channels) times a factor (N, 1, 1, input_channels): ``scale_activation(fc2(activation(
    fc1(mean of x over H and W))))`` with 1 x 1 convolutions ``fc1`` to ``squeeze_channels`` and ``fc2`` back.

    Both activations are classes of modules. Names as torchvision's.
    """

    def __init__(
        self,
        input_channels: int,
        squeeze_channels: int,
        activation: type[Module] = ReLU,
        scale_activation: type[Module] = Sigmoid,
    ) -> None:
        super().__init__()
        self.fc1 = Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = Conv2d(squeeze_channels, input_channels, 1)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def forward(self, x: Tensor) -> Tensor:
        factor = self.activation(self.fc1(F.adaptive_avg_pool2d(x, 1)))
        return F.mul(x, self.scale_activation(self.fc2(factor)))
