"""ResNet for images of ImageNet's size: blocks that add to what they are given.

He, Zhang, Ren, Sun: Deep residual learning for image recognition, arXiv 1512.03385, table 1; downsampling shortcuts are
1x1 convolutions (option B), and a bottleneck's stride is at its 3x3 convolution, as in torchvision, whose names these
are: its checkpoints load by ``cnn.load_torch``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from .. import nn
from ..nn import conv_norm, init
from ..tensor import Tensor
from .registry import register


class BasicBlock(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)), both convolutions 3x3; the shortcut is a projection, or what
    ``shortcut(in_channels, channels, stride)`` makes, None for x itself."""

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        shortcut: Callable[[int, int, int], nn.Module | None] | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = (shortcut or projection)(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = conv_norm(self.conv1, self.bn1, x, "relu")
        return conv_norm(self.conv2, self.bn2, y, "relu", shortcut)

    def conv_norm_pairs(self) -> tuple[tuple[str, str], ...]:
        return ("conv1", "bn1"), ("conv2", "bn2")


class Bottleneck(nn.Module):
    """1x1 to ``channels``, 3x3, 1x1 to four times as many, each with a batch norm; then as ``BasicBlock``."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, channels * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = projection(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = conv_norm(self.conv1, self.bn1, x, "relu")
        y = conv_norm(self.conv2, self.bn2, y, "relu")
        return conv_norm(self.conv3, self.bn3, y, "relu", shortcut)

    def conv_norm_pairs(self) -> tuple[tuple[str, str], ...]:
        return ("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")


class ResNet(nn.Module):
    """A 7x7 convolution and pooling, four stages of blocks, the mean over positions and a linear layer.

    ``zero_init_residual`` starts the last gain of every block at 0, so that blocks begin as the identity.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int,
        zero_init_residual: bool,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for i, depth in enumerate(depths):
            wanted, blocks = 64 * 2**i, []
            for j in range(depth):
                blocks.append(block(channels, wanted, 2 if i and not j else 1))
                channels = wanted * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.GlobalAvgPool2d()
        self.fc = nn.Linear(channels, num_classes)
        if zero_init_residual:
            self.apply(_zero_last_gain)

    def forward(self, x: Tensor) -> Tensor:
        y = self.maxpool(conv_norm(self.conv1, self.bn1, x, "relu"))
        y = self.layer4(self.layer3(self.layer2(self.layer1(y))))
        logits: Tensor = self.fc(self.avgpool(y))
        return logits

    def conv_norm_pairs(self) -> tuple[tuple[str, str], ...]:
        return (("conv1", "bn1"),)


@register()
def resnet18(num_classes: int = 1000, *, zero_init_residual: bool = False) -> ResNet:
    """Images (N, H, W, 3) -> logits (N, num_classes); 11,689,512 parameters for 1000 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, zero_init_residual)


@register()
def resnet34(num_classes: int = 1000, *, zero_init_residual: bool = False) -> ResNet:
    """Images (N, H, W, 3) -> logits (N, num_classes); 21,797,672 parameters for 1000 classes."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, zero_init_residual)


@register()
def resnet50(num_classes: int = 1000, *, zero_init_residual: bool = False) -> ResNet:
    """Images (N, H, W, 3) -> logits (N, num_classes); 25,557,032 parameters for 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, zero_init_residual)


@register()
def resnet101(num_classes: int = 1000, *, zero_init_residual: bool = False) -> ResNet:
    """Images (N, H, W, 3) -> logits (N, num_classes); 44,549,160 parameters for 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, zero_init_residual)


@register()
def resnet152(num_classes: int = 1000, *, zero_init_residual: bool = False) -> ResNet:
    """Images (N, H, W, 3) -> logits (N, num_classes); 60,192,808 parameters for 1000 classes."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, zero_init_residual)


def convolution(in_channels: int, channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size but for its stride, initialised for a ReLU."""
    conv = nn.Conv2d(in_channels, channels, size, stride, size // 2, bias=False)
    conv.weight = init.kaiming_normal(conv.weight.shape, "fan_out")
    return conv


def projection(in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut of a block: a 1x1 convolution and its norm, or None where x has the result's shape."""
    if stride == 1 and in_channels == channels:
        return None
    return nn.Sequential(convolution(in_channels, channels, 1, stride), nn.BatchNorm2d(channels))


def _zero_last_gain(module: nn.Module) -> None:
    if isinstance(module, BasicBlock | Bottleneck):
        norm = module.bn3 if isinstance(module, Bottleneck) else module.bn2
        norm.weight = init.zeros(norm.weight.shape)
