"""From a picture of any size to MNIST's form: a light figure on black, 20 pixels long, centred by mass in 28 x 28."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from .decode import decode

SIDE = 28  # pixels of the square MNIST picture
FIGURE = 20  # pixels of the figure's longer side in it


def load_digit(path: str | os.PathLike[str]) -> np.ndarray:
    """The picture at ``path`` as a (28, 28, 1) uint8 digit, prepared as MNIST's were.

    Any format Pillow reads, any size, grey or colour; transparency is laid on white. A picture whose border is lighter
    than its middle grey is taken as dark on light and inverted. A picture of exactly 28 x 28 is otherwise used as it
    is; any other is cropped to its figure, scaled and centred. Raises DataError for a missing or corrupt file.
    """
    grey = _to_light_on_dark(np.asarray(decode(path, str(path), channels=1)))
    return (grey if grey.shape == (SIDE, SIDE) else _centre(grey))[..., np.newaxis]


def _to_light_on_dark(grey: np.ndarray) -> np.ndarray:
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return 255 - grey if np.median(border) > 127 else grey


def _centre(grey: np.ndarray) -> np.ndarray:
    """Crops (H, W) to its figure, scales that to 20 pixels and puts its centre of mass in the middle of 28 x 28."""
    floor, peak = int(np.median(grey)), int(grey.max())
    light = (grey.astype(np.float32) - floor).clip(0) * (255 / max(peak - floor, 1))  # paper that is not quite black
    rows, columns = np.flatnonzero((light > 64).any(1)), np.flatnonzero((light > 64).any(0))
    if not len(rows):
        return np.zeros((SIDE, SIDE), np.uint8)
    figure = Image.fromarray(light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].round().astype(np.uint8))
    scale = FIGURE / max(figure.size)
    width, height = (max(1, round(length * scale)) for length in figure.size)
    small = np.asarray(figure.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC))
    weight = small.astype(np.float64)
    total = weight.sum()
    middle_row = (weight.sum(1) @ np.arange(height) + 0.5 * total) / total  # in pixels from the figure's top edge
    middle_column = (weight.sum(0) @ np.arange(width) + 0.5 * total) / total
    top = min(max(round(SIDE / 2 - middle_row), 0), SIDE - height)
    left = min(max(round(SIDE / 2 - middle_column), 0), SIDE - width)
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    canvas[top : top + height, left : left + width] = small
    return canvas
