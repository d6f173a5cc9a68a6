"""MobileViT-S in plain PyTorch, with timm's names; patches by PyTorch's own unfold and fold."""

from __future__ import annotations

import torch
from torch import nn

from .vit import Block

functional = nn.functional


class ConvNormAct(nn.Module):
    def __init__(
        self, channels: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, size, stride, size // 2, groups=groups, bias=False)
        self.bn, self.act = nn.BatchNorm2d(outputs), nn.SiLU() if act else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(x)))


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = 4 * channels
        self.conv1_1x1 = ConvNormAct(channels, inner)
        self.conv2_kxk = ConvNormAct(inner, inner, 3, stride, inner)
        self.conv3_1x1 = ConvNormAct(inner, outputs, act=False)
        self.adds = stride == 1 and channels == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv3_1x1(self.conv2_kxk(self.conv1_1x1(x)))
        return x + y if self.adds else y


class MobileVitBlock(nn.Module):
    def __init__(self, channels: int, dim: int, depth: int) -> None:
        super().__init__()
        self.conv_kxk = ConvNormAct(channels, channels, 3)
        self.conv_1x1 = nn.Conv2d(channels, dim, 1, bias=False)
        self.transformer = nn.Sequential(*(Block(dim, 4, 2, nn.SiLU(), 1e-5) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.conv_proj = ConvNormAct(dim, channels)
        self.conv_fusion = ConvNormAct(2 * channels, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv_1x1(self.conv_kxk(x))
        n, dim, h, w = y.shape
        even = (h + h % 2, w + w % 2)
        if even != (h, w):
            y = functional.interpolate(y, even, mode="bilinear")
        patches = functional.unfold(y, 2, stride=2).view(n, dim, 4, -1)  # (N, dim, place in the patch, patch)
        tokens = patches.permute(0, 2, 3, 1).reshape(4 * n, -1, dim)
        tokens = self.norm(self.transformer(tokens)).view(n, 4, -1, dim)
        y = functional.fold(tokens.permute(0, 3, 1, 2).reshape(n, 4 * dim, -1), even, 2, stride=2)
        if even != (h, w):
            y = functional.interpolate(y, (h, w), mode="bilinear")
        return self.conv_fusion(torch.cat([x, self.conv_proj(y)], 1))


class MobileViT(nn.Module):
    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 16, 3, 2)
        self.stages = nn.Sequential(
            nn.Sequential(InvertedResidual(16, 32, 1)),
            nn.Sequential(InvertedResidual(32, 64, 2), InvertedResidual(64, 64, 1), InvertedResidual(64, 64, 1)),
            nn.Sequential(InvertedResidual(64, 96, 2), MobileVitBlock(96, 144, 2)),
            nn.Sequential(InvertedResidual(96, 128, 2), MobileVitBlock(128, 192, 4)),
            nn.Sequential(InvertedResidual(128, 160, 2), MobileVitBlock(160, 240, 3)),
        )
        self.final_conv = ConvNormAct(160, 640)
        self.head = nn.ModuleDict({"fc": nn.Linear(640, num_classes)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head["fc"](self.final_conv(self.stages(self.stem(x))).mean((2, 3)))
