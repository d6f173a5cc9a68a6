"""Small networks, at least one for each operation that ONNX files hold: what the tests export, run and read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn

Build = Callable[[], nn.Module]


class Apply(nn.Module):
    """A function of the input, over modules and parameters of its own."""

    def __init__(self, function: Callable[..., Any], **held: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x: cnn.Tensor) -> Any:
        return self.function(x, *self._modules.values(), *self._parameters.values())


def weight(*shape: int, seed: int = 1) -> nn.Parameter:
    return nn.Parameter(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def settled(module: Any) -> Any:
    """A norm whose numbers are not those it begins with."""
    rng = np.random.default_rng(2)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data[...] = rng.uniform(0.5, 1.5, tensor.shape)
    return module


def apply(function: Callable[..., Any]) -> Build:
    return lambda: Apply(function)


def _embedded(x: cnn.Tensor, conv: nn.Module, token: cnn.Tensor, place: cnn.Tensor) -> cnn.Tensor:
    """Patches as tokens behind a token of their own, as a vision transformer's"""
    y = conv(x)
    y = y.reshape(y.shape[0], -1, y.shape[3])
    first = F.add(token, cnn.Tensor(np.zeros((y.shape[0], 1, y.shape[2]), np.float32)))
    return F.add(F.concatenate([first, y], 1), place)


