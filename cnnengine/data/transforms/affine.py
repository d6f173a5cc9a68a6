"""Pictures that are turned, moved and scaled."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from .pictures import P, in_unit, is_range, like, to_pillow

Row = tuple[float, float, float]


def affine(image: Image.Image, row_x: Row, row_y: Row, fill: int) -> Image.Image:
    """The pixel at (x, y), from the centre, comes from (row_x . (x, y, 1), row_y . (x, y, 1)); bilinear, and ``fill``
    where that lies outside."""
    cx, cy = image.width / 2, image.height / 2  # Pillow's pixels have their middles at halves
    data = (
        *row_x[:2],
        row_x[2] + cx - row_x[0] * cx - row_x[1] * cy,
        *row_y[:2],
        row_y[2] + cy - row_y[0] * cx - row_y[1] * cy,
    )
    colour = fill if image.mode == "L" else (fill,) * 3
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=colour)


class RandomAffine:
    """Turned about the middle by up to ``degrees`` to either side, enlarged by a factor of ``scale`` (low, high), moved
    by up to a share ``translate`` of the width and of the height; black where nothing is.

    Raises ValueError for degrees outside [0, 180], and shares outside [0, 1].
    """

    def __init__(self, degrees: float = 30.0, translate: float = 0.1, scale: tuple[float, float] = (0.7, 1.3)) -> None:
        if not 0 <= degrees <= 180:
            raise ValueError(f"RandomAffine: degrees must lie in [0, 180], received {degrees!r}")
        in_unit("RandomAffine", translate=translate)
        is_range("RandomAffine", "scale", scale)
        self.degrees = degrees
        self.translate = translate
        self.scale = scale

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The picture in its new place."""
        image = to_pillow(picture)
        angle, right, down = rng.uniform(-1, 1, 3) * (math.radians(self.degrees), self.translate, self.translate)
        scale = rng.uniform(*self.scale)
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        dx, dy = right * image.width, down * image.height
        rows = (cos, -sin, sin * dy - cos * dx), (sin, cos, -sin * dx - cos * dy)
        return like(picture, affine(image, *rows, fill=0))
