"""Pictures of other sizes: what brings photographs to the square a network takes."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from .pictures import P, is_range, like, resampling, to_pillow


class Resize:
    """To ``size`` (height, width), or its shorter side to a number of pixels; with Pillow's anti-aliasing."""

    def __init__(self, size: int | tuple[int, int], interpolation: str = "bilinear") -> None:
        self.size = size
        self.filter = resampling("Resize", interpolation)

    def __call__(self, picture: P, rng: np.random.Generator | None = None) -> P:
        """The resized picture; ``rng`` is not used."""
        image = to_pillow(picture)
        if isinstance(self.size, int):
            shorter = min(image.size)
            width, height = (int(self.size * side / shorter) for side in image.size)
        else:
            height, width = self.size
        return like(picture, image.resize((width, height), self.filter))


class CenterCrop:
    """The middle of ``size`` (a side, or (height, width)). Raises ValueError for a smaller picture."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = (size, size) if isinstance(size, int) else size

    def __call__(self, picture: P, rng: np.random.Generator | None = None) -> P:
        """The crop; ``rng`` is not used."""
        image, (rows, columns) = to_pillow(picture), self.size
        width, height = image.size
        if height < rows or width < columns:
            raise ValueError(f"CenterCrop: {rows} x {columns} is larger than the picture of {height} x {width}")
        left, top = round((width - columns) / 2), round((height - rows) / 2)
        return like(picture, image.crop((left, top, left + columns, top + rows)))


class RandomResizedCrop:
    """A window of a random share of the area (``scale``) and of random width / height (``ratio``), resized to a square
    of ``size`` (or to (height, width)). Where ten windows do not fit, the largest central one of a fitting ratio.

    Szegedy et al.: Going deeper with convolutions (2015), section 6.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
    ) -> None:
        is_range("RandomResizedCrop", "scale", scale)
        is_range("RandomResizedCrop", "ratio", ratio)
        self.size = (size, size) if isinstance(size, int) else size
        self.scale = scale
        self.ratio = ratio
        self.filter = resampling("RandomResizedCrop", interpolation)

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The resized window."""
        image, (rows, columns) = to_pillow(picture), self.size
        return like(picture, image.crop(self._window(image, rng)).resize((columns, rows), self.filter))

    def _window(self, image: Image.Image, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        width, height = image.size
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                return left, top, left + w, top + h
        w, h = width, height
        if width / height < self.ratio[0]:
            h = min(height, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            w = min(width, round(height * self.ratio[1]))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h
