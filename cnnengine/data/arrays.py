"""Images that lie in memory: a part over two arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from .part import Batch, Part, Picture, Sample, Transform, batch_count, epoch_order


@runtime_checkable
class WholeBatch(Protocol):
    """A transform that can also take a whole batch of images of one size at once."""

    @property
    def draws(self) -> int | None:
        """Random numbers for an image; None where it takes pictures one by one after all."""

    def whole(self, images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """``images`` uint8 (N, H, W, C), ``numbers`` (N, draws) uniform in [0, 1): image i uses row i."""


class ArrayPart(Part):
    """``images`` (N, H, W, C) with ``labels`` (N,) int64, neither copied.

    Without a transform, and with one that takes whole batches (``RandomCrop``, ``HorizontalFlip``, and what
    ``Compose`` makes of them), batches are made at once in this process, whatever ``workers`` says.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], name: str = "arrays") -> None:
        super().__init__(name, classes)
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def samples(self, *, epoch: int, seed: int, start: int, shuffle: bool) -> Iterator[Sample]:
        order = epoch_order(len(self), seed, epoch) if shuffle else np.arange(len(self))
        labels = self.labels
        return (Sample(i, int(labels[i]), f"{self.name}, image {i}", i) for i in map(int, order[start:]))

    def reader(self) -> Callable[[Sample], Picture]:
        return Row(self.images)

    def batches(
        self,
        batch_size: int,
        *,
        epoch: int = 0,
        seed: int = 0,
        start: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: Transform | None = None,
        workers: int = 0,
    ) -> Iterator[Batch]:
        self._check(batch_size, epoch, seed, start, workers)
        whole = _whole_batch(transform)
        if transform is None or whole is not None:
            count = batch_count(len(self), batch_size, drop_last)
            order = epoch_order(len(self), seed, epoch) if shuffle else None
            return self._whole(batch_size, range(start, count), order, whole, seed, epoch)
        return super().batches(
            batch_size,
            epoch=epoch,
            seed=seed,
            start=start,
            shuffle=shuffle,
            drop_last=drop_last,
            transform=transform,
            workers=workers,
        )

    def _whole(
        self,
        batch_size: int,
        numbers: range,
        order: np.ndarray | None,
        transform: WholeBatch | None,
        seed: int,
        epoch: int,
    ) -> Iterator[Batch]:
        # a row of random numbers for each image of the set, so that a batch's do not depend on the batches before it
        draws = epoch_draws(len(self), transform.draws or 0, seed, epoch) if transform is not None else None
        for number in numbers:
            rows: slice | np.ndarray = slice(number * batch_size, (number + 1) * batch_size)
            if order is not None:
                rows = order[rows]
            images = self.images[rows]
            if transform is not None and draws is not None:
                images = transform.whole(images, draws[rows])
            yield images, self.labels[rows]


def _whole_batch(transform: object) -> WholeBatch | None:
    return transform if isinstance(transform, WholeBatch) and transform.draws is not None else None


class Row:
    """Reads an image of an array."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __call__(self, sample: Sample) -> np.ndarray:
        image: np.ndarray = self.images[sample.source]
        return image


def epoch_draws(n: int, draws: int, seed: int, epoch: int) -> np.ndarray:
    """(n, draws) numbers uniform in [0, 1), row i for image i of the set."""
    philox = np.random.Philox(key=(seed, epoch), counter=(0, 0, 0, 2**63))  # the last word is beyond any shard's number
    return np.random.Generator(philox).random((n, draws))
