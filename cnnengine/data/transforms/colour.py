"""Brightness, contrast, saturation and hue."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

from .pictures import P, in_unit, like, to_pillow


class ColorJitter:
    """Brightness, contrast and saturation times a factor of 1 - x to 1 + x, the hue turned by up to ``hue`` of the
    circle (at most 0.5), in random order. Grey pictures have neither saturation nor hue.

    Raises ValueError for values outside [0, 1], and a hue above 0.5.
    """

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
    ) -> None:
        in_unit("ColorJitter", brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
        if hue > 0.5:
            raise ValueError(f"ColorJitter: hue must be at most 0.5, half the circle, received {hue!r}")
        self.ranges = (brightness, contrast, saturation, hue)

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The picture in other colours."""
        image = to_pillow(picture)
        shifts = rng.uniform(-1, 1, 4) * self.ranges
        for kind in map(int, rng.permutation(4)):
            if not self.ranges[kind] or (kind >= 2 and image.mode != "RGB"):
                continue
            image = turn_hue(image, shifts[kind]) if kind == 3 else ENHANCERS[kind](image).enhance(1 + shifts[kind])
        return like(picture, image)


class RandomDarken:
    """Brightness times a factor of ``least`` to 1. Raises ValueError for ``least`` outside [0, 1]."""

    def __init__(self, least: float = 0.15) -> None:
        in_unit("RandomDarken", least=least)
        self.least = least

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The darker picture."""
        return like(picture, ImageEnhance.Brightness(to_pillow(picture)).enhance(rng.uniform(self.least, 1)))


class RandomGrayscale:
    """Three equal channels, the picture's brightness, with probability ``p``; grey pictures stay as they are."""

    def __init__(self, p: float = 0.1) -> None:
        in_unit("RandomGrayscale", p=p)
        self.p = p

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The picture, or what is left without its colours."""
        image = to_pillow(picture)
        if rng.random() < self.p and image.mode == "RGB":
            image = image.convert("L").convert("RGB")
        return like(picture, image)


ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """An RGB image whose hues are turned by ``turn`` of the circle, to the next 1/256."""
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)
    return Image.fromarray(hsv, "HSV").convert("RGB")
