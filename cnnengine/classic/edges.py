"""Edges: where the brightness changes. The first thing that people computed of a picture, and that a CNN learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ._library import library
from .images import checked, grey, in_cells

Kind = Literal["sobel", "canny"]


def sobel(images: np.ndarray) -> np.ndarray:
    """How steep the brightness is at each pixel: (N, H, W) float32, 0 where it is flat.

    The root of the mean of the squares of two 3x3 convolutions, with (1, 2, 1) / 4 along an edge and (1, 0, -1)
    across, of brightness in [0, 1]. ``images`` uint8 (N, H, W, C).
    Sobel, Feldman: A 3x3 isotropic gradient operator for image processing (1968).
    """
    filters = library("skimage.filters")
    return np.stack([filters.sobel(image) for image in grey(checked("sobel", images))]).astype(np.float32)


def canny(images: np.ndarray, sigma: float = 1.0, low: float = 0.1, high: float = 0.2) -> np.ndarray:
    """The lines of one pixel's width along which the brightness changes most: (N, H, W) bool.

    The image is smoothed by a Gaussian of ``sigma`` pixels; of the pixels steeper than ``low`` those are kept that are
    a maximum across the edge and hang together with one steeper than ``high``. Steepness is 4 times the difference of
    a pixel's two neighbours across the edge, of brightness in [0, 1].
    ``images`` uint8 (N, H, W, C). Raises ValueError unless 0 <= low <= high.
    Canny: A computational approach to edge detection, IEEE PAMI 8 (1986).
    """
    if not 0 <= low <= high:
        raise ValueError(f"canny: 0 <= low <= high expected, received low {low} and high {high}")
    feature = library("skimage.feature")
    pictures = grey(checked("canny", images))
    return np.stack([feature.canny(image, sigma, low, high) for image in pictures])


@dataclass(frozen=True, slots=True)
class Edges:
    """How much edge there is in each square of ``cell`` pixels: (N, H // cell * (W // cell)) float32.

    ``kind`` "sobel" takes the mean steepness, "canny" the share of pixels on a line.
    """

    kind: Kind = "sobel"
    cell: int = 4

    def __post_init__(self) -> None:
        if self.kind not in ("sobel", "canny"):
            raise ValueError(f"Edges: kind must be 'sobel' or 'canny', received {self.kind!r}")
        if self.cell < 1:
            raise ValueError(f"Edges: cell must be at least 1, received {self.cell}")

    def fit(self, images: np.ndarray) -> None:
        """Nothing is learned."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The features of images uint8 (N, H, W, C)."""
        return in_cells(sobel(images) if self.kind == "sobel" else canny(images), self.cell)
