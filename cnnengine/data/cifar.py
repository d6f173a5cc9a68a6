"""CIFAR-10 and CIFAR-100 in every layout they are handed out in.

Krizhevsky: Learning multiple layers of features from tiny images (2009).
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .decode import decode
from .pickles import read_pickle
from .sets import root_folder

SIDE = 32  # pixels
PIXELS = 3 * SIDE * SIDE  # bytes of an image: a plane of red, one of green, one of blue
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_MOMENTS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))  # mean and deviation of the training pixels
CIFAR10_JPEG_MOMENTS = ((0.4913, 0.4821, 0.4465), (0.2452, 0.2428, 0.2606))
CIFAR100_MOMENTS = ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
JPEG_FILE = "cifar10_jpeg_c.npz"
CIFAR10_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))

Reader = Callable[[str], bytes]  # a file of a layout by name
Part = tuple[np.ndarray, np.ndarray]  # images, labels


def cifar10(root: str | os.PathLike[str] | None = None) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test pictures of ten kinds of things, 32 x 32 in colour.

    The first of these that ``root`` holds: ``cifar-10-batches-py/`` (pickles, read without running them),
    ``cifar-10-batches-bin/``, their archives ``cifar-10-python.tar.gz`` and ``cifar-10-binary.tar.gz``, the same where
    Keras puts them (``datasets/``, ``-target/``), and ``cifar10_jpeg_c.npz``, whose pictures went through JPEG: the set
    is then called "CIFAR-10 (JPEG)", and accuracies on it are not those of CIFAR-10. ``root`` is by default the
    environment variable CNNENGINE_DATA, or ``data``. Raises DataError.
    """
    folder = root_folder(root)
    if read := _find(folder, "cifar-10-batches-py", "cifar-10-python.tar.gz", "test_batch"):
        train = _join([_pickled(read, name, b"labels") for name in CIFAR10_TRAIN])
        return Dataset("CIFAR-10", *train, *_pickled(read, "test_batch", b"labels"), CIFAR10_CLASSES, *CIFAR10_MOMENTS)
    if read := _find(folder, "cifar-10-batches-bin", "cifar-10-binary.tar.gz", "test_batch.bin"):
        train = _join([_binary(read, f"{name}.bin", 1, 0) for name in CIFAR10_TRAIN])
        test = _binary(read, "test_batch.bin", 1, 0)
        return Dataset("CIFAR-10", *train, *test, CIFAR10_CLASSES, *CIFAR10_MOMENTS)
    if (path := folder / JPEG_FILE).is_file():
        return _jpeg(path)
    raise DataError(
        f"CIFAR-10 is not in {folder}: expected cifar-10-batches-py/, cifar-10-batches-bin/, cifar-10-python.tar.gz,"
        f" cifar-10-binary.tar.gz or {JPEG_FILE} there"
    )


def cifar100(root: str | os.PathLike[str] | None = None, *, coarse: bool = False) -> Dataset:
    """CIFAR-100: 50,000 training and 10,000 test pictures of a hundred kinds of things, 32 x 32 in colour.

    From ``cifar-100-python/``, ``cifar-100-binary/`` or their archives; ``root`` and errors as for ``cifar10``.
    ``coarse`` takes the 20 groups for labels instead of the 100 kinds.
    """
    folder = root_folder(root)
    kind = "coarse" if coarse else "fine"
    if read := _find(folder, "cifar-100-python", "cifar-100-python.tar.gz", "test"):
        names = read_pickle(read("meta"), "meta").get(f"{kind}_label_names".encode(), [])
        parts = [_pickled(read, name, f"{kind}_labels".encode()) for name in ("train", "test")]
        classes = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)
    elif read := _find(folder, "cifar-100-binary", "cifar-100-binary.tar.gz", "test.bin"):
        parts = [_binary(read, f"{name}.bin", 2, 0 if coarse else 1) for name in ("train", "test")]
        classes = tuple(read(f"{kind}_label_names.txt").decode().split())
    else:
        raise DataError(
            f"CIFAR-100 is not in {folder}: expected cifar-100-python/, cifar-100-binary/ or their .tar.gz there"
        )
    return Dataset("CIFAR-100", *parts[0], *parts[1], classes, *CIFAR100_MOMENTS)


