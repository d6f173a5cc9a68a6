"""Occlusion: what a class loses where a part of the image is covered."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arguments import Pair, to_pair
from ..nn import Module
from ._network import Score, in_batches, likeliest, one_image, scores, undisturbed


def occlusion(
    model: Module,
    x: Any,
    target: int | None = None,
    *,
    window: int | Pair | None = None,
    stride: int | Pair | None = None,
    value: float = 0.0,
    score: Score = "probability",
) -> np.ndarray:
    """(H, W): for each pixel the mean loss of the class's score over the windows that cover it.

    A ``window`` (a fifth of the sides by default) moves over one image x (1, H, W, C) in steps of ``stride`` (half of
    the window), the last ones at the border; in it x becomes ``value``, which is the mean colour for images that were
    normalised. ``score`` is the "probability" or the "logit". Raises ValueError for a window that is larger than x.
    Zeiler and Fergus, "Visualizing and understanding convolutional networks", arXiv 1311.2901, section 4.2.
    """
    image = one_image("occlusion", x)
    _, H, W, _ = image.shape
    height, width = to_pair((max(1, H // 5), max(1, W // 5)) if window is None else window, "occlusion", "window", 1)
    if height > H or width > W:
        raise ValueError(f"occlusion: a window of {height} x {width} is larger than the image, {H} x {W}")
    default = (max(1, height // 2), max(1, width // 2))
    steps = to_pair(default if stride is None else stride, "occlusion", "stride", 1)
    corners = [(top, left) for top in starts(H, height, steps[0]) for left in starts(W, width, steps[1])]

    def covered(first: int, end: int) -> np.ndarray:
        images = np.repeat(image, end - first, axis=0)
        for i, (top, left) in enumerate(corners[first:end]):
            images[i, top : top + height, left : left + width] = value
        return images

    loss, count, done = np.zeros((H, W)), np.zeros((H, W)), 0
    with undisturbed(model):
        target = likeliest("occlusion", model, image, target)
        whole = scores("occlusion", model, image, target, score)[0]
        for images in in_batches(covered, len(corners)):
            for found in scores("occlusion", model, images, target, score):
                top, left = corners[done]
                loss[top : top + height, left : left + width] += whole - found
                count[top : top + height, left : left + width] += 1
                done += 1
    return loss / np.maximum(count, 1)


def starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin, ``stride`` apart, and one at the end where these leave something over."""
    found = list(range(0, size - window + 1, stride))
    return found if found[-1] == size - window else [*found, size - window]
