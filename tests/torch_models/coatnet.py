"""CoAtNet-0 in plain PyTorch, with timm's names: as the paper lays it out, and as timm trained it (``rw``)."""

from __future__ import annotations

import torch
from torch import nn


def downsample(channels: int, outputs: int, bias: bool = True) -> nn.Module:
    layers = {"pool": nn.AvgPool2d(2)}
    if channels != outputs:
        layers["expand"] = nn.Conv2d(channels, outputs, 1, bias=bias)
    return nn.Sequential(*layers.values()) if len(layers) == 1 else _Named(layers)


class _Named(nn.Module):
    """Modules one after the other, with names."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            x = layer(x)
        return x


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of (N, C, H, W)"""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1, self.act = nn.Conv2d(channels, squeezed, 1), activation
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))))


class MbConv(nn.Module):
    def __init__(self, channels: int, outputs: int, stride: int, rw: bool) -> None:
        super().__init__()
        inner = 4 * (channels if rw else outputs)
        self.rw, self.act = rw, nn.SiLU() if rw else nn.GELU()
        self.shortcut = downsample(channels, outputs, not rw) if stride == 2 else nn.Identity()
        self.pre_norm = nn.BatchNorm2d(channels)
        self.down = nn.AvgPool2d(2) if rw and stride == 2 else nn.Identity()
        self.conv1_1x1, self.norm1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2_kxk = nn.Conv2d(inner, inner, 3, 1 if rw else stride, 1, groups=inner, bias=False)
        if rw:
            self.se_early = SqueezeExcitation(inner, inner // 4, nn.ReLU())
        self.norm2 = nn.BatchNorm2d(inner)
        if not rw:
            self.se = SqueezeExcitation(inner, outputs // 4, nn.SiLU())
        self.conv3_1x1 = nn.Conv2d(inner, outputs, 1, bias=not rw)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pre_norm(x)
        y = self.down(self.act(y) if self.rw else y)
        y = self.conv2_kxk(self.act(self.norm1(self.conv1_1x1(y))))
        y = self.act(self.norm2(self.se_early(y))) if self.rw else self.se(self.act(self.norm2(y)))
        return self.conv3_1x1(y) + self.shortcut(x)


class RelPos(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * size - 1) ** 2, heads))


class Attention2d(nn.Module):
    def __init__(self, channels: int, outputs: int, inner: int, size: int) -> None:
        super().__init__()
        self.size, self.heads = size, inner // 32
        self.qkv, self.proj = nn.Conv2d(channels, 3 * inner, 1), nn.Conv2d(inner, outputs, 1)
        self.rel_pos = RelPos(size, self.heads)

    def bias(self) -> torch.Tensor:
        """(heads, size^2, size^2), a pair of pixels at a time"""
        n, table = self.size, self.rel_pos.relative_position_bias_table
        rows = []
        for i in range(n * n):
            apart = [(i // n - j // n + n - 1) * (2 * n - 1) + i % n - j % n + n - 1 for j in range(n * n)]
            rows.append(table[apart])
        return torch.stack(rows).permute(2, 0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        q, k, v = self.qkv(x).view(n, self.heads, 96, h * w).split(32, 2)  # (N, heads, 32, L)
        p = torch.softmax(q.transpose(2, 3) @ k / 32**0.5 + self.bias(), 3)
        return self.proj((v @ p.transpose(2, 3)).reshape(n, -1, h, w))


class Transformer(nn.Module):
    def __init__(self, channels: int, outputs: int, stride: int, size: int, rw: bool) -> None:
        super().__init__()
        norm = LayerNorm2d(channels, 1e-6)
        halved = stride == 2
        self.shortcut = downsample(channels, outputs, not rw) if halved else nn.Identity()
        self.norm1 = _Named({"norm": norm, "down": nn.AvgPool2d(2)}) if halved else norm
        self.attn = Attention2d(channels, outputs, channels if rw else outputs, size)
        self.norm2 = LayerNorm2d(outputs, 1e-6)
        self.mlp = _Named(
            {"fc1": nn.Conv2d(outputs, 4 * outputs, 1), "act": nn.GELU(), "fc2": nn.Conv2d(4 * outputs, outputs, 1)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shortcut(x) + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class CoAtNet(nn.Module):
    def __init__(
        self, rw: bool, num_classes: int = 1000, image_size: int = 224, depths: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        if depths is None:
            depths = (2, 3, 7, 2) if rw else (2, 3, 5, 2)
        first = 32 if rw else 64
        self.stem = _Named(
            {
                "conv1": nn.Conv2d(3, first, 3, 2, 1, bias=False),
                "norm1": nn.BatchNorm2d(first),
                "act": nn.SiLU() if rw else nn.GELU(),
                "conv2": nn.Conv2d(first, 64, 3, 1, 1, bias=False),
            }
        )
        stages, channels, size = [], 64, image_size // 2
        for i, (width, depth) in enumerate(zip((96, 192, 384, 768), depths, strict=True)):
            size, blocks = size // 2, []
            for j in range(depth):
                shape = (channels, width, 1 if j else 2)
                blocks.append(MbConv(*shape, rw) if i < 2 else Transformer(*shape, size, rw))
                channels = width
            stages.append(_Named({"blocks": nn.Sequential(*blocks)}))
        self.stages = nn.Sequential(*stages)
        self.norm = LayerNorm2d(768, 1e-6) if rw else nn.Identity()
        head: dict[str, nn.Module] = {"pool": nn.AdaptiveAvgPool2d(1)}
        if not rw:
            head["norm"] = LayerNorm2d(768, 1e-6)
        head["flatten"] = nn.Flatten()
        if not rw:
            head["pre_logits"] = _Named({"fc": nn.Linear(768, 768), "act": nn.Tanh()})
        head["fc"] = nn.Linear(768, num_classes)
        self.head = _Named(head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.stages(self.stem(x))))
