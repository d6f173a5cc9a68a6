"""Vision transformers: an image as a sequence of patches of 16 x 16, and one token more that is read in the end.

Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929; the tiny and small ones from Touvron et al.,
"Training data-efficient image transformers", arXiv 2012.12877. Modules have timm's names.
"""

from __future__ import annotations

import numpy as np

from .. import functional as F
from .. import nn
from ..tensor import Tensor
from .registry import register
from .transformer import Block, initialise_linear, normal


class PatchEmbed(nn.Module):
    """Images (N, H, W, 3) -> tokens (N, H/patch * W/patch, dim), row after row: a convolution as far apart as it is
    wide."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        y = self.proj(x)
        return y.reshape(y.shape[0], -1, y.shape[3])  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Images (N, image_size, image_size, 3) -> logits (N, num_classes).

    ``cls_token`` goes before the patches, ``pos_embed`` is added, ``blocks`` follow; ``head`` reads the first token
    behind ``norm``. Raises ValueError for images of another size, and for one that is no multiple of the patch.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_classes: int,
        image_size: int = 224,
        patch_size: int = 16,
        depth: int = 12,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size < 1 or image_size % patch_size:
            raise ValueError(f"image_size must be a multiple of {patch_size}, received {image_size}")
        self.image_size = image_size
        tokens = (image_size // patch_size) ** 2 + 1
        self.cls_token = normal((1, 1, dim), 1e-6)
        self.pos_embed = normal((1, tokens, dim), 0.02)
        self.patch_embed = PatchEmbed(patch_size, dim)
        self.pos_drop = nn.Dropout(drop_rate)
        rates = np.linspace(0, drop_path_rate, depth)  # deeper branches are left out more often
        self.blocks = nn.Sequential(*(Block(dim, num_heads, drop=drop_rate, drop_path=float(rate)) for rate in rates))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        initialise_linear(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1:] != (self.image_size, self.image_size, 3):
            size = self.image_size
            raise ValueError(f"VisionTransformer: expected images (N, {size}, {size}, 3), received {x.shape}")
        tokens = self.patch_embed(x)
        first = F.pad(self.cls_token, ((0, 0), (0, tokens.shape[1]), (0, 0))) + self.pos_embed
        x = self.pos_drop(F.pad(tokens, ((0, 0), (1, 0), (0, 0))) + first)
        x = self.blocks(x)
        return self.head(self.norm(x[:, 0]))  # type: ignore[no-any-return]


@register()
def vit_tiny(num_classes: int = 1000, **options: float) -> VisionTransformer:
    """ViT-Ti/16: 192 features, 3 heads; images (N, 224, 224, 3) -> logits. 5,717,416 parameters.

    ``options``: ``image_size``, a multiple of 16, ``depth``, ``drop_rate``, ``drop_path_rate``.
    """
    return _vit(192, 3, num_classes, options)


@register()
def vit_small(num_classes: int = 1000, **options: float) -> VisionTransformer:
    """ViT-S/16: 384 features, 6 heads, 22,050,664 parameters; otherwise as ``vit_tiny``."""
    return _vit(384, 6, num_classes, options)


@register()
def vit_base(num_classes: int = 1000, **options: float) -> VisionTransformer:
    """ViT-B/16: 768 features, 12 heads, 86,567,656 parameters; otherwise as ``vit_tiny``."""
    return _vit(768, 12, num_classes, options)


def _vit(dim: int, heads: int, num_classes: int, options: dict[str, float]) -> VisionTransformer:
    return VisionTransformer(dim, heads, num_classes, **options)  # type: ignore[arg-type]
