"""MobileNetV2, EfficientNet and EfficientNet-Lite in plain PyTorch; without dropout and stochastic depth, which the
checks leave out. Stages are written out for each network, from the tables of the papers and of the released networks.
"""

from __future__ import annotations

import torch
from torch import nn

MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
KERNELS, STRIDES = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)  # of EfficientNet's stages
NETWORKS = {  # channels of the stem, the stages and the head; blocks of the stages
    "efficientnet_b0": ((32, 16, 24, 40, 80, 112, 192, 320, 1280), (1, 2, 2, 3, 3, 4, 1)),
    "efficientnet_b1": ((32, 16, 24, 40, 80, 112, 192, 320, 1280), (2, 3, 3, 4, 4, 5, 2)),
    "efficientnet_b2": ((32, 16, 24, 48, 88, 120, 208, 352, 1408), (2, 3, 3, 4, 4, 5, 2)),
    "efficientnet_b3": ((40, 24, 32, 48, 96, 136, 232, 384, 1536), (2, 3, 3, 5, 5, 6, 2)),
    "efficientnet_b4": ((48, 24, 32, 56, 112, 160, 272, 448, 1792), (2, 4, 4, 6, 6, 8, 2)),
    "efficientnet_b5": ((48, 24, 40, 64, 128, 176, 304, 512, 2048), (3, 5, 5, 7, 7, 9, 3)),
    "efficientnet_b6": ((56, 32, 40, 72, 144, 200, 344, 576, 2304), (3, 6, 6, 8, 8, 11, 3)),
    "efficientnet_b7": ((64, 32, 48, 80, 160, 224, 384, 640, 2560), (4, 7, 7, 10, 10, 13, 4)),
    "efficientnet_lite0": ((32, 16, 24, 40, 80, 112, 192, 320, 1280), (1, 2, 2, 3, 3, 4, 1)),
    "efficientnet_lite1": ((32, 16, 24, 40, 80, 112, 192, 320, 1280), (1, 3, 3, 4, 4, 5, 1)),
    "efficientnet_lite2": ((32, 16, 24, 48, 88, 120, 208, 352, 1280), (1, 3, 3, 4, 4, 5, 1)),
    "efficientnet_lite3": ((32, 24, 32, 48, 96, 136, 232, 384, 1280), (1, 3, 3, 5, 5, 6, 1)),
    "efficientnet_lite4": ((32, 24, 32, 56, 112, 160, 272, 448, 1280), (1, 4, 4, 6, 6, 8, 1)),
}


def layer(inputs: int, outputs: int, size: int, stride: int, groups: int, act: nn.Module | None, norm: dict) -> list:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs, **norm), *([] if act is None else [act])]


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        wide, act = inputs * expand, nn.ReLU6()
        first = [nn.Sequential(*layer(inputs, wide, 1, 1, 1, act, {}))] if expand > 1 else []
        second = nn.Sequential(*layer(wide, wide, 3, stride, wide, act, {}))
        self.conv = nn.Sequential(*first, second, *layer(wide, outputs, 1, 1, 1, None, {}))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*layer(3, 32, 3, 2, 1, nn.ReLU6(), {}))]
        inputs = 32
        for expand, outputs, blocks, stride in MOBILENET:
            for i in range(blocks):
                layers.append(InvertedResidual(inputs, outputs, 1 if i else stride, expand))
                inputs = outputs
        layers.append(nn.Sequential(*layer(inputs, 1280, 1, 1, 1, nn.ReLU6(), {})))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(1280, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))))


class MBConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expand: int, norm: dict) -> None:
        super().__init__()
        wide, act = inputs * expand, nn.SiLU()
        first = [nn.Sequential(*layer(inputs, wide, 1, 1, 1, act, norm))] if expand > 1 else []
        self.block = nn.Sequential(
            *first,
            nn.Sequential(*layer(wide, wide, size, stride, wide, act, norm)),
            SqueezeExcitation(wide, inputs // 4),
            nn.Sequential(*layer(wide, outputs, 1, 1, 1, None, norm)),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.shortcut else self.block(x)


class EfficientNet(nn.Module):
    def __init__(self, name: str, num_classes: int = 1000) -> None:
        super().__init__()
        (stem, *channels, head), blocks = NETWORKS[name]
        norm = {"eps": 1e-3} if name[-1] in "567" else {}
        layers: list[nn.Module] = [nn.Sequential(*layer(3, stem, 3, 2, 1, nn.SiLU(), norm))]
        inputs = stem
        for i, outputs in enumerate(channels):
            stage = []
            for j in range(blocks[i]):
                stage.append(MBConv(inputs, outputs, KERNELS[i], 1 if j else STRIDES[i], 6 if i else 1, norm))
                inputs = outputs
            layers.append(nn.Sequential(*stage))
        layers.append(nn.Sequential(*layer(inputs, head, 1, 1, 1, nn.SiLU(), norm)))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(head, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class SameConv2d(nn.Conv2d):
    """TensorFlow's SAME: the output is ceil(n / stride), and an odd rest of the padding goes right and below"""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, stride, around = self.kernel_size[0], self.stride[0], []
        for n in (x.shape[3], x.shape[2]):
            total = max((-(-n // stride) - 1) * stride + size - n, 0)
            around += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, around))


def lite_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class LiteBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        if expand > 1:
            self._expand_conv, self._bn0 = SameConv2d(inputs, wide, 1, bias=False), lite_norm(wide)
        self._depthwise_conv = SameConv2d(wide, wide, size, stride, groups=wide, bias=False)
        self._bn1, self._bn2 = lite_norm(wide), lite_norm(outputs)
        self._project_conv = SameConv2d(wide, outputs, 1, bias=False)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        relu6 = nn.functional.relu6
        y = relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_bn0") else x
        y = self._bn2(self._project_conv(relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.shortcut else y


class EfficientNetLite(nn.Module):
    def __init__(self, name: str, num_classes: int = 1000) -> None:
        super().__init__()
        (stem, *channels, head), blocks = NETWORKS[name]
        self._conv_stem, self._bn0 = SameConv2d(3, stem, 3, 2, bias=False), lite_norm(stem)
        self._blocks = nn.ModuleList()
        inputs = stem
        for i, outputs in enumerate(channels):
            for j in range(blocks[i]):
                stride, expand = 1 if j else STRIDES[i], 6 if i else 1
                self._blocks.append(LiteBlock(inputs, outputs, KERNELS[i], stride, expand))
                inputs = outputs
        self._conv_head, self._bn1 = SameConv2d(inputs, head, 1, bias=False), lite_norm(head)
        self._fc = nn.Linear(head, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        relu6 = nn.functional.relu6
        x = relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(relu6(self._bn1(self._conv_head(x))).mean((2, 3)))
