"""Test images that were turned, scaled, moved, darkened and made noisy: what a classifier takes before it errs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._library import library
from .images import checked

DISTURBANCES = {
    "clean": "as they are",
    "rotated": "turned by an angle of U(-30, 30) degrees",
    "rotated 30": "turned by 30 degrees, to the left or to the right",
    "scaled": "enlarged by a factor of U(0.7, 1.3)",
    "scaled 0.7": "made smaller by a factor of 0.7",
    "scaled 1.3": "enlarged by a factor of 1.3",
    "shifted": "moved by -4 to 4 pixels, both ways",
    "dark 0.4": "brightness times 0.4",
    "dark 0.15": "brightness times 0.15",
    "noisy": "normal noise with a deviation of 0.15 of white added to each pixel",
    "all but noise": "turned and scaled as above, moved by -2 to 2 pixels, brightness times U(0.3, 1)",
}


def warp(
    images: np.ndarray,
    angle: npt.ArrayLike = 0.0,
    scale: npt.ArrayLike = 1.0,
    dx: npt.ArrayLike = 0.0,
    dy: npt.ArrayLike = 0.0,
) -> np.ndarray:
    """Images uint8 (N, H, W, C) turned about their middle, scaled and moved, each by a number or all by one.

    ``angle`` degrees counter-clockwise, ``scale`` above 1 enlarges, ``dx`` pixels to the right, ``dy`` down. Bilinear;
    what comes from outside the image is black. Raises ValueError for a scale that is not above 0.
    """
    images = checked("warp", images)
    n, height, width, channels = images.shape
    angles, scales, right, down = (np.broadcast_to(np.asarray(v, np.float64), n) for v in (angle, scale, dx, dy))
    if not (scales > 0).all():
        raise ValueError(f"warp: scale must be above 0, received {scales.min()}")
    transform = library("scipy.ndimage").affine_transform
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    warped = np.empty_like(images)
    for i in range(n):
        t = np.deg2rad(angles[i])
        # from a place (row, column) of the result to that of the image which it shows
        back = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]]) / scales[i]
        offset = middle - back @ (middle + np.array([down[i], right[i]]))
        for c in range(channels):
            found = transform(images[i, :, :, c].astype(np.float32), back, offset, order=1, cval=0.0)
            warped[i, :, :, c] = np.rint(found).clip(0, 255)
    return warped


def disturbed(images: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Each of ``DISTURBANCES`` by name, of images uint8 (N, H, W, C). The same images and seed give the same bytes."""
    images = checked("disturbed", images)
    n, rng = len(images), np.random.default_rng(seed)
    # all angles are drawn, then all scales, and so on: the order is part of what defines these sets
    angle, scale = rng.uniform(-30, 30, n), rng.uniform(0.7, 1.3, n)
    dx, dy = rng.integers(-4, 5, n), rng.integers(-4, 5, n)
    side = rng.choice([-1, 1], n)
    noise = rng.normal(0, 0.15 * 255, images.shape)
    light = rng.uniform(0.3, 1, n)
    return {
        "clean": images,
        "rotated": warp(images, angle=angle),
        "rotated 30": warp(images, angle=30 * side),
        "scaled": warp(images, scale=scale),
        "scaled 0.7": warp(images, scale=0.7),
        "scaled 1.3": warp(images, scale=1.3),
        "shifted": warp(images, dx=dx, dy=dy),
        "dark 0.4": np.rint(images * 0.4).astype(np.uint8),
        "dark 0.15": np.rint(images * 0.15).astype(np.uint8),
        "noisy": np.rint(images + noise).clip(0, 255).astype(np.uint8),
        "all but noise": np.rint(warp(images, angle, scale, dx // 2, dy // 2) * light[:, None, None, None]).astype(
            np.uint8
        ),
    }
