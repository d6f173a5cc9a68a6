"""Local binary patterns: the texture around each pixel, as a code of which neighbours are brighter.

Ojala, Pietikäinen, Mäenpää: Multiresolution gray-scale and rotation invariant texture classification with local binary
patterns, IEEE PAMI 24 (2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._library import library
from .images import checked, grey


@dataclass(frozen=True, slots=True)
class LBP:
    """For each square of ``cell`` pixels, which share of them has each of ``points + 2`` patterns.

    A pixel's pattern says which of ``points`` neighbours on a circle of ``radius`` are at least as bright as it. Where
    they are one arc, the pattern is their number, 0 to ``points``; all others are one pattern. It does not change when
    the picture is darkened, nor much when it is turned.
    """

    points: int = 8
    radius: float = 1.0
    cell: int = 7

    def __post_init__(self) -> None:
        for name in ("points", "cell"):
            if getattr(self, name) < 1:
                raise ValueError(f"LBP: {name} must be at least 1, received {getattr(self, name)}")
        if not self.radius > 0:
            raise ValueError(f"LBP: radius must be above 0, received {self.radius}")

    def fit(self, images: np.ndarray) -> None:
        """Nothing is learned."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H // cell * (W // cell) * (points + 2)) float32 of images uint8 (N, H, W, C); the patterns of a square
        lie together. Raises ValueError for images smaller than a square."""
        images = checked("LBP", images)
        codes = self.codes(images)
        n, height, width = codes.shape
        rows, columns, kinds = height // self.cell, width // self.cell, self.points + 2
        if not rows or not columns:
            raise ValueError(f"LBP: images must be at least {self.cell} x {self.cell}, received {images.shape}")
        codes = codes[:, : rows * self.cell, : columns * self.cell]
        squares = codes.reshape(n, rows, self.cell, columns, self.cell).swapaxes(2, 3).reshape(n, rows * columns, -1)
        shares = np.stack([(squares == kind).mean(2) for kind in range(kinds)], axis=2)
        return shares.reshape(n, -1).astype(np.float32)

    def codes(self, images: np.ndarray) -> np.ndarray:
        """The pattern of each pixel: (N, H, W) int64 in [0, points + 1]. What lies outside the picture is black."""
        describe = library("skimage.feature").local_binary_pattern
        # bytes: equal grey levels must compare as equal
        levels = np.rint(255 * grey(checked("LBP", images))).astype(np.uint8)
        return np.stack([describe(image, self.points, self.radius, "uniform") for image in levels]).astype(np.int64)
