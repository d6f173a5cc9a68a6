"""AlexNet in plain PyTorch, one tower and as in the 2012 paper; without dropout, which the checks leave out."""

from __future__ import annotations

import torch
from torch import nn


class AlexNet(nn.Module):
    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Identity(), nn.Linear(9216, 4096), nn.ReLU(),
            nn.Identity(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, num_classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (6, 6))
        return self.classifier(torch.flatten(x, 1))


class AlexNet2012(nn.Module):
    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 96, 11, 4), nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6, self.fc7 = nn.Linear(256 * 6 * 6, 4096), nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = nn.functional
        for conv in (self.conv1, self.conv2):  # the paper's alpha of 1e-4 is for each term of the sum, not their mean
            x = f.local_response_norm(torch.relu(conv(x)), 5, alpha=5e-4, beta=0.75, k=2.0)
            x = f.max_pool2d(x, 3, 2)
        x = torch.relu(self.conv4(torch.relu(self.conv3(x))))
        x = f.max_pool2d(torch.relu(self.conv5(x)), 3, 2)
        x = torch.relu(self.fc7(torch.relu(self.fc6(torch.flatten(x, 1)))))
        return self.fc8(x)
