"""Random operations of a common strength: RandAugment and TrivialAugment.

An operation takes a Pillow image (L or RGB), a strength from -1 to 1 and the colour that fills what moves in. Those
that have no direction take the strength's absolute value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from .affine import affine
from .pictures import P, like, to_pillow

STRONGEST = 10  # the largest magnitude
ROTATION = 30  # degrees at strength 1
SHEAR = 0.3
TRANSLATION = 0.45  # of the side
ENHANCEMENT = 0.9  # a factor of 0.1 to 1.9
FEWEST_BITS = 4

Operation = Callable[[Image.Image, float, int], Image.Image]


def _rotate(image: Image.Image, strength: float, fill: int) -> Image.Image:
    angle = np.deg2rad(ROTATION * strength)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return affine(image, (cos, sin, 0), (-sin, cos, 0), fill)


def _shear_x(image: Image.Image, strength: float, fill: int) -> Image.Image:
    return affine(image, (1, SHEAR * strength, 0), (0, 1, 0), fill)


def _shear_y(image: Image.Image, strength: float, fill: int) -> Image.Image:
    return affine(image, (1, 0, 0), (SHEAR * strength, 1, 0), fill)


def _translate_x(image: Image.Image, strength: float, fill: int) -> Image.Image:
    return affine(image, (1, 0, round(TRANSLATION * strength * image.width)), (0, 1, 0), fill)


def _translate_y(image: Image.Image, strength: float, fill: int) -> Image.Image:
    return affine(image, (1, 0, 0), (0, 1, round(TRANSLATION * strength * image.height)), fill)


def _enhance(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength, fill: enhancer(image).enhance(1 + ENHANCEMENT * strength)


def _posterize(image: Image.Image, strength: float, fill: int) -> Image.Image:
    return ImageOps.posterize(image, 8 - round((8 - FEWEST_BITS) * abs(strength)))


def _solarize(image: Image.Image, strength: float, fill: int) -> Image.Image:
    return ImageOps.solarize(image, 256 - round(256 * abs(strength)))


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength, fill: image,
    "auto_contrast": lambda image, strength, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, fill: ImageOps.equalize(image),
    "rotate": _rotate,
    "solarize": _solarize,
    "color": _enhance(ImageEnhance.Color),
    "posterize": _posterize,
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}


def _apply(image: Image.Image, magnitude: float, fill: int, rng: np.random.Generator) -> Image.Image:
    """One operation of the fourteen, all equally likely, in one of its two directions."""
    operation = list(OPERATIONS.values())[rng.integers(len(OPERATIONS))]
    sign = 1 if rng.random() < 0.5 else -1
    return operation(image, sign * magnitude / STRONGEST, fill)


class RandAugment:
    """``n`` of the fourteen ``OPERATIONS``, one behind the other, all of ``magnitude`` (0 to 10); ``fill`` is the grey
    that moves in. Cubuk et al.: RandAugment (2020), figure 2. Raises ValueError."""

    def __init__(self, n: int = 2, magnitude: float = 9, fill: int = 128) -> None:
        if n < 0 or not 0 <= magnitude <= STRONGEST:
            raise ValueError(
                f"RandAugment: n must be at least 0 and magnitude lie in [0, {STRONGEST}], received {n} and {magnitude}"
            )
        self.n = n
        self.magnitude = magnitude
        self.fill = fill

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The picture behind ``n`` operations."""
        image = to_pillow(picture)
        for _ in range(self.n):
            image = _apply(image, self.magnitude, self.fill, rng)
        return like(picture, image)


class TrivialAugment:
    """One of the fourteen ``OPERATIONS`` of a random magnitude; nothing to tune.

    Müller, Hutter: TrivialAugment (2021), section 3, with RandAugment's operations.
    """

    def __init__(self, fill: int = 128) -> None:
        self.fill = fill

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The picture behind the operation."""
        magnitude = float(rng.integers(31)) / 30 * STRONGEST
        return like(picture, _apply(to_pillow(picture), magnitude, self.fill, rng))
