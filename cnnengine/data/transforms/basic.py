"""Crop, flip and their composition: what small images need, also for a whole batch at once.

A whole batch takes uniform random numbers, a row an image, so that an image's result does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .pictures import P, in_unit, like, to_array


class RandomCrop:
    """A window of ``size`` (a side, (height, width), or None: the picture's own) at a random place of the picture with
    ``padding`` pixels added on every side, in ``mode`` of ``numpy.pad``: "constant" (black), "edge", "reflect", ...

    Raises ValueError where the padded picture is smaller than the window.
    """

    draws = 2

    def __init__(self, size: int | tuple[int, int] | None = None, padding: int = 4, mode: str = "constant") -> None:
        if padding < 0:
            raise ValueError(f"RandomCrop: padding must be at least 0, received {padding}")
        self.size = (size, size) if isinstance(size, int) else size
        self.padding = padding
        self.mode = mode

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The picture's crop."""
        return like(picture, self.whole(to_array(picture)[np.newaxis], rng.random((1, self.draws)))[0])

    def whole(self, images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Crops of ``images`` uint8 (N, H, W, C); ``numbers`` (N, 2) in [0, 1)."""
        n, height, width, channels = images.shape
        rows, columns = self.size or (height, width)
        p = self.padding
        free_rows, free_columns = height + 2 * p - rows, width + 2 * p - columns
        if min(free_rows, free_columns) < 0:
            raise ValueError(
                f"RandomCrop: {rows} x {columns} is larger than the picture of {height} x {width} with padding {p}"
            )
        if self.mode == "constant":
            padded = np.zeros((n, height + 2 * p, width + 2 * p, channels), images.dtype)
            padded[:, p : p + height, p : p + width] = images
        else:
            padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)), self.mode)  # type: ignore[call-overload]
        tops = (numbers[:, 0] * (free_rows + 1)).astype(np.int64).tolist()
        lefts = (numbers[:, 1] * (free_columns + 1)).astype(np.int64).tolist()
        crops = np.empty((n, rows, columns, channels), images.dtype)
        for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
            crops[i] = padded[i, top : top + rows, left : left + columns]
        return crops


class HorizontalFlip:
    """Left and right exchanged with probability ``p``."""

    draws = 1

    def __init__(self, p: float = 0.5) -> None:
        in_unit("HorizontalFlip", p=p)
        self.p = p

    def __call__(self, picture: P, rng: np.random.Generator) -> P:
        """The picture or its mirror image."""
        flip = rng.random() < self.p
        return like(picture, np.ascontiguousarray(to_array(picture)[:, ::-1])) if flip else picture

    def whole(self, images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """``images`` uint8 (N, H, W, C), some of them mirrored; ``numbers`` (N, 1) in [0, 1)."""
        flip = np.flatnonzero(numbers[:, 0] < self.p)
        flipped = images.copy()
        flipped[flip] = images[flip][:, :, ::-1]
        return flipped


class Compose:
    """One transform behind the other. It takes whole batches if all of them do."""

    def __init__(self, *transforms: Callable[[Any, np.random.Generator], Any]) -> None:
        self.transforms = transforms
        draws = [getattr(transform, "draws", None) for transform in transforms]
        self.draws: int | None = None if None in draws else sum(int(d or 0) for d in draws)

    def __call__(self, picture: Any, rng: np.random.Generator) -> Any:
        """The picture behind all of them."""
        for transform in self.transforms:
            picture = transform(picture, rng)
        return picture

    def whole(self, images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """``images`` uint8 (N, H, W, C) behind all of them; ``numbers`` (N, draws) in [0, 1)."""
        first = 0
        for transform in self.transforms:
            last = first + transform.draws  # type: ignore[attr-defined]
            images = transform.whole(images, numbers[:, first:last])  # type: ignore[attr-defined]
            first = last
        return images


class RandomApply:
    """``transform`` with probability ``p``, else the picture as it is."""

    def __init__(self, transform: Callable[[Any, np.random.Generator], Any], p: float = 0.5) -> None:
        in_unit("RandomApply", p=p)
        self.transform = transform
        self.p = p

    def __call__(self, picture: Any, rng: np.random.Generator) -> Any:
        """The picture, transformed or not."""
        return self.transform(picture, rng) if rng.random() < self.p else picture
