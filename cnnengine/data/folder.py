"""Images that lie in files: a list of them, or a folder of folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from .dataset import Numbers, normalize
from .decode import MODES, SUFFIXES, decode
from .part import OnError, Part, Sample, epoch_order
from .preprocessing import IMAGENET_MEAN, IMAGENET_STD

TRAIN, TEST = ("train",), ("val", "test", "validation")  # names of the folders of the two parts


class FileList(Part):
    """``files``, any iterable of (path, label), as pictures of ``channels`` 3 (RGB) or 1 (grey).

    Raises DataError for a label outside [0, len(classes)).
    """

    def __init__(
        self,
        files: Iterable[tuple[str | os.PathLike[str], int]],
        classes: Iterable[str],
        *,
        name: str = "files",
        channels: int = 3,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(name, tuple(classes), on_error)
        if channels not in MODES:
            raise ValueError(f"{name}: channels must be 1 or 3, received {channels!r}")
        self.channels = channels
        pairs = [(os.fspath(path), int(label)) for path, label in files]
        self.paths = [path for path, _ in pairs]
        self.labels = np.array([label for _, label in pairs], np.int64)
        wrong = [pair for pair in pairs if not 0 <= pair[1] < len(self.classes)]
        if wrong:
            raise DataError(f"{wrong[0][0]}: its label {wrong[0][1]} must lie in [0, {len(self.classes)})")

    def __len__(self) -> int:
        return len(self.paths)

    def samples(self, *, epoch: int, seed: int, start: int, shuffle: bool) -> Iterator[Sample]:
        order = epoch_order(len(self), seed, epoch) if shuffle else np.arange(len(self))
        return (Sample(i, int(self.labels[i]), self.paths[i], self.paths[i]) for i in map(int, order[start:]))

    def reader(self) -> Callable[[Sample], Image.Image]:
        return partial(read_sample, channels=self.channels)


class ImageFolder(FileList):
    """``root/CLASS/*.jpg`` and Pillow's other formats; the classes are the folders' names, sorted.

    For ImageNet the folders are named by wnid ("n01440764"), whose sorted order is that of its 1000 classes. ``nested``
    also takes the files of folders inside a class's folder. Files and folders that begin with a dot, and files of other
    suffixes, are left out. ``classes`` gives the names and their order instead: a folder that is not among them is an
    error, one that is missing is not. Raises DataError for a root without classes, and for a class without images
    unless ``classes`` is given.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        classes: Iterable[str] | None = None,
        nested: bool = False,
        channels: int = 3,
        on_error: OnError = "raise",
    ) -> None:
        root = Path(root)
        try:
            folders = sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
        except OSError as error:
            raise DataError(f"{root}: cannot be read: {error.strerror or error}") from error
        if not folders:
            raise DataError(f"{root}: expected a folder for each class in it, with that class's images, found none")
        names = tuple(classes) if classes is not None else tuple(folders)
        unknown = sorted(set(folders) - set(names))
        if unknown:
            raise DataError(f"{root}: the folder {unknown[0]} is none of the {len(names)} classes that were given")
        label = {name: i for i, name in enumerate(names)}
        files: list[tuple[str, int]] = []
        for folder in folders:
            found = sorted(_images(os.path.join(root, folder), nested))
            if not found and classes is None:
                raise DataError(f"{root / folder}: holds no images ({', '.join(SUFFIXES)})")
            files += [(path, label[folder]) for path in found]
        super().__init__(files, names, name=str(root), channels=channels, on_error=on_error)


@dataclass(frozen=True, slots=True)
class FolderDataset:
    """A training and a test part that are read from their files when they are asked for.

    ``mean`` and ``std``, of pixels divided by 255, are ImageNet's unless they are given.
    """

    name: str
    train: Part
    test: Part
    mean: Numbers = IMAGENET_MEAN
    std: Numbers = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.train.classes != self.test.classes:
            only = sorted(set(self.train.classes) ^ set(self.test.classes))
            what = f"{only[0]!r} is in one alone" if only else "their order differs"
            raise DataError(f"{self.name}: the classes of the training and the test part differ: {what}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of both parts' classes."""
        return self.train.classes

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """``(images / 255 - mean) / std`` as float32; ``images`` uint8 (..., C)."""
        return normalize(images, self.mean, self.std)


def image_folders(
    root: str | os.PathLike[str], *, nested: bool = False, channels: int = 3, on_error: OnError = "raise"
) -> FolderDataset:
    """``root/train/CLASS/*.jpg`` and ``root/val/CLASS/*.jpg`` ("test", "validation" do as well). Raises DataError."""
    root = Path(root)

    def part(names: tuple[str, ...]) -> ImageFolder:
        folder = next((root / name for name in names if (root / name).is_dir()), None)
        if folder is None:
            raise DataError(f"{root}: expected a folder {' or '.join(names)} in it, with a folder for each class")
        return ImageFolder(folder, nested=nested, channels=channels, on_error=on_error)

    return FolderDataset(str(root), part(TRAIN), part(TEST))


def read_sample(sample: Sample, channels: int) -> Image.Image:
    """The picture of a sample whose source is a path, the bytes of a file, or the error that was met in their place."""
    if isinstance(sample.source, DataError):
        raise sample.source
    return decode(sample.source, sample.name, channels)


def _images(folder: str, nested: bool) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if nested and not entry.is_symlink():  # links may lead round in circles
                yield from _images(entry.path, nested)
        elif entry.name.lower().endswith(SUFFIXES):
            yield entry.path
