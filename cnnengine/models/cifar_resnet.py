"""ResNet for the 32 x 32 images of CIFAR-10.

He, Zhang, Ren, Sun: Deep residual learning for image recognition, arXiv 1512.03385, section 4.2: 6n + 2 layers, n
blocks of two 3x3 convolutions for each of 16, 32 and 64 channels. Shortcuts have no parameters (option A): where the
size halves they take every second position and pad with channels of zeros, as many below as above.
"""

from __future__ import annotations

from .. import functional as F
from .. import nn
from ..backends.registry import active
from ..nn import conv_norm
from ..tensor import Tensor, wrap
from .registry import register
from .resnet import BasicBlock, convolution


class PaddedShortcut(nn.Module):
    """Option A: x at every ``stride``-th position, zeros for the channels it lacks, half of them in front."""

    def __init__(self, stride: int, more: int) -> None:
        super().__init__()
        self.stride = stride
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 1, self.stride)
        backend = active(x.data)
        zeros = backend.empty((*x.shape[:3], self.more // 2), x.dtype)
        backend.fill(zeros, 0.0)
        return F.concatenate([wrap(zeros), x, wrap(zeros)], axis=3)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, more={self.more}"


def padded(in_channels: int, channels: int, stride: int) -> PaddedShortcut | None:
    """The shortcut of a block, None where x has the result's shape."""
    return None if stride == 1 and in_channels == channels else PaddedShortcut(stride, channels - in_channels)


def stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """``blocks`` blocks, the first of them with the stride."""
    first = BasicBlock(in_channels, channels, stride, padded)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1, padded) for _ in range(blocks - 1)))


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of blocks, the mean over positions and a linear layer."""

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = convolution(3, 16, 3)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, blocks, 1)
        self.layer2 = stage(16, 32, blocks, 2)
        self.layer3 = stage(32, 64, blocks, 2)
        self.avgpool = nn.GlobalAvgPool2d()
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_norm(self.conv1, self.bn1, x, "relu")
        logits: Tensor = self.fc(self.avgpool(self.layer3(self.layer2(self.layer1(y)))))
        return logits

    def conv_norm_pairs(self) -> tuple[tuple[str, str], ...]:
        return (("conv1", "bn1"),)


@register(image=(32, 32, 3))
def resnet20(num_classes: int = 10) -> CifarResNet:
    """Images (N, 32, 32, 3) -> logits (N, num_classes); 269,722 parameters for 10 classes (the paper: 0.27 M)."""
    return CifarResNet(3, num_classes)


@register(image=(32, 32, 3))
def resnet56(num_classes: int = 10) -> CifarResNet:
    """Images (N, 32, 32, 3) -> logits (N, num_classes); 853,018 parameters for 10 classes (the paper: 0.85 M)."""
    return CifarResNet(9, num_classes)
