"""A labelled set of images, and walking through one in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import DataError
from .arrays import ArrayPart
from .part import batch_count, epoch_order

Numbers = float | Sequence[float]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images (N, H, W, C) uint8 with labels (N,) int64 in [0, len(classes)), in a training and a test part.

    ``mean`` and ``std`` are those of the training images' pixels divided by 255: one number for all channels, or one a
    channel. ``train`` and ``test`` are the two parts, each walked through with ``batches``.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    mean: Numbers
    std: Numbers

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

    @property
    def train(self) -> ArrayPart:
        """The training images."""
        return ArrayPart(self.train_images, self.train_labels, self.classes, f"{self.name}, training part")

    @property
    def test(self) -> ArrayPart:
        """The test images."""
        return ArrayPart(self.test_images, self.test_labels, self.classes, f"{self.name}, test part")

    def part_of(self, train: int | None = None, test: int | None = None) -> Dataset:
        """So many training and test images at random, always the same, in their order; None: all of them."""
        chosen = np.sort(epoch_order(len(self.train_images), 0, 0)[:train])
        asked = np.sort(epoch_order(len(self.test_images), 0, 0)[:test])
        return replace(
            self,
            train_images=self.train_images[chosen],
            train_labels=self.train_labels[chosen],
            test_images=self.test_images[asked],
            test_labels=self.test_labels[asked],
        )

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """``(images / 255 - mean) / std`` as float32; ``images`` uint8 of any shape."""
        return normalize(images, self.mean, self.std)


def from_arrays(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    classes: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A data set of uint8 images (N, H, W, C), or (N, H, W) grey, and integer labels (N,).

    The classes are by default the numbers from 0 to the largest label. ``mean`` and ``std`` are computed from the
    training images, one a channel. Raises TypeError for other dtypes, DataError for shapes that cannot be.
    """
    train, test = _checked(name, train_images, train_labels), _checked(name, test_images, test_labels)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(f"{name}: training images are {train[0].shape[1:]}, test images {test[0].shape[1:]}")
    if classes is None:
        classes = [str(i) for i in range(int(max(train[1].max(), test[1].max())) + 1)]
    mean, std = moments(train[0])
    return Dataset(name, *train, *test, tuple(classes), mean, std)


def _checked(name: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: uint8 images and integer labels expected, got {images.dtype} and {labels.dtype}")
    images = images[..., np.newaxis] if images.ndim == 3 else images
    if images.ndim != 4 or labels.ndim != 1 or not images.size:
        raise DataError(f"{name}: images (N, H, W, C), labels (N,) expected, got {images.shape} and {labels.shape}")
    if images.shape[3] > 4:
        hint = "; they look like (N, C, H, W)" if images.shape[1] in (1, 3) else ""
        raise DataError(f"{name}: images (N, H, W, C) of 1 to 4 channels expected, got {images.shape}{hint}")
    return images, labels.astype(np.int64)


def moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel's pixels divided by 255; a deviation of 0 is given as 1. ``images`` uint8."""
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        share, values = counts / counts.sum(), np.arange(256) / 255
        mean = float(share @ values)
        means.append(mean)
        deviations.append(float(np.sqrt(share @ (values - mean) ** 2)) or 1.0)
    return tuple(means), tuple(deviations)


def normalize(images: np.ndarray, mean: Numbers, std: Numbers) -> np.ndarray:
    """``(images / 255 - mean) / std`` as float32, by a table of the 256 values; ``images`` uint8 of any shape, of
    (..., C) where ``mean`` and ``std`` are one number a channel.

    Raises TypeError for another dtype: floating-point images may already lie in [0, 1]. Raises ValueError for another
    number of channels.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"normalize: images must be uint8 in [0, 255], got {images.dtype}")
    means, stds = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(std, np.float64))
    table: np.ndarray = ((np.arange(256) / 255 - means[..., np.newaxis]) / stds[..., np.newaxis]).astype(np.float32)
    if table.ndim == 1:
        return table[images]  # type: ignore[no-any-return]
    if images.ndim < 1 or images.shape[-1] != len(table):
        raise ValueError(f"normalize: mean and std are of {len(table)} channels, the images are {images.shape}")
    normalized = np.empty(images.shape, np.float32)
    for channel, values in enumerate(table):
        normalized[..., channel] = values[images[..., channel]]
    return normalized


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


def _walk(
    x: np.ndarray, y: np.ndarray, batch_size: int, order: np.ndarray | None, count: int, start: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(start, count):
        rows = slice(i * batch_size, (i + 1) * batch_size)
        chosen = rows if order is None else order[rows]
        yield x[chosen], y[chosen]
