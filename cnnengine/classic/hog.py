"""Histograms of oriented gradients: which directions edges have in each small square of a picture.

Dalal, Triggs: Histograms of oriented gradients for human detection, CVPR 2005.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._library import library
from .images import checked


@dataclass(frozen=True, slots=True)
class HOG:
    """A histogram of ``orientations`` directions in [0, 180) degrees for each ``cell`` x ``cell`` pixels, votes
    weighted by steepness; ``block`` x ``block`` neighbouring cells are scaled to length 1 together, clipped at 0.2 and
    scaled again ("L2-Hys"), so that brightness and contrast drop out.

    A picture of 28 x 28 has 7 x 7 cells, 6 x 6 blocks, and 6 * 6 * 2 * 2 * 9 = 1,296 numbers. At a pixel of a colour
    picture the channel with the steepest gradient votes.
    """

    orientations: int = 9
    cell: int = 4
    block: int = 2

    def __post_init__(self) -> None:
        for name in ("orientations", "cell", "block"):
            if getattr(self, name) < 1:
                raise ValueError(f"HOG: {name} must be at least 1, received {getattr(self, name)}")

    def fit(self, images: np.ndarray) -> None:
        """Nothing is learned."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, D) float32 of images uint8 (N, H, W, C). Raises ValueError for images smaller than a block."""
        return self.blocks(images).reshape(len(images), -1)

    def blocks(self, images: np.ndarray) -> np.ndarray:
        """The same as (N, block rows, block columns, block * block * orientations) float32."""
        images = checked("HOG", images)
        side = self.cell * self.block
        if min(images.shape[1:3]) < side:
            raise ValueError(f"HOG: images must be at least {side} x {side}, a block's size, received {images.shape}")
        describe = library("skimage.feature").hog
        colour = images.shape[3] == 3
        found = [
            describe(
                image if colour else image[..., 0],
                orientations=self.orientations,
                pixels_per_cell=(self.cell, self.cell),
                cells_per_block=(self.block, self.block),
                block_norm="L2-Hys",
                feature_vector=False,
                channel_axis=-1 if colour else None,
            ).astype(np.float32)
            for image in images
        ]
        return np.stack(found).reshape(len(images), *found[0].shape[:2], -1)