def _mixed(x: cnn.Tensor) -> cnn.Tensor:
    """Patches of 2 x 2 pixels taken apart and put together, as MobileViT's"""
    n, h, w, c = x.shape
    y = x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 2, 4, 1, 3, 5).reshape(n * 4, -1, c)
    y = F.softmax(y, 1)
    return y.reshape(n, 2, 2, h // 2, w // 2, c).permute(0, 3, 1, 4, 2, 5).reshape(n, h, w, c)


IMAGE = (1, 8, 6, 4)
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "silu", "gelu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "elu")
NETWORKS: dict[str, tuple[Build, tuple[int, ...]]] = {
    "conv": (lambda: nn.Conv2d(4, 6, 3), IMAGE),
    "conv, uneven pads": (lambda: nn.Conv2d(4, 6, 3, padding=((0, 1), (2, 0)), bias=False), IMAGE),
    "conv, same": (lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding="same"), (1, 9, 8, 4)),
    "conv, groups": (lambda: nn.Conv2d(4, 8, 3, padding=1, dilation=2, groups=2), IMAGE),
    "conv, depthwise": (lambda: nn.Conv2d(4, 4, 3, stride=(2, 1), padding=1, groups=4), IMAGE),
    "conv and relu": (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 3), nn.ReLU6()), IMAGE),
    "conv_transpose": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1), IMAGE),
    "conv_transpose, groups": (lambda: nn.ConvTranspose2d(4, 6, (2, 3), groups=2, dilation=2, bias=False), IMAGE),
    "batch_norm": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), settled(nn.BatchNorm2d(6)), nn.ReLU()), IMAGE),
    "batch_norm of rows": (lambda: nn.Sequential(nn.Linear(5, 6), settled(nn.BatchNorm1d(6))), (1, 5)),
    "batch_norm, plain": (lambda: nn.BatchNorm2d(4, affine=False), IMAGE),
    "norm, residual, activation": (
        lambda: Apply(lambda x, norm: norm(x, "silu", x), norm=settled(nn.BatchNorm2d(4))),
        IMAGE,
    ),
    "layer_norm": (lambda: settled(nn.LayerNorm(5)), (1, 7, 5)),
    "layer_norm of images": (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), settled(nn.LayerNorm(6)), nn.GELU()), IMAGE),
    "layer_norm over two axes": (lambda: settled(nn.LayerNorm((6, 4), bias=False)), IMAGE),
    "group_norm": (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), settled(nn.GroupNorm(3, 6))), IMAGE),
    "group_norm, plain": (lambda: nn.GroupNorm(2, 4, affine=False), IMAGE),
    "instance_norm": (
        lambda: Apply(lambda x, w, b: F.instance_norm(x, weight=w, bias=b), w=weight(4), b=weight(4, seed=2)),
        IMAGE,
    ),
    "local_response_norm": (apply(lambda x: F.local_response_norm(x, 3, 0.4, 0.6, 1.5)), IMAGE),
    "linear": (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)), (1, 5)),
    "linear of tokens": (lambda: nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 3)), (1, 7, 5)),
    "linear of images": (lambda: nn.Sequential(nn.Conv2d(4, 5, 1), nn.Linear(5, 6)), IMAGE),
    "matmul": (apply(lambda x: F.matmul(x, x.permute(0, 2, 1))), (1, 7, 5)),
    "matmul, weight on the left": (lambda: Apply(lambda x, w: F.matmul(w, x), w=weight(3, 7)), (1, 7, 5)),
    **{name: (apply(getattr(F, name)), IMAGE) for name in ACTIVATIONS},
    "gelu, tanh": (apply(lambda x: F.gelu(x, "tanh")), IMAGE),
    "leaky_relu, slope": (apply(lambda x: F.leaky_relu(x, 0.3)), IMAGE),
    "elu, alpha": (apply(lambda x: F.elu(x, 0.7)), IMAGE),
    "max_pool": (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    "max_pool, ceil": (lambda: nn.MaxPool2d((2, 3), 2, (0, 1), ceil_mode=True), (1, 9, 8, 4)),
    "max_pool, dilation": (lambda: nn.MaxPool2d(2, 1, dilation=2), IMAGE),
    "avg_pool": (lambda: nn.AvgPool2d(2), IMAGE),
    "avg_pool, pads": (lambda: nn.AvgPool2d(3, 2, 1), IMAGE),
    "avg_pool, pads not counted": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "avg_pool, ceil": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), (1, 8, 9, 4)),
    "avg_pool, ceil, not counted": (lambda: nn.AvgPool2d(2, 2, 0, True, False), (1, 9, 7, 4)),
    "avg_pool, divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), IMAGE),
    "adaptive_avg_pool": (lambda: nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
    "adaptive_avg_pool, uneven": (lambda: nn.AdaptiveAvgPool2d((5, 4)), IMAGE),
    "adaptive_max_pool": (lambda: nn.AdaptiveMaxPool2d(2), IMAGE),
    "global_avg_pool": (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.GlobalAvgPool2d(), nn.Linear(6, 2)), IMAGE),
    "global_max_pool": (lambda: nn.GlobalMaxPool2d(), IMAGE),
    "softmax": (apply(F.softmax), (1, 7, 5)),
    "softmax over channels": (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), Apply(F.softmax)), IMAGE),
    "log_softmax over rows": (apply(lambda x: F.log_softmax(x, 1)), IMAGE),
    "add, mul, sub, div": (apply(lambda x: (x + x * 2.0 - 1.0) / 3.0), IMAGE),
    "numbers on the left": (apply(lambda x: 1.0 - 2.0 / (x * x + 1.0)), IMAGE),
    "a parameter a channel": (
        lambda: Apply(lambda x, conv, g: conv(x) * g, conv=nn.Conv2d(4, 6, 1), g=weight(6)),
        IMAGE,
    ),
    "a parameter a pixel": (
        lambda: Apply(lambda x, conv, g: conv(x) + g, conv=nn.Conv2d(4, 6, 1), g=weight(8, 6, 1)),
        IMAGE,
    ),
    "squeeze and excitation": (
        lambda: Apply(
            lambda x, a, b: x * F.sigmoid(b(F.relu(a(F.global_avg_pool2d(x)))).reshape(-1, 1, 1, 4)),
            a=nn.Linear(4, 2),
            b=nn.Linear(2, 4),
        ),
        IMAGE,
    ),
    "pow, exp, log, sqrt, neg": (apply(lambda x: F.log(F.exp(-x) + F.sqrt(x * x + 1.0)) + (x * x + 0.5) ** 1.5), IMAGE),
    "sum": (apply(lambda x: x.sum((1, 2))), IMAGE),
    "mean, kept": (apply(lambda x: x - x.mean(3, keepdims=True)), IMAGE),
    "max": (apply(lambda x: x.max(1)), IMAGE),
    "sum of all": (apply(lambda x: x * x.sum((1, 2, 3), keepdims=True)), IMAGE),
    "flatten": (lambda: nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(72, 5)), IMAGE),
    "flatten, CHW": (lambda: nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten("CHW"), nn.Linear(72, 5)), IMAGE),
    "reshape": (apply(lambda x: x.reshape(x.shape[0], 4, 12, 4)), IMAGE),
    "permute": (apply(lambda x: F.relu(x.permute(0, 2, 1, 3)).permute(0, 3, 1, 2)), IMAGE),
    "concatenate": (lambda: Apply(lambda x, conv: F.concatenate([conv(x), x], -1), conv=nn.Conv2d(4, 3, 1)), IMAGE),
    "index": (apply(lambda x: x[:, 1:7:2, :, 1:] + x[:, 0, None, :, :3]), IMAGE),
    "index, numbers": (apply(lambda x: x[:, -1, 2]), IMAGE),
    "index, array": (apply(lambda x: x[:, :, np.array([[0, -1], [3, 0]])]), IMAGE),
    "split": (apply(lambda x: F.mul(*F.split(x, 2, -1))), IMAGE),
    "stack": (apply(lambda x: F.stack([x, x * 2.0], 1)), (1, 5)),
    "pad": (apply(lambda x: F.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), 0.5)), IMAGE),
    "dropout": (lambda: nn.Sequential(nn.Conv2d(4, 6, 1), nn.Dropout(0.5)), IMAGE),
    "nearest": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "nearest, size": (apply(lambda x: F.interpolate(x, (11, 5))), IMAGE),
    "bilinear": (apply(lambda x: F.interpolate(x, (11, 5), mode="bilinear")), IMAGE),
    "bilinear, factor": (apply(lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear")), IMAGE),
    "bilinear, corners": (apply(lambda x: F.interpolate(x, (11, 5), mode="bilinear", align_corners=True)), IMAGE),
    "attention": (
        lambda: Apply(lambda x, b: F.scaled_dot_product_attention(x, x * 0.5, x - 1.0, b), b=weight(2, 5, 5)),
        (1, 2, 5, 3),
    ),
    "attention, causal": (apply(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), (1, 2, 5, 3)),
    "multi_head_attention": (apply(lambda x: F.multi_head_attention(x, 2)), (1, 5, 12)),
    "multi_head_attention, heads first": (apply(lambda x: F.multi_head_attention(x, 2, heads_first=True)), (1, 5, 12)),
    "tokens": (
        lambda: Apply(_embedded, conv=nn.Conv2d(4, 6, 2, 2), token=weight(1, 1, 6), place=weight(1, 13, 6)),
        IMAGE,
    ),
    "patches": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), Apply(_mixed), nn.Conv2d(4, 2, 1)), IMAGE),
    "fused": (
        lambda: Apply(
            lambda x, conv, s, t: F.conv2d_norm_act(
                x, conv.weight, conv.bias, scale=s, shift=t, residual=x, activation="relu", padding=1
            ),
            conv=nn.Conv2d(4, 4, 3),
            s=weight(4),
            t=weight(4, seed=3),
        ),
        IMAGE,
    ),
    "two outputs": (lambda: Apply(lambda x, conv: (conv(x), F.global_avg_pool2d(x)), conv=nn.Conv2d(4, 3, 1)), IMAGE),
    "the input itself": (apply(lambda x: (x, F.relu(x))), IMAGE),
}
