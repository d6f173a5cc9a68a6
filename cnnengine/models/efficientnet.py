"""EfficientNet B0 to B7: one network scaled, see ``compound_scaling``.

Names are torchvision's, whose checkpoints load by ``cnn.load_torch``. Weights that were trained with TensorFlow's
padding are another network's: this one pads each side alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from .. import functional as F
from .. import nn
from ..data.preprocessing import Preprocessing
from ..nn import init
from ..nn.conv2d_norm_activation import Conv2dNormActivation, with_shortcut
from ..tensor import Tensor
from .compound_scaling import HEAD, STEM, Scaling, Stage, channels, scaled
from .registry import Builder, register

# The authors' numbers for the released networks. They follow ``compound(phi)`` up to B3, phi = 2; beyond it they were
# set by hand, up to phi = 7 or so in width and resolution.
B0 = Scaling(1.0, 1.0, 224)
B1 = Scaling(1.0, 1.1, 240)
B2 = Scaling(1.1, 1.2, 260)
B3 = Scaling(1.2, 1.4, 300)
B4 = Scaling(1.4, 1.8, 380)
B5 = Scaling(1.6, 2.2, 456)
B6 = Scaling(1.8, 2.6, 528)
B7 = Scaling(2.0, 3.1, 600)

Norm = Callable[[int], nn.Module]
TENSORFLOW_NORM: Norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)  # which torchvision's B5 to B7 have


class MBConv(nn.Module):
    """1x1 to ``expand`` times the channels, a filter for each channel, squeeze and excitation, 1x1 without activation;
    plus x where the shape is x's, and then left out in training with probability ``stochastic_depth``."""

    def __init__(self, in_channels: int, stage: Stage, stride: int, stochastic_depth: float, norm: Norm) -> None:
        super().__init__()
        wide = channels(in_channels, stage.expand)
        layers: list[nn.Module] = []
        if wide != in_channels:
            layers.append(Conv2dNormActivation(in_channels, wide, 1, norm=norm, activation=nn.SiLU))
        layers += [
            Conv2dNormActivation(wide, wide, stage.kernel, stride, groups=wide, norm=norm, activation=nn.SiLU),
            nn.SqueezeExcitation(wide, max(1, in_channels // 4), nn.SiLU),
            Conv2dNormActivation(wide, stage.channels, 1, norm=norm, activation=None),
        ]
        self.block = nn.Sequential(*layers)
        self.stochastic_depth = nn.StochasticDepth(stochastic_depth)
        self.has_shortcut = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        if not self.has_shortcut:
            y: Tensor = self.block(x)
            return y
        if self.training and self.stochastic_depth.p:
            return F.add(x, self.stochastic_depth(self.block(x)))
        return with_shortcut(self.block, x)


class EfficientNet(nn.Module):
    """``features``, the mean over positions, ``classifier``: the base scaled by ``scaling``, such as ``B0`` or
    ``compound(phi)``. ``dropout`` stands before the classifier; blocks are left out in training with a probability that
    grows from 0 at the first towards ``stochastic_depth`` at the last."""

    def __init__(
        self, scaling: Scaling, num_classes: int, dropout: float, stochastic_depth: float, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        stages = scaled(scaling)
        total, done = sum(stage.blocks for stage in stages), 0
        width = channels(STEM, scaling.width)
        layers: list[nn.Module] = [Conv2dNormActivation(3, width, 3, 2, norm=norm, activation=nn.SiLU)]
        for stage in stages:
            members = []
            for block in range(stage.blocks):
                probability = stochastic_depth * done / total
                members.append(MBConv(width, stage, 1 if block else stage.stride, probability, norm))
                width, done = stage.channels, done + 1
            layers.append(nn.Sequential(*members))
        head = channels(HEAD, scaling.width)
        layers.append(Conv2dNormActivation(width, head, 1, norm=norm, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.GlobalAvgPool2d()
        linear = nn.Linear(head, num_classes)
        bound = 1 / math.sqrt(num_classes)
        linear.weight, linear.bias = init.uniform(linear.weight.shape, -bound, bound), init.zeros((num_classes,))
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(x)))
        return logits


def _registered(scaling: Scaling) -> Callable[[Builder], Builder]:
    """``register`` with the images of a scaling, cut and scaled as the authors did."""
    size = scaling.size
    return register((size, size, 3), Preprocessing(size, "padded", "bicubic"))


@_registered(B0)
def efficientnet_b0(num_classes: int = 1000, *, dropout: float = 0.2, stochastic_depth: float = 0.2) -> EfficientNet:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 5,288,548 parameters for 1000 classes."""
    return EfficientNet(B0, num_classes, dropout, stochastic_depth)


@_registered(B1)
def efficientnet_b1(num_classes: int = 1000, *, dropout: float = 0.2, stochastic_depth: float = 0.2) -> EfficientNet:
    """Images (N, 240, 240, 3) -> logits (N, num_classes); 7,794,184 parameters for 1000 classes."""
    return EfficientNet(B1, num_classes, dropout, stochastic_depth)


@_registered(B2)
def efficientnet_b2(num_classes: int = 1000, *, dropout: float = 0.3, stochastic_depth: float = 0.2) -> EfficientNet:
    """Images (N, 260, 260, 3) -> logits (N, num_classes); 9,109,994 parameters for 1000 classes."""
    return EfficientNet(B2, num_classes, dropout, stochastic_depth)


@_registered(B3)
def efficientnet_b3(num_classes: int = 1000, *, dropout: float = 0.3, stochastic_depth: float = 0.2) -> EfficientNet:
    """Images (N, 300, 300, 3) -> logits (N, num_classes); 12,233,232 parameters for 1000 classes."""
    return EfficientNet(B3, num_classes, dropout, stochastic_depth)


@_registered(B4)
def efficientnet_b4(num_classes: int = 1000, *, dropout: float = 0.4, stochastic_depth: float = 0.2) -> EfficientNet:
    """Images (N, 380, 380, 3) -> logits (N, num_classes); 19,341,616 parameters for 1000 classes."""
    return EfficientNet(B4, num_classes, dropout, stochastic_depth)


@_registered(B5)
def efficientnet_b5(num_classes: int = 1000, *, dropout: float = 0.4, stochastic_depth: float = 0.2) -> EfficientNet:
    """Images (N, 456, 456, 3) -> logits (N, num_classes); 30,389,784 parameters for 1000 classes."""
    return EfficientNet(B5, num_classes, dropout, stochastic_depth, TENSORFLOW_NORM)


@_registered(B6)
def efficientnet_b6(num_classes: int = 1000, *, dropout: float = 0.5, stochastic_depth: float = 0.2) -> EfficientNet:
    """Images (N, 528, 528, 3) -> logits (N, num_classes); 43,040,704 parameters for 1000 classes."""
    return EfficientNet(B6, num_classes, dropout, stochastic_depth, TENSORFLOW_NORM)


@_registered(B7)
def efficientnet_b7(num_classes: int = 1000, *, dropout: float = 0.5, stochastic_depth: float = 0.2) -> EfficientNet:
    """Images (N, 600, 600, 3) -> logits (N, num_classes); 66,347,960 parameters for 1000 classes."""
    return EfficientNet(B7, num_classes, dropout, stochastic_depth, TENSORFLOW_NORM)
