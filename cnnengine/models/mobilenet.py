"""MobileNetV2: blocks that widen, filter each channel by itself, and narrow again.

Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: inverted residuals and linear bottlenecks, arXiv 1801.04381, table
2. Names are torchvision's, whose checkpoints load by ``cnn.load_torch``.
"""

from __future__ import annotations

from .. import nn
from ..nn import init
from ..nn.conv2d_norm_activation import Conv2dNormActivation, with_shortcut
from ..tensor import Tensor
from .registry import register

STAGES = (  # times the block widens, channels, blocks, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, HEAD = 32, 1280  # channels


class InvertedResidual(nn.Module):
    """1x1 to ``expand`` times the channels, 3x3 for each channel, 1x1 without activation; plus x where the shape is
    x's."""

    def __init__(self, in_channels: int, channels: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = in_channels * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers.append(Conv2dNormActivation(in_channels, wide, 1, activation=nn.ReLU6))
        layers.append(Conv2dNormActivation(wide, wide, 3, stride, groups=wide, activation=nn.ReLU6))
        layers += Conv2dNormActivation(wide, channels, 1, activation=None)  # its two children: "1" and "2" here
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        if self.has_shortcut:
            return with_shortcut(self.conv, x)
        y: Tensor = self.conv(x)
        return y


class MobileNetV2(nn.Module):
    """``features``, the mean over positions, ``classifier``."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv2dNormActivation(3, STEM, 3, 2, activation=nn.ReLU6)]
        channels = STEM
        for expand, wanted, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, wanted, 1 if block else stride, expand))
                channels = wanted
        layers.append(Conv2dNormActivation(channels, HEAD, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.GlobalAvgPool2d()
        self.classifier = nn.Sequential(nn.Dropout(dropout), classifier(HEAD, num_classes, 0.01))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(x)))
        return logits


@register()
def mobilenet_v2(num_classes: int = 1000, *, dropout: float = 0.2) -> MobileNetV2:
    """Images (N, H, W, 3) -> logits (N, num_classes); 3,504,872 parameters for 1000 classes."""
    return MobileNetV2(num_classes, dropout)


def classifier(in_features: int, num_classes: int, std: float) -> nn.Linear:
    """A linear layer with normal weights of that standard deviation and no bias to begin with."""
    linear = nn.Linear(in_features, num_classes)
    linear.weight = init.normal(linear.weight.shape, std)
    linear.bias = init.zeros(linear.bias.shape)
    return linear
