"""ResNets in plain PyTorch: ImageNet's with projections (option B), CIFAR-10's with padded shortcuts (option A)."""

from __future__ import annotations

import torch
from torch import nn

DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 to four times the channels, beside a shortcut"""

    def __init__(self, inputs: int, channels: int, stride: int, bottleneck: bool, padded: bool) -> None:
        super().__init__()
        if bottleneck:
            sizes = [(inputs, channels, 1, 1), (channels, channels, 3, stride), (channels, 4 * channels, 1, 1)]
        else:
            sizes = [(inputs, channels, 3, stride), (channels, channels, 3, 1)]
        self.count, self.stride = len(sizes), stride
        for i, size in enumerate(sizes, start=1):
            setattr(self, f"conv{i}", conv(*size))
            setattr(self, f"bn{i}", nn.BatchNorm2d(size[1]))
        outputs = sizes[-1][1]
        self.more = outputs - inputs if padded else 0
        if (stride > 1 or outputs != inputs) and not padded:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.more:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return torch.relu(y + x)


class ResNet(nn.Module):
    def __init__(self, name: str, num_classes: int = 1000) -> None:
        super().__init__()
        bottleneck = int(name.removeprefix("resnet")) >= 50
        self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        inputs = 64
        for i, depth in enumerate(DEPTHS[name]):
            blocks = []
            for j in range(depth):
                blocks.append(Block(inputs, 64 << i, 2 if i and not j else 1, bottleneck, padded=False))
                inputs = (64 << i) * (4 if bottleneck else 1)
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class CifarResNet(nn.Module):
    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16, 3), nn.BatchNorm2d(16)
        inputs = 16
        for i, channels in enumerate((16, 32, 64)):
            stage = []
            for j in range(blocks):
                stage.append(Block(inputs, channels, 2 if i and not j else 1, bottleneck=False, padded=True))
                inputs = channels
            setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))
