"""MobileViT-S: MobileNetV2's blocks, and between them transformers over pixels that lie a patch apart.

Mehta and Rastegari, "MobileViT: light-weight, general-purpose, and mobile-friendly vision transformer", arXiv
2110.02178. Modules have timm's names.
"""

from __future__ import annotations

from .. import functional as F
from .. import nn
from ..tensor import Tensor
from .registry import register
from .transformer import Block, initialise_linear

EXPANSION = 4  # of the channels between the layers of an inverted residual
HEADS = 4
STAGES = (  # inverted residuals, stride of the first, channels, and of the transformer features and blocks
    (1, 1, 32, 0, 0),
    (3, 2, 64, 0, 0),
    (1, 2, 96, 144, 2),
    (1, 2, 128, 192, 4),
    (1, 2, 160, 240, 3),
)


def conv_norm_act(
    channels: int, outputs: int, kernel_size: int = 1, stride: int = 1, groups: int = 1, activated: bool = True
) -> nn.Sequential:
    """A convolution, batch norm, and unless it is not ``activated`` SiLU."""
    conv = nn.Conv2d(channels, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    layers: dict[str, nn.Module] = {"conv": conv, "bn": nn.BatchNorm2d(outputs)}
    if activated:
        layers["act"] = nn.SiLU()
    return nn.Sequential(layers)


class InvertedResidual(nn.Module):
    """1 x 1 to four times as many channels, depthwise 3 x 3, 1 x 1; plus x where its shape stays."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        self.shortcut = stride == 1 and channels == outputs
        self.conv1_1x1 = conv_norm_act(channels, inner)
        self.conv2_kxk = conv_norm_act(inner, inner, 3, stride, groups=inner)
        self.conv3_1x1 = conv_norm_act(inner, outputs, activated=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3_1x1(self.conv2_kxk(self.conv1_1x1(x)))
        return x + y if self.shortcut else y  # type: ignore[no-any-return]


class MobileVitBlock(nn.Module):
    """x (N, H, W, C) -> the same shape: convolutions to ``dim`` features, a transformer among the pixels that have the
    same place in their patch of 2 x 2, a convolution back, and one over x and that together.

    An image whose sides are odd is made larger for the transformer, and small again behind it (bilinear).
    """

    def __init__(self, channels: int, dim: int, depth: int, patch: int = 2) -> None:
        super().__init__()
        self.patch = patch
        self.conv_kxk = conv_norm_act(channels, channels, 3)
        self.conv_1x1 = nn.Conv2d(channels, dim, 1, bias=False)
        self.transformer = nn.Sequential(
            *(Block(dim, HEADS, mlp_ratio=2, activation="silu", eps=1e-5) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.conv_proj = conv_norm_act(dim, channels)
        self.conv_fusion = conv_norm_act(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_1x1(self.conv_kxk(x))
        N, H, W, dim = y.shape
        patch = self.patch
        rows, columns = -(-H // patch), -(-W // patch)
        whole = rows * patch == H and columns * patch == W
        if not whole:
            y = F.interpolate(y, (rows * patch, columns * patch), mode="bilinear")
        y = y.reshape(N, rows, patch, columns, patch, dim).permute(0, 2, 4, 1, 3, 5)
        y = self.norm(self.transformer(y.reshape(N * patch * patch, rows * columns, dim)))
        y = y.reshape(N, patch, patch, rows, columns, dim).permute(0, 3, 1, 4, 2, 5)
        y = y.reshape(N, rows * patch, columns * patch, dim)
        if not whole:
            y = F.interpolate(y, (H, W), mode="bilinear")
        return self.conv_fusion(F.concatenate([x, self.conv_proj(y)], 3))  # type: ignore[no-any-return]


class Head(nn.Module):
    """The mean over the image, dropout, then ``fc``."""

    def __init__(self, channels: int, num_classes: int, drop: float) -> None:
        super().__init__()
        self.pool = nn.GlobalAvgPool2d()
        self.drop = nn.Dropout(drop)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.pool(x)))  # type: ignore[no-any-return]


class MobileViT(nn.Module):
    """Images (N, H, W, 3) of any size from 32 x 32 on -> logits (N, num_classes)."""

    def __init__(self, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.stem = conv_norm_act(3, 16, 3, 2)
        stages, channels = [], 16
        for depth, stride, outputs, dim, blocks in STAGES:
            layers: list[nn.Module] = []
            for i in range(depth):
                layers.append(InvertedResidual(channels, outputs, 1 if i else stride))
                channels = outputs
            if blocks:
                layers.append(MobileVitBlock(channels, dim, blocks))
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.final_conv = conv_norm_act(channels, 640)
        self.head = Head(640, num_classes, drop_rate)
        initialise_linear(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.final_conv(self.stages(self.stem(x))))  # type: ignore[no-any-return]


@register(image=(256, 256, 3))
def mobilevit_s(num_classes: int = 1000, *, drop_rate: float = 0.0) -> MobileViT:
    """MobileViT-S; images (N, 256, 256, 3) -> logits. 5,578,632 parameters. ``drop_rate`` is of the last layer."""
    return MobileViT(num_classes, drop_rate)