def _find(root: Path, name: str, archive: str, member: str) -> Reader | None:
    """How to read a file of the layout ``name``, in a folder of that name or in its archive; None without either."""
    for place in (root, root / "datasets"):
        for folder in (place / name, place / f"{name}-target" / name):
            if (folder / member).is_file():
                return lambda file, folder=folder: _read(folder / file)  # type: ignore[misc]
        for path in (place / archive, place / f"{name}.tar.gz"):
            if path.is_file():
                return _unpacked(path, name).__getitem__
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Members(dict[str, bytes]):
    def __init__(self, path: Path) -> None:
        self.path = path

    def __missing__(self, name: str) -> bytes:
        raise DataError(f"{self.path}: holds no file {name}")


def _unpacked(path: Path, folder: str) -> _Members:
    """The plain files of ``folder`` in an archive, in memory. Nothing is written to disk."""
    members = _Members(path)
    try:
        with tarfile.open(path) as archive:
            for entry in archive:
                parent, _, name = entry.name.rpartition("/")
                file = archive.extractfile(entry) if entry.isreg() and parent in (folder, f"./{folder}") else None
                if file is not None:
                    members[name] = file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path}: truncated or corrupt archive: {error}") from error
    return members


def _pickled(read: Reader, name: str, labels: bytes) -> Part:
    batch: Any = read_pickle(read(name), name)
    if not isinstance(batch, dict):
        raise DataError(f"{name}: expected a dictionary, found {type(batch).__name__}")
    batch = {key if isinstance(key, bytes) else str(key).encode(): value for key, value in batch.items()}
    images, numbers = batch.get(b"data"), batch.get(labels)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != PIXELS:
        what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"{name}: 'data' must be an array of uint8 (N, {PIXELS}), found {what}")
    if not isinstance(numbers, list) or not all(isinstance(n, int) for n in numbers):
        raise DataError(f"{name}: {labels.decode()!r} must be a list of ints")
    return _from_planes(images), np.array(numbers, np.int64)


def _binary(read: Reader, name: str, labels: int, chosen: int) -> Part:
    """Records of ``labels`` bytes of labels, of which number ``chosen`` is taken, and the pixels."""
    content, record = read(name), labels + PIXELS
    if not content or len(content) % record:
        raise DataError(f"{name}: truncated: records of {record} bytes expected, {len(content)} bytes found")
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return _from_planes(rows[:, labels:]), rows[:, chosen].astype(np.int64)


def _from_planes(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))


def _join(parts: list[Part]) -> Part:
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _jpeg(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        classes = tuple(str(name) for name in arrays["classes"])
        train, test = (
            _streams(f"{path}: {part} image", arrays[f"jpeg_{part}"], arrays[f"offset_{part}"], arrays[f"label_{part}"])
            for part in ("train", "test")
        )
    except DataError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not the file of JPEG streams that was expected: {error}") from error
    return Dataset("CIFAR-10 (JPEG)", *train, *test, classes, *CIFAR10_JPEG_MOMENTS)


def _streams(name: str, jpeg: np.ndarray, offset: np.ndarray, label: np.ndarray) -> Part:
    """JPEG streams end to end: image i is ``jpeg[offset[i]:offset[i + 1]]``."""
    if len(offset) != len(label) + 1 or (np.diff(offset) < 0).any() or offset[0] < 0 or offset[-1] > len(jpeg):
        raise DataError(f"{name}s: the offsets do not fit {len(label)} labels and {len(jpeg)} bytes")
    images = np.empty((len(label), SIDE, SIDE, 3), np.uint8)
    for i in range(len(label)):
        image = np.asarray(decode(jpeg[offset[i] : offset[i + 1]].tobytes(), f"{name} {i}"))
        if image.shape != images.shape[1:]:
            raise DataError(f"{name} {i}: {images.shape[1:]} expected, {image.shape} found")
        images[i] = image
    return images, label.astype(np.int64)
