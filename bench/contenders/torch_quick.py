"""The tests' networks in PyTorch made quick: what the tests write out, for its own sake, by PyTorch's best operators.

``quick(model)`` changes no weight and no result but for roundings: attention in one call, the relative positions of a
window looked up once, patches by reshapes, activations in place, padding within the convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.torch_models import coatnet, mobile, mobilevit, resnet, vit


class Attention(vit.Attention):
    def forward(self, x: Tensor) -> Tensor:
        n, length, dim = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(n, length, dim))


class Attention2d(coatnet.Attention2d):
    def look_up(self) -> None:
        """Which row of the table each pair of pixels has; kept, but not among the weights."""
        place = torch.arange(self.size)
        apart = place[:, None] - place + self.size - 1
        rows = apart[:, None, :, None] * (2 * self.size - 1) + apart[None, :, None, :]
        self.register_buffer("rows", rows.reshape(-1), persistent=False)

    def bias(self) -> Tensor:
        length = self.size**2
        return self.rel_pos.relative_position_bias_table[self.rows].view(length, length, -1).permute(2, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = (part.transpose(2, 3) for part in self.qkv(x).view(n, self.heads, 96, h * w).split(32, 2))
        y = functional.scaled_dot_product_attention(q, k, v, self.bias().unsqueeze(0))
        return self.proj(y.transpose(2, 3).reshape(n, -1, h, w))


class LayerNorm2d(coatnet.LayerNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        y = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class MobileVitBlock(mobilevit.MobileVitBlock):
    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        if h % 2 or w % 2:
            return super().forward(x)
        y = self.conv_1x1(self.conv_kxk(x))
        dim, high, wide = y.shape[1], h // 2, w // 2
        y = y.reshape(n * dim * high, 2, wide, 2).transpose(1, 2).reshape(n, dim, high * wide, 4)
        tokens = self.norm(self.transformer(y.transpose(1, 3).reshape(4 * n, high * wide, dim)))
        y = tokens.view(n, 4, high * wide, dim).transpose(1, 3).reshape(n * dim * high, wide, 2, 2)
        y = y.transpose(1, 2).reshape(n, dim, h, w)
        return self.conv_fusion(torch.cat([x, self.conv_proj(y)], 1))


class SameConv2d(mobile.SameConv2d):
    def forward(self, x: Tensor) -> Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        high, wide = (max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[2:])
        if high % 2 or wide % 2:
            return super().forward(x)
        around = high // 2, wide // 2
        return functional.conv2d(x, self.weight, self.bias, self.stride, around, self.dilation, self.groups)


class Block(resnet.Block):
    def forward(self, x: Tensor) -> Tensor:
        if self.more:
            return super().forward(x)
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu_(y) if i < self.count else y
        y += self.downsample(x) if hasattr(self, "downsample") else x
        return torch.relu_(y)


QUICK: dict[type[nn.Module], type[nn.Module]] = {
    made.__bases__[0]: made for made in (Attention, Attention2d, LayerNorm2d, MobileVitBlock, SameConv2d, Block)
}


def quick(model: Any) -> Any:
    """The same module, changed."""
    for module in model.modules():
        module.__class__ = QUICK.get(type(module), type(module))
        if isinstance(module, Attention2d):
            module.look_up()
        if isinstance(module, nn.ReLU | nn.ReLU6 | nn.SiLU):
            module.inplace = True
    return model
