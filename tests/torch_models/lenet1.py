"""The network of 1989 in plain PyTorch: three convolutions for the three groups of maps of its second layer."""

from __future__ import annotations

import torch
from torch import nn


class LeNet1(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.h1 = nn.Conv2d(1, 12, 5, 2, bias=False)
        self.h1_bias = nn.Parameter(torch.zeros(8, 8, 12))
        self.h2 = nn.Conv2d(24, 12, 5, 2, groups=3, bias=False)
        self.h2_bias = nn.Parameter(torch.zeros(4, 4, 12))
        self.h3, self.output = nn.Linear(192, 30), nn.Linear(30, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = nn.functional
        x = squash(
            f.conv2d(f.pad(x, (2, 2, 2, 2), value=-1.0), self.h1.weight, stride=2) + channels_first(self.h1_bias)
        )
        x = f.pad(x, (2, 2, 2, 2), value=-1.0)
        seen = (list(range(8)), list(range(4, 12)), [8, 9, 10, 11, 0, 1, 2, 3])
        groups = [f.conv2d(x[:, maps], self.h2.weight[4 * i : 4 * i + 4], stride=2) for i, maps in enumerate(seen)]
        x = squash(torch.cat(groups, 1) + channels_first(self.h2_bias))
        return self.output(squash(self.h3(x.permute(0, 2, 3, 1).flatten(1))))


def squash(x: torch.Tensor) -> torch.Tensor:
    scale = torch.tensor(2.0 / 3.0, dtype=torch.float64)
    return torch.tanh(x * scale.item()) / torch.tanh(scale).item()


def channels_first(bias: torch.Tensor) -> torch.Tensor:
    return bias.permute(2, 0, 1)
