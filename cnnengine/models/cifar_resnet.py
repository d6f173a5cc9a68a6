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
from .resnet import convolution


class CifarBlock(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + x), x subsampled and padded where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.more = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        y = conv_norm(self.conv1, self.bn1, x, "relu")
        return conv_norm(self.conv2, self.bn2, y, "relu", self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = F.avg_pool2d(x, 1, self.stride)
        if not self.more:
            return x
        backend = active(x.data)
        zeros = backend.empty((*x.shape[:3], self.more // 2), x.dtype)
        backend.fill(zeros, 0.0)
        return F.concatenate([wrap(zeros), x, wrap(zeros)], axis=3)

    def conv_norm_pairs(self) -> tuple[tuple[str, str], ...]:
        return ("conv1", "bn1"), ("conv2", "bn2")


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of blocks, the mean over positions and a linear layer."""

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = convolution(3, 16, 3)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(CifarBlock(16, 16) for _ in range(blocks)))
        self.layer2 = nn.Sequential(CifarBlock(16, 32, 2), *(CifarBlock(32, 32) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(CifarBlock(32, 64, 2), *(CifarBlock(64, 64) for _ in range(blocks - 1)))
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
