"""Maps as pictures: their colours, and overlays on the image they explain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

# colours at equal distances, from the least to the most: dark violet over red to pale yellow, brighter at every step
WARM = (
    (0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39),
    (252, 255, 164),
)  # fmt: skip
SIGNED = (
    (33, 72, 150), (98, 150, 200), (188, 214, 232), (247, 247, 247), (246, 196, 170), (214, 96, 77), (150, 20, 36),
)  # fmt: skip


def coloured(values: np.ndarray, colours: Sequence[tuple[int, int, int]] = WARM) -> np.ndarray:
    """(H, W) in [0, 1] to (H, W, 3) uint8; what lies outside has the colour of the end."""
    place = np.linspace(0, 1, len(colours))
    channels = [np.interp(values, place, [colour[c] for colour in colours]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def scaled(heat: np.ndarray, cut: float = 0.0) -> np.ndarray:
    """(H, W) brought to [0, 1], the least to 0; all 0 where it is the same everywhere. With ``cut`` that percentage of
    the pixels at the upper end are all 1: maps of pixels have a few that outshine the rest."""
    low, high = float(heat.min()), float(np.percentile(heat, 100 - cut))
    return np.zeros(heat.shape) if high <= low else np.clip((heat - low) / (high - low), 0, 1)


def signed(values: np.ndarray) -> np.ndarray:
    """(H, W) to (H, W, 3) uint8: blue below 0, white at 0, red above, the largest magnitude in full colour."""
    largest = float(np.abs(values).max())
    return coloured(values / (2 * largest) + 0.5 if largest else np.full(values.shape, 0.5), SIGNED)


def overlay(picture: np.ndarray, heat: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """(H, W, 3) uint8: the picture (H, W, C) of bytes in grey, under the map's colours where the map (H, W) is large.
    Raises ValueError where the sizes differ."""
    if picture.shape[:2] != heat.shape:
        raise ValueError(f"overlay: picture {picture.shape} and map {heat.shape} are of different sizes")
    share = scaled(np.maximum(heat, 0))[..., None]
    grey = np.asarray(Image.fromarray(as_rgb(picture)).convert("L"), np.float64)[..., None]
    opacity = strength * share**0.5
    mixed: np.ndarray = (1 - opacity) * grey + opacity * coloured(share[..., 0])
    return mixed.round().astype(np.uint8)


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 1) or (H, W, 3), bytes or numbers in [0, 1], to (H, W, 3) uint8. Raises ValueError."""
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"expected a picture (H, W), (H, W, 1) or (H, W, 3), received {picture.shape}")
    if picture.dtype != np.uint8:
        picture = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    return np.repeat(picture, 3, 2) if picture.shape[2] == 1 else picture
