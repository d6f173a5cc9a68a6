"""The first convolutional network trained by backpropagation on real images: handwritten digits of US mail.

LeCun, Boser, Denker, Henderson, Howard, Hubbard, Jackel: Backpropagation applied to handwritten zip code recognition,
Neural Computation 1(4), 1989, figure 3.
"""

from __future__ import annotations

import math

from .. import functional as F
from .. import nn
from ..backends.registry import active
from ..nn import init
from ..tensor import Tensor, wrap
from .registry import register

BACKGROUND = -1.0  # what a unit at the edge sees beyond it


class LeNet1(nn.Module):
    """Three layers of shared 5x5 weights of stride 2, and a linear layer; every unit has a bias of its own.

    A map of H2 sees eight of the twelve maps of H1. Which ones the paper leaves open: here maps 0 to 7 for the first
    four, 4 to 11 for the next, 8 to 11 and 0 to 3 for the last.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.h1 = nn.Conv2d(1, 12, 5, stride=2, bias=False)  # (N, 16, 16, 1) -> (N, 8, 8, 12)
        self.h1_bias = init.zeros((8, 8, 12))
        self.h2 = nn.Conv2d(24, 12, 5, stride=2, groups=3, bias=False)  # (N, 4, 4, 12)
        self.h2_bias = init.zeros((4, 4, 12))
        self.h3 = nn.Linear(4 * 4 * 12, 30)
        self.output = nn.Linear(30, num_classes)
        for layer in (self.h1, self.h2, self.h3, self.output):
            bound = 2.4 / init.fan_in(layer.weight.shape)
            layer.weight = init.uniform(layer.weight.shape, -bound, bound)
        for linear in (self.h3, self.output):
            linear.bias = init.zeros(linear.bias.shape)

    def forward(self, x: Tensor) -> Tensor:
        y = _squashed(self.h1(_framed(x)) + self.h1_bias)
        seen = F.concatenate([y[..., :8], y[..., 4:], y[..., 8:], y[..., :4]], axis=3)
        y = _squashed(self.h2(_framed(seen)) + self.h2_bias)
        logits: Tensor = self.output(_squashed(self.h3(F.flatten(y))))
        return logits


@register(image=(16, 16, 1))
def lenet1(num_classes: int = 10) -> LeNet1:
    """Images (N, 16, 16, 1) in [-1, 1] -> logits (N, num_classes); the paper's 9,760 parameters for 10 classes.

    The paper squashes its output units too and compares them with +-1; logits are left for a cross-entropy.
    """
    return LeNet1(num_classes)


def _squashed(x: Tensor) -> Tensor:
    """1.7159 tanh(2x/3), which is +-1 at +-1"""
    return F.tanh(x * (2 / 3)) * (1 / math.tanh(2 / 3))


def _framed(x: Tensor) -> Tensor:
    """x (N, H, W, C) with a frame two pixels wide of the background: (N, H + 4, W + 4, C)"""
    N, H, W, C = x.shape

    def background(shape: tuple[int, ...]) -> Tensor:
        backend = active(x.data)
        array = backend.empty(shape, x.dtype)
        backend.fill(array, BACKGROUND)
        return wrap(array)

    rows, columns = background((N, 2, W, C)), background((N, H + 4, 2, C))
    return F.concatenate([columns, F.concatenate([rows, x, rows], axis=1), columns], axis=2)
