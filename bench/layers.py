"""The layers that benchmarks time, declared once, at training batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from cnnengine.shapes import Conv2dShape, Pool2dShape, conv2d_shape, pool2d_shape


@dataclass(frozen=True)
class Conv2dLayer:
    """A convolution with square input (N, size, size, C) and square filter (K, kernel, kernel, C/groups)."""

    name: str
    network: str
    N: int
    C: int
    K: int
    kernel: int
    size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def shape(self) -> Conv2dShape:
        x = (self.N, self.size, self.size, self.C)
        w = (self.K, self.kernel, self.kernel, self.C // self.groups)
        return conv2d_shape(x, w, self.stride, self.padding, 1, self.groups)


@dataclass(frozen=True)
class PoolLayer:
    """A max-pooling of (N, size, size, C)."""

    name: str
    network: str
    N: int
    C: int
    kernel: int
    stride: int
    padding: int
    size: int

    @property
    def shape(self) -> Pool2dShape:
        x = (self.N, self.size, self.size, self.C)
        return pool2d_shape("max_pool2d", x, self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class MapLayer:
    """What an elementwise operation or a normalisation sees: (N, size, size, C)."""

    name: str
    network: str
    N: int
    C: int
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.N, self.size, self.size, self.C)


# Narrow groups: rows of their own, outside the means over CONV2D's other layers (see requirements.py).
GROUPED = (
    Conv2dLayer("resnext 3x3 128 in 32 groups @56", "ResNeXt-50", 8, 128, 128, 3, 56, padding=1, groups=32),
    Conv2dLayer("resnext 3x3/2 256 in 32 groups @56", "ResNeXt-50", 8, 256, 256, 3, 56, 2, padding=1, groups=32),
    Conv2dLayer("resnext 3x3 256 in 32 groups @28", "ResNeXt-50", 8, 256, 256, 3, 28, padding=1, groups=32),
)

# The names say kernel/stride, C>K or channels (depthwise), @ input size; (128): a batch whose arrays fit no cache.
CONV2D = (
    Conv2dLayer("lenet.conv1 5x5 1>6 @28", "LeNet-5", 64, 1, 6, 5, 28, padding=2),
    Conv2dLayer("lenet.conv2 5x5 6>16 @14", "LeNet-5", 64, 6, 16, 5, 14),
    Conv2dLayer("alex.conv1 11x11/4 3>64 @224", "AlexNet", 16, 3, 64, 11, 224, stride=4, padding=2),
    Conv2dLayer("alex.conv2 5x5 64>192 @27", "AlexNet", 16, 64, 192, 5, 27, padding=2),
    Conv2dLayer("alex.conv3 3x3 192>384 @13", "AlexNet", 16, 192, 384, 3, 13, padding=1),
    Conv2dLayer("alex.conv4 3x3 384>256 @13", "AlexNet", 16, 384, 256, 3, 13, padding=1),
    Conv2dLayer("alex.conv5 3x3 256>256 @13", "AlexNet", 16, 256, 256, 3, 13, padding=1),
    Conv2dLayer("r50.conv1 7x7/2 3>64 @224", "ResNet-50", 8, 3, 64, 7, 224, stride=2, padding=3),
    Conv2dLayer("r50 1x1 64>64 @56", "ResNet-50", 8, 64, 64, 1, 56),
    Conv2dLayer("r50 3x3 64>64 @56", "ResNet-50", 8, 64, 64, 3, 56, padding=1),
    Conv2dLayer("r50 1x1 64>256 @56", "ResNet-50", 8, 64, 256, 1, 56),
    Conv2dLayer("r50 1x1 256>128 @56", "ResNet-50", 8, 256, 128, 1, 56),
    Conv2dLayer("r50 3x3/2 128>128 @56", "ResNet-50", 8, 128, 128, 3, 56, stride=2, padding=1),
    Conv2dLayer("r50 1x1 128>512 @28", "ResNet-50", 8, 128, 512, 1, 28),
    Conv2dLayer("r50 3x3 128>128 @28", "ResNet-50", 8, 128, 128, 3, 28, padding=1),
    Conv2dLayer("r50 1x1 512>256 @28", "ResNet-50", 8, 512, 256, 1, 28),
    Conv2dLayer("r50 3x3 256>256 @14", "ResNet-50", 8, 256, 256, 3, 14, padding=1),
    Conv2dLayer("r50 1x1 256>1024 @14", "ResNet-50", 8, 256, 1024, 1, 14),
    Conv2dLayer("r50 1x1 1024>512 @14", "ResNet-50", 8, 1024, 512, 1, 14),
    Conv2dLayer("r50 3x3 512>512 @7", "ResNet-50", 8, 512, 512, 3, 7, padding=1),
    Conv2dLayer("r50 1x1 512>2048 @7", "ResNet-50", 8, 512, 2048, 1, 7),
    Conv2dLayer("eff dw3x3 32 @112", "EfficientNet-B0", 8, 32, 32, 3, 112, padding=1, groups=32),
    Conv2dLayer("eff dw5x5/2 144 @56", "EfficientNet-B0", 8, 144, 144, 5, 56, stride=2, padding=2, groups=144),
    Conv2dLayer("eff dw3x3 480 @14", "EfficientNet-B0", 8, 480, 480, 3, 14, padding=1, groups=480),
    Conv2dLayer("eff dw5x5 672 @14", "EfficientNet-B0", 8, 672, 672, 5, 14, padding=2, groups=672),
    Conv2dLayer("eff dw5x5 1152 @7", "EfficientNet-B0", 8, 1152, 1152, 5, 7, padding=2, groups=1152),
    Conv2dLayer("eff 1x1 16>96 @112", "EfficientNet-B0", 8, 16, 96, 1, 112),
    Conv2dLayer("eff 1x1 80>480 @14", "EfficientNet-B0", 8, 80, 480, 1, 14),
    *GROUPED,
)

POOL = (
    PoolLayer("lenet.pool1 2x2/2 6 @28", "LeNet-5", 64, 6, 2, 2, 0, 28),
    PoolLayer("lenet.pool2 2x2/2 16 @10", "LeNet-5", 64, 16, 2, 2, 0, 10),
    PoolLayer("alex.pool1 3x3/2 64 @55", "AlexNet", 16, 64, 3, 2, 0, 55),
    PoolLayer("r50.pool 3x3/2 64 @112", "ResNet-50", 8, 64, 3, 2, 1, 112),
    PoolLayer("r50.pool 3x3/2 64 @112 (128)", "ResNet-50", 128, 64, 3, 2, 1, 112),
)

ACTIVATION = (
    MapLayer("lenet.relu1 6 @28", "LeNet-5", 64, 6, 28),
    MapLayer("r50 relu 64 @112", "ResNet-50", 8, 64, 112),
    MapLayer("r50 relu 256 @56", "ResNet-50", 8, 256, 56),
    MapLayer("r50 relu 1024 @14", "ResNet-50", 8, 1024, 14),
    MapLayer("r50 relu 64 @112 (128)", "ResNet-50", 128, 64, 112),
)

NORM = (
    MapLayer("r50 bn 64 @112", "ResNet-50", 8, 64, 112),
    MapLayer("r50 bn 256 @56", "ResNet-50", 8, 256, 56),
    MapLayer("r50 bn 2048 @7", "ResNet-50", 8, 2048, 7),
    MapLayer("r50 bn 64 @112 (128)", "ResNet-50", 128, 64, 112),
)

EXPANDED = MapLayer("eff 96 @112", "EfficientNet-B0", 8, 96, 112)  # where networks use other activations than ReLU
RESIDUAL = MapLayer("r50 256 @56", "ResNet-50", 8, 256, 56)
LAYER_NORM = MapLayer("convnext 96 @56", "ConvNeXt-T", 32, 96, 56)


CUDA_BATCHES = (64, 256)
NETWORKS = ("ResNet-50", "EfficientNet-B0", "ResNeXt-50", "AlexNet", "LeNet-5")  # a GPU's time goes to the first first


def cuda_layers(batches: Sequence[int] = CUDA_BATCHES) -> list[Conv2dLayer]:
    """CONV2D at each of the batches, which the names end in, in brackets; within one by network."""
    ordered = sorted(CONV2D, key=lambda layer: NETWORKS.index(layer.network))
    return [replace(layer, name=f"{layer.name} ({n})", N=n) for n in batches for layer in ordered]


L = TypeVar("L", Conv2dLayer, PoolLayer, MapLayer)


def shrink(layer: L) -> L:
    """The layer at batch 1, with at most eight channels and the smallest picture its filter still strides over: the
    same code path in microseconds, for smoke tests and simulators."""
    if isinstance(layer, MapLayer):
        return replace(layer, N=1, C=min(layer.C, 8), size=min(layer.size, 4))
    size = min(layer.size, layer.kernel + layer.stride)
    if isinstance(layer, PoolLayer):
        return replace(layer, N=1, C=min(layer.C, 8), size=size)
    if layer.groups > 1:  # depthwise stays depthwise, and groups of more stay such
        groups = 8 if layer.groups == layer.C else 2
        return replace(layer, N=1, C=8, K=8, groups=groups, size=size)
    return replace(layer, N=1, C=min(layer.C, 8), K=min(layer.K, 8), size=size)


def few(layers: Sequence[L]) -> Sequence[L]:
    """About four of them, spread over the list: one of each kind for smoke tests."""
    return layers[:: max(1, len(layers) // 4)]
