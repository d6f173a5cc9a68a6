"""VGG: 3x3 convolutions one after the other, half the size and twice the channels behind every pooling.

Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition, arXiv 1409.1556, table 1,
columns A, B, D and E; the ``_bn`` networks have a batch norm behind every convolution. Names are torchvision's: its
checkpoints load by ``cnn.load_torch``.
"""

from __future__ import annotations

from .. import nn
from ..nn import init
from .registry import register

CHANNELS = (64, 128, 256, 512, 512)  # of the convolutions between two poolings


@register()
def vgg11(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 132,863,336 parameters for 1000 classes."""
    return _vgg((1, 1, 2, 2, 2), False, num_classes, dropout)


@register()
def vgg11_bn(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 132,868,840 parameters for 1000 classes."""
    return _vgg((1, 1, 2, 2, 2), True, num_classes, dropout)


@register()
def vgg13(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 133,047,848 parameters for 1000 classes."""
    return _vgg((2, 2, 2, 2, 2), False, num_classes, dropout)


@register()
def vgg13_bn(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 133,053,736 parameters for 1000 classes."""
    return _vgg((2, 2, 2, 2, 2), True, num_classes, dropout)


@register()
def vgg16(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 138,357,544 parameters for 1000 classes."""
    return _vgg((2, 2, 3, 3, 3), False, num_classes, dropout)


@register()
def vgg16_bn(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 138,365,992 parameters for 1000 classes."""
    return _vgg((2, 2, 3, 3, 3), True, num_classes, dropout)


@register()
def vgg19(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 143,667,240 parameters for 1000 classes."""
    return _vgg((2, 2, 4, 4, 4), False, num_classes, dropout)


@register()
def vgg19_bn(num_classes: int = 1000, *, dropout: float = 0.5) -> nn.Sequential:
    """Images (N, 224, 224, 3) -> logits (N, num_classes); 143,678,248 parameters for 1000 classes."""
    return _vgg((2, 2, 4, 4, 4), True, num_classes, dropout)


def _vgg(depths: tuple[int, ...], norm: bool, num_classes: int, dropout: float) -> nn.Sequential:
    """``depths``: how many convolutions there are in front of each pooling."""
    layers: list[nn.Module] = []
    channels = 3
    for depth, wanted in zip(depths, CHANNELS, strict=True):
        for _ in range(depth):
            layers.append(_conv3x3(channels, wanted))
            layers += [nn.BatchNorm2d(wanted), nn.ReLU()] if norm else [nn.ReLU()]
            channels = wanted
        layers.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        _linear(channels * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(dropout),
        _linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(dropout),
        _linear(4096, num_classes),
    )
    return nn.Sequential(
        {
            "features": nn.Sequential(*layers),
            "avgpool": nn.AdaptiveAvgPool2d(7),
            "flatten": nn.Flatten("CHW"),  # as the published weights of the first linear layer were trained
            "classifier": classifier,
        }
    )


def _conv3x3(channels: int, wanted: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, wanted, 3, padding=1)
    conv.weight, conv.bias = init.kaiming_normal(conv.weight.shape, "fan_out"), init.zeros((wanted,))
    return conv


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    linear.weight, linear.bias = init.normal((outputs, inputs), 0.01), init.zeros((outputs,))
    return linear
