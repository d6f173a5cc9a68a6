"""A part of a data set, walked through in batches: which images, in which order, with which random numbers."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from .._arguments import is_int
from ..errors import DataError

Picture = np.ndarray | Image.Image  # uint8 (H, W, C), or what Pillow holds
Transform = Callable[[Any, np.random.Generator], Any]  # (picture, its random numbers) -> picture
Batch = tuple[np.ndarray, np.ndarray]  # images (N, H, W, C), labels (N,) int64
OnError = Literal["raise", "skip"]


class SkippedImage(UserWarning):
    """An image that could not be read was left out of its batch; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image before it is read. ``shard`` and ``index`` say which of its set it is: with the seed and the epoch they
    decide its random numbers. ``source`` is what the part's reader takes: a path, bytes, a row."""

    index: int
    label: int
    name: str
    source: Any
    shard: int = 0


def batch_count(n: int, batch_size: int, drop_last: bool = False) -> int:
    """How many batches there are of ``n`` rows."""
    return n // batch_size if drop_last else -(-n // batch_size)


def sample_rng(seed: int, epoch: int, index: int, shard: int = 0) -> np.random.Generator:
    """The random numbers of one image in one epoch, whoever draws them: Philox with (seed, epoch) for a key."""
    return np.random.Generator(np.random.Philox(key=(seed, epoch), counter=(0, 0, index, shard)))


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The shuffled order of ``n`` rows: it depends on nothing else, so that an interrupted epoch finds it again."""
    return np.random.default_rng((seed, epoch)).permutation(n)


class Part(ABC):
    """Labelled images that are read when they are asked for.

    ``on_error`` decides what happens to an image that cannot be read: "raise" stops with a DataError; "skip" leaves it
    out of its batch, warns once (``SkippedImage``) and enters it into ``faults``, a dictionary of its name and reason.
    """

    def __init__(self, name: str, classes: tuple[str, ...], on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"{name}: on_error must be 'raise' or 'skip', received {on_error!r}")
        self.name = name
        self.classes = classes
        self.on_error = on_error
        self.faults: dict[str, str] = {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def samples(self, *, epoch: int, seed: int, start: int, shuffle: bool) -> Iterator[Sample]:
        """The images of one epoch from position ``start`` on, none of them read."""

    @abstractmethod
    def reader(self) -> Callable[[Sample], Picture]:
        """What reads a sample. It is called in worker processes. Raises DataError for an image that cannot be read."""

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
        """Images (N, H, W, C) with labels (N,) int64, ``batch_size`` at a time.

        The order, if ``shuffle``, and the random numbers that ``transform(picture, rng)`` gets depend on ``seed``,
        ``epoch`` and the image alone: neither on ``workers`` nor on ``start``, the number of batches that are left out
        unread, which is how a resumed epoch goes on. With ``workers`` the images are read and transformed in that many
        processes, ahead of use. The last batch is smaller unless ``drop_last``.
        Raises ValueError for arguments that cannot be; DataError for images that cannot be read or differ in shape;
        WorkerDied where a process ended. Close the iterator, or exhaust it, to end the processes.
        """
        self._check(batch_size, epoch, seed, start, workers)
        samples = self.samples(epoch=epoch, seed=seed, start=start * batch_size, shuffle=shuffle)
        tasks = _chunks(samples, batch_size, drop_last)
        prepare = Prepare(self.reader(), transform, seed, epoch, self.on_error)
        if not workers:
            return self._collect(start, (prepare(task) for task in tasks))
        from .workers import in_workers  # imports this file

        return self._collect(start, in_workers(tasks, prepare, batch_size, workers))

    def _check(self, batch_size: int, epoch: int, seed: int, start: int, workers: int) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("epoch", epoch, 0),
            ("seed", seed, 0),
            ("start", start, 0),
            ("workers", workers, 0),
        ):
            if not is_int(value) or not least <= value < 2**64:
                raise ValueError(f"batches of {self.name}: {name} must be an int of at least {least}, got {value!r}")

    def _collect(self, start: int, prepared: Generator[Prepared, None, None]) -> Iterator[Batch]:
        """Reports what was skipped. Closing it ends the processes behind ``prepared``."""
        with closing(prepared):
            for number, batch in enumerate(prepared, start):
                for name, reason in batch.faults:
                    if name not in self.faults:
                        self.faults[name] = reason
                        warnings.warn(f"skipped: {reason}", SkippedImage, stacklevel=2)
                if not len(batch.labels):
                    raise DataError(f"{self.name}: batch {number} is empty: none of its images can be read")
                yield batch.images, batch.labels


class ImageDataset(Protocol):
    """What a data set has: whether its images lie in memory or are read when they are asked for."""

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def train(self) -> Part: ...
    @property
    def test(self) -> Part: ...
    @property
    def mean(self) -> Any: ...
    @property
    def std(self) -> Any: ...
    def normalize(self, images: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that is read and transformed; ``faults`` are (name, reason) of the images that are not in it."""

    images: np.ndarray
    labels: np.ndarray
    faults: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Prepare:
    """From samples to a batch, in this process or in a worker."""

    read: Callable[[Sample], Picture]
    transform: Transform | None
    seed: int
    epoch: int
    on_error: OnError

    def __call__(self, samples: list[Sample]) -> Prepared:
        images: list[np.ndarray] = []
        labels, faults = [], []
        for sample in samples:
            try:
                image = self.one(sample)
            except DataError as error:
                if self.on_error == "raise":
                    raise
                faults.append((sample.name, str(error)))
                continue
            if images and (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
                raise DataError(
                    f"{sample.name}: {image.dtype} {image.shape}, but the batch began with {images[0].dtype}"
                    f" {images[0].shape}; a transform such as Resize or CenterCrop makes them equal"
                )
            images.append(image)
            labels.append(sample.label)
        stacked = np.stack(images) if images else np.empty((0, 0, 0, 0), np.uint8)
        return Prepared(stacked, np.array(labels, np.int64), tuple(faults))

    def one(self, sample: Sample) -> np.ndarray:
        """One image (H, W, C). Raises DataError where it cannot be read or is no picture."""
        picture = self.read(sample)
        if self.transform is not None:
            picture = self.transform(picture, sample_rng(self.seed, self.epoch, sample.index, sample.shard))
        return as_array(picture)


def as_array(picture: Picture) -> np.ndarray:
    """(H, W, C), uint8 as Pillow holds it or as the array is."""
    array = np.asarray(picture)
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim != 3 or array.dtype not in (np.uint8, np.float32):
        raise TypeError(f"a picture must be uint8 or float32 (H, W, C), a transform gave {array.dtype} {array.shape}")
    return array


def _chunks(samples: Iterator[Sample], size: int, drop_last: bool) -> Iterator[list[Sample]]:
    while chunk := list(islice(samples, size)):
        if len(chunk) < size and drop_last:
            return
        yield chunk
