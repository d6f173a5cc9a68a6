"""The block of transformers, with timm's names: attention and a perceptron of two layers, each behind a layer norm."""

from __future__ import annotations

import numpy as np

from .. import nn
from ..functional.activation import activate
from ..nn.module import is_plain
from ..random import generator
from ..tensor import Tensor


class Mlp(nn.Module):
    """x (..., dim) -> fc2(activation(fc1(x))), with ``hidden`` features between."""

    def __init__(self, dim: int, hidden: int, activation: str = "gelu", drop: float = 0.0) -> None:
        super().__init__()
        self.activation = activation
        self.fc1 = nn.Linear(dim, hidden)
        self.drop = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(activated(self.fc1, self.activation, x))))  # type: ignore[no-any-return]


def activated(layer: nn.Linear | nn.Conv2d, activation: str, x: Tensor) -> Tensor:
    """activation(layer(x)), on the way to memory where no hook of the layer wants its own result."""
    return layer.forward(x, activation) if is_plain(layer) else activate(activation, layer(x))


class Block(nn.Module):
    """x (N, L, dim) -> x + attn(norm1(x)), then x + mlp(norm2(x)). ``drop`` is the dropout of both branches' results,
    ``drop_path`` the probability that a branch is left out."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        eps: float = 1e-6,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = nn.Attention(dim, num_heads, qkv_bias=True, attn_drop=attn_drop, proj_drop=drop)
        self.drop_path1 = nn.StochasticDepth(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation, drop)
        self.drop_path2 = nn.StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


def normal(shape: tuple[int, ...], std: float) -> nn.Parameter:
    """Normal values, cut off at two standard deviations."""
    values = generator().standard_normal(shape, np.float32)
    while (outside := np.flatnonzero(np.abs(values) > 2)).size:
        values.reshape(-1)[outside] = generator().standard_normal(outside.size, np.float32)
    return nn.Parameter(values * np.float32(std))


def initialise_linear(module: nn.Module, std: float = 0.02) -> None:
    """Linear layers of the module and below: ``normal`` weights, no bias."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data[...] = normal(layer.weight.shape, std).data
            if layer.bias is not None:
                layer.bias.data[...] = 0
