"""A labelled set of images, and walking through one in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images (N, H, W, C) uint8 with labels (N,) int64 in [0, len(classes)), in a training and a test part.

    ``mean`` and ``std`` are those of the training images' pixels divided by 255, one for all channels.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    mean: float
    std: float

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if len(images) != len(labels):
                raise DataError(f"{self.name}: the {part}ing part has {len(images)} images and {len(labels)} labels")
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
                raise DataError(
                    f"{self.name}: {part} labels must lie in [0, {len(self.classes)}), found {labels.min()} to"
                    f" {labels.max()}"
                )

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """``(images / 255 - mean) / std`` as float32; ``images`` uint8 of any shape."""
        return normalize(images, self.mean, self.std)


def normalize(images: np.ndarray, mean: float, std: float) -> np.ndarray:
    """``(images / 255 - mean) / std`` as float32, by a table of the 256 values; ``images`` uint8 of any shape.

    Raises TypeError for another dtype: floating-point images may already lie in [0, 1].
    """
    if images.dtype != np.uint8:
        raise TypeError(f"normalize: images must be uint8 in [0, 255], got {images.dtype}")
    table: np.ndarray = ((np.arange(256) / 255 - mean) / std).astype(np.float32)
    return table[images]  # type: ignore[no-any-return]


def batches(
    x: np.ndarray,
    y: np.ndarray,
    batch_size: int,
    *,
    shuffle: bool = False,
    rng: np.random.Generator | None = None,
    drop_last: bool = False,
    start: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs ``(x[i], y[i])`` of ``batch_size`` rows, in order or in one random permutation.

    ``rng`` draws the permutation (``cnnengine.random.generator()`` where None). The last batch is smaller unless
    ``drop_last``. ``start`` skips that many batches of the same order: how a resumed epoch goes on.
    Raises ValueError for a batch size below 1, for lengths that differ, and for an empty ``x``.
    """
    if batch_size < 1:
        raise ValueError(f"batches: batch_size must be at least 1, got {batch_size}")
    if len(x) != len(y):
        raise ValueError(f"batches: x and y must have the same length, got {len(x)} and {len(y)}")
    if not len(x):
        raise ValueError("batches: x is empty")
    if shuffle and rng is None:
        from .. import random

        rng = random.generator()
    order = rng.permutation(len(x)) if shuffle and rng is not None else None
    return _walk(x, y, batch_size, order, batch_count(len(x), batch_size, drop_last), start)


def batch_count(n: int, batch_size: int, drop_last: bool = False) -> int:
    """How many batches ``batches`` gives for ``n`` rows."""
    return n // batch_size if drop_last else -(-n // batch_size)


def _walk(
    x: np.ndarray, y: np.ndarray, batch_size: int, order: np.ndarray | None, count: int, start: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(start, count):
        rows = slice(i * batch_size, (i + 1) * batch_size)
        chosen = rows if order is None else order[rows]
        yield x[chosen], y[chosen]
