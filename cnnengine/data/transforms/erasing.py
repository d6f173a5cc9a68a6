"""Random erasing."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .pictures import P, in_unit, is_range, like, to_array


class RandomErasing:
    """With probability ``p`` a rectangle of a random share of the area (``scale``) and of random height / width
    (``ratio``) is filled with ``value``: a number for all channels, or "random": noise. Where a hundred rectangles do
    not fit, the picture stays.

    Zhong et al.: Random erasing data augmentation (2017), algorithm 1.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.4),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
        value: int | Literal["random"] = "random",
    ) -> None:
        in_unit("RandomErasing", p=p)
        is_range("RandomErasing", "scale", scale)
        is_range("RandomErasing", "ratio", ratio)
        if value != "random" and not 0 <= value <= 255:
            raise ValueError(f"RandomErasing: value must be 'random' or lie in [0, 255], received {value!r}")
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.value = value

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The picture, perhaps with a rectangle missing."""
        if rng.random() >= self.p:
            return picture
        array = to_array(picture).copy()
        height, width, channels = array.shape
        for _ in range(100):
            area, ratio = height * width * rng.uniform(*self.scale), rng.uniform(*self.ratio)
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h <= height and 0 < w <= width:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                noise = rng.integers(0, 256, (h, w, channels), np.uint8) if self.value == "random" else self.value
                array[top : top + h, left : left + w] = noise
                return like(picture, array)
        return picture
