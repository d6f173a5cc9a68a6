"""CoAtNet-0: two stages of convolutions, then two of attention with a bias for every relative position.

Dai, Liu, Le and Tan, "CoAtNet: marrying convolution and attention for all data sizes", arXiv 2106.04803. Modules have
timm's names (``maxxvit``). Two variants: ``coatnet_0`` is timm's of that name, laid out as the paper's;
``coatnet_0_rw`` is the one timm has published weights of (``coatnet_0_rw_224``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..random import generator
from ..tensor import Tensor
from .registry import register
from .transformer import activated, normal

WIDTHS = (96, 192, 384, 768)  # of the four stages
HEAD = 32  # features of a head
EXPANSION = 4  # of the features between the layers of a block


@dataclass(frozen=True, slots=True)
class Variant:
    """Where the variants differ; ``expand_output``: a block's inner width is a multiple of its output's, not its
    input's."""

    depths: tuple[int, int, int, int]
    stem: tuple[int, int]
    activation: str  # of convolution blocks
    expand_output: bool
    pooled: bool  # a convolution block halves the image before its first convolution, not in the depthwise one
    activated_input: bool  # an activation behind the norm that a convolution block begins with
    output_bias: bool  # of a convolution block's last convolution and of its shortcut
    early_squeeze: bool  # squeeze and excitation before the second norm, not behind it
    squeeze_activation: type[nn.Module]
    attention_expands: bool  # queries, keys and values of as many features as a block's output, not its input
    shortcut_bias: bool  # of an attention block
    hidden: bool  # a layer with tanh before the last one


PAPER = Variant(
    depths=(2, 3, 5, 2), stem=(64, 64), activation="gelu", expand_output=True, pooled=False, activated_input=False,
    output_bias=True, early_squeeze=False, squeeze_activation=nn.SiLU, attention_expands=True, shortcut_bias=True,
    hidden=True,
)  # fmt: skip
RW = Variant(
    depths=(2, 3, 7, 2), stem=(32, 64), activation="silu", expand_output=False, pooled=True, activated_input=True,
    output_bias=False, early_squeeze=True, squeeze_activation=nn.ReLU, attention_expands=False, shortcut_bias=False,
    hidden=False,
)  # fmt: skip


class Stem(nn.Module):
    """Two convolutions, the first halving the image."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        first, second = variant.stem
        self.activation = variant.activation
        self.conv1 = nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm1(x, self.activation, None, self.conv1))  # type: ignore[no-any-return]


class Downsample2d(nn.Module):
    """The mean of 2 x 2, then a 1 x 1 convolution ``expand`` where the number of channels changes."""

    def __init__(self, channels: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        if channels != outputs:
            self.expand = nn.Conv2d(channels, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return self.expand(x) if "expand" in self._modules else x


class MbConvBlock(nn.Module):
    """A norm, 1 x 1 to four times as many channels, depthwise 3 x 3, squeeze and excitation, 1 x 1 back; plus x."""

    def __init__(self, channels: int, outputs: int, stride: int, variant: Variant, drop_path: float) -> None:
        super().__init__()
        inner = EXPANSION * (outputs if variant.expand_output else channels)
        squeezed = outputs // 4 if variant.expand_output else inner // 4
        if stride == 2:
            self.shortcut = Downsample2d(channels, outputs, variant.output_bias)
        self.variant = variant
        self.pre_norm = nn.BatchNorm2d(channels)
        if stride == 2 and variant.pooled:
            self.down = Downsample2d(channels, channels)
            stride = 1
        self.conv1_1x1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2_kxk = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        squeeze = nn.SqueezeExcitation(inner, squeezed, variant.squeeze_activation)
        if variant.early_squeeze:
            self.se_early = squeeze
        self.norm2 = nn.BatchNorm2d(inner)
        if not variant.early_squeeze:
            self.se = squeeze
        self.conv3_1x1 = nn.Conv2d(inner, outputs, 1, bias=variant.output_bias)
        self.drop_path = nn.StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        activation = self.variant.activation
        shortcut = self.shortcut(x) if "shortcut" in self._modules else x
        x = self.pre_norm(x, activation if self.variant.activated_input else None)
        if "down" in self._modules:
            x = self.down(x)
        x = self.norm1(x, activation, None, self.conv1_1x1)
        if self.variant.early_squeeze:
            x = self.norm2(self.se_early(self.conv2_kxk(x)), activation)
        else:
            x = self.se(self.norm2(x, activation, None, self.conv2_kxk))
        return self.drop_path(self.conv3_1x1(x)) + shortcut  # type: ignore[no-any-return]


class RelPosBias(nn.Module):
    """What is added to the score of two pixels of a (size, size) image, for every head: an entry of
    ``relative_position_bias_table`` ((2 size - 1)^2, heads), by how far apart they are in rows and in columns."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.size, self.heads = size, heads
        self.relative_position_bias_table = normal(((2 * size - 1) ** 2, heads), 0.02)
        rows, columns = np.divmod(np.arange(size * size), size)
        place = (rows[:, None] - rows + size - 1) * (2 * size - 1) + columns[:, None] - columns + size - 1
        self._index = (place * heads + np.arange(heads)[:, None, None]).ravel()  # in the table's memory

    def forward(self) -> Tensor:
        """(heads, size^2, size^2)"""
        L = self.size * self.size
        return F.index(self.relative_position_bias_table.reshape(-1), self._index).reshape(self.heads, L, L)


