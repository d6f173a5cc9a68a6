"""Two views of one picture: cut, mirrored and coloured anew, each by random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..data import transforms
from ..data.transforms.pictures import to_array

Transform = Callable[[Any, np.random.Generator], Any]


class TwoViews:
    """``transform`` of a picture twice, one behind the other along the channels: (H, W, 2C) uint8."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, picture: Any, rng: np.random.Generator) -> np.ndarray:
        """Both views of a picture (H, W, C)."""
        return np.concatenate([to_array(self.transform(picture, rng)) for _ in range(2)], axis=2)


def apart(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 2C) of ``TwoViews`` as (2N, H, W, C): first all first views, then all second ones."""
    return np.concatenate(np.split(images, 2, axis=3))


def simclr_views(size: tuple[int, int], channels: int) -> TwoViews:
    """SimCLR's views of small pictures: a window of 20 to 100 % of the area, resized to ``size``; in colour also
    mirrored, coloured anew with probability 0.8 and grey with 0.2. Its blur is left out, as the paper does for CIFAR-10
    (appendix B.9). Grey pictures, where left and right may matter, get brightness and contrast alone."""
    window = transforms.RandomResizedCrop(size, scale=(0.2, 1.0))
    if channels == 1:
        return TwoViews(transforms.Compose(window, transforms.RandomApply(transforms.ColorJitter(0.4, 0.4), 0.8)))
    jitter = transforms.RandomApply(transforms.ColorJitter(0.4, 0.4, 0.4, 0.1), 0.8)
    return TwoViews(transforms.Compose(window, transforms.HorizontalFlip(), jitter, transforms.RandomGrayscale(0.2)))