class Attention2d(nn.Module):
    """Attention among the pixels of x (N, size, size, channels): (N, size, size, outputs)."""

    def __init__(self, channels: int, outputs: int, inner: int, size: int) -> None:
        super().__init__()
        self.num_heads = inner // HEAD
        self.qkv = nn.Conv2d(channels, 3 * inner, 1)
        self.rel_pos = RelPosBias(size, self.num_heads)
        self.proj = nn.Conv2d(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        N, H, W, _ = x.shape
        qkv = self.qkv(x).reshape(N, H * W, -1)
        y = F.multi_head_attention(qkv, self.num_heads, self.rel_pos(), heads_first=True)
        return self.proj(y.reshape(N, H, W, -1))  # type: ignore[no-any-return]


class ConvMlp(nn.Module):
    """x (N, H, W, C) -> fc2(gelu(fc1(x))), both 1 x 1 convolutions."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(activated(self.fc1, "gelu", x))  # type: ignore[no-any-return]


class TransformerBlock2d(nn.Module):
    """shortcut(x) + attn(norm1(x)), then x + mlp(norm2(x)); with stride 2 the image is halved behind ``norm1``."""

    def __init__(self, channels: int, outputs: int, stride: int, size: int, variant: Variant, drop_path: float) -> None:
        super().__init__()
        norm: nn.Module = nn.LayerNorm(channels, eps=1e-6)
        if stride == 2:
            self.shortcut = Downsample2d(channels, outputs, variant.shortcut_bias)
            norm = nn.Sequential({"norm": norm, "down": Downsample2d(channels, channels)})
        self.norm1 = norm
        self.attn = Attention2d(channels, outputs, outputs if variant.attention_expands else channels, size)
        self.drop_path1 = nn.StochasticDepth(drop_path)
        self.norm2 = nn.LayerNorm(outputs, eps=1e-6)
        self.mlp = ConvMlp(outputs, EXPANSION * outputs)
        self.drop_path2 = nn.StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x) if "shortcut" in self._modules else x
        x = shortcut + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class Head(nn.Module):
    """The mean over the image, then ``fc``; with ``hidden`` a norm, a layer and tanh before it."""

    def __init__(self, channels: int, num_classes: int, hidden: bool) -> None:
        super().__init__()
        self.pool = nn.GlobalAvgPool2d()
        if hidden:
            self.norm = nn.LayerNorm(channels, eps=1e-6)
            self.pre_logits = nn.Sequential({"fc": nn.Linear(channels, channels), "act": nn.Tanh()})
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        if "pre_logits" in self._modules:
            x = self.pre_logits(self.norm(x))
        return self.fc(x)  # type: ignore[no-any-return]


class CoAtNet(nn.Module):
    """Images (N, image_size, image_size, 3) -> logits (N, num_classes). Raises ValueError for images of another size,
    and for one that is no multiple of 32."""

    def __init__(
        self,
        variant: Variant,
        num_classes: int,
        image_size: int = 224,
        depths: tuple[int, int, int, int] | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size < 32 or image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32, received {image_size}")
        self.image_size = image_size
        self.stem = Stem(variant)
        depths = variant.depths if depths is None else depths
        rates = iter(np.linspace(0, drop_path_rate, sum(depths)))  # deeper branches are left out more often
        stages, channels = [], variant.stem[1]
        for i, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            blocks = list(_stage(variant, i, channels, width, depth, image_size >> (i + 2), rates))
            stages.append(nn.Sequential({"blocks": nn.Sequential(*blocks)}))
            channels = width
        self.stages = nn.Sequential(*stages)
        if not variant.hidden:
            self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = Head(channels, num_classes, variant.hidden)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1:] != (self.image_size, self.image_size, 3):
            size = self.image_size
            raise ValueError(f"CoAtNet: expected images (N, {size}, {size}, 3), received {x.shape}")
        x = self.stages(self.stem(x))
        return self.head(self.norm(x) if "norm" in self._modules else x)  # type: ignore[no-any-return]


def _stage(
    variant: Variant, i: int, channels: int, width: int, depth: int, size: int, rates: Iterator[Any]
) -> Iterator[nn.Module]:
    for j in range(depth):
        inputs, stride, rate = (width, 1, float(next(rates))) if j else (channels, 2, float(next(rates)))
        if i < 2:
            yield MbConvBlock(inputs, width, stride, variant, rate)
        else:
            yield TransformerBlock2d(inputs, width, stride, size, variant, rate)


def _initialise(network: CoAtNet) -> None:
    """As timm: normal by the outputs a weight feeds in convolution blocks, Glorot's uniform in attention blocks."""
    for module in network.modules():
        transformer = isinstance(module, TransformerBlock2d)
        if not transformer and not isinstance(module, MbConvBlock | Stem):
            continue
        for layer in module.modules():
            if not isinstance(layer, nn.Conv2d):
                continue
            K, R, S, C = layer.weight.shape
            if transformer:
                bound = (6 / (R * S * (C + K))) ** 0.5
                values = generator().uniform(-bound, bound, layer.weight.shape)
            else:
                values = generator().normal(0, (2 * layer.groups / (R * S * K)) ** 0.5, layer.weight.shape)
            layer.weight.data[...] = values
            if layer.bias is not None:
                layer.bias.data[...] = 0


@register()
def coatnet_0(num_classes: int = 1000, **options: Any) -> CoAtNet:
    """CoAtNet-0 of the paper as timm lays it out; images (N, 224, 224, 3) -> logits. 25,036,820 parameters.

    ``options``: ``image_size``, a multiple of 32, ``depths`` of the four stages, ``drop_path_rate``.
    """
    return CoAtNet(PAPER, num_classes, **options)


@register()
def coatnet_0_rw(num_classes: int = 1000, **options: Any) -> CoAtNet:
    """CoAtNet-0 as timm trained it, 27,435,562 parameters; otherwise as ``coatnet_0``."""
    return CoAtNet(RW, num_classes, **options)
