"""MNIST and Fashion-MNIST in torchvision's folder layout, and the digits that come with the package."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .download import fetch
from .idx import read_idx

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(frozen=True, slots=True)
class IdxSet:
    """Where a set of four IDX files lies, and the SHA-256 of each file once unpacked."""

    title: str
    folder: str
    classes: tuple[str, ...]
    mean: float
    std: float
    mirrors: tuple[str, ...]
    sha256: dict[str, str]


MNIST = IdxSet(
    title="MNIST",
    folder="MNIST",
    classes=DIGITS,
    mean=0.1307,
    std=0.3081,
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
FASHION_MNIST = IdxSet(
    title="Fashion-MNIST",
    folder="FashionMNIST",
    classes=CLOTHES,
    mean=0.2860,
    std=0.3530,
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)


def mnist(root: str | os.PathLike[str] | None = None, *, download: bool = False) -> Dataset:
    """MNIST: 60,000 training and 10,000 test digits, 28 x 28 grey, from ``ROOT/MNIST/raw/*-ubyte[.gz]``.

    ``root`` is by default the environment variable CNNENGINE_DATA, or ``data``. ``download`` fetches files that are
    missing and checks their SHA-256. Raises DataError naming the place and the files expected there.
    """
    return _load(MNIST, root, download)


def fashion_mnist(root: str | os.PathLike[str] | None = None, *, download: bool = False) -> Dataset:
    """Fashion-MNIST: 60,000 training and 10,000 test pictures of ten kinds of clothes, 28 x 28 grey.

    From ``ROOT/FashionMNIST/raw/*-ubyte[.gz]``; ``root``, ``download`` and errors as for ``mnist``.
    """
    return _load(FASHION_MNIST, root, download)


def digits() -> Dataset:
    """The embedded set: 10,000 training and 2,000 test digits of MNIST, 1,000 and 200 a class, 28 x 28 grey.

    Training rows come from MNIST's training set, test rows from its test set. MNIST is by Yann LeCun, Corinna Cortes
    and Christopher J.C. Burges, made available under CC BY-SA 3.0; see ``cnnengine/data/digits.txt``.
    """
    packed = resources.files(__package__).joinpath("digits.npz").read_bytes()
    with np.load(io.BytesIO(packed), allow_pickle=False) as file:
        return Dataset(
            "digits",
            file["train_images"][..., np.newaxis],
            file["train_labels"].astype(np.int64),
            file["test_images"][..., np.newaxis],
            file["test_labels"].astype(np.int64),
            DIGITS,
            MNIST.mean,
            MNIST.std,
        )


def root_folder(root: str | os.PathLike[str] | None) -> Path:
    """``root``, or where it is None the environment variable CNNENGINE_DATA, or ``data``."""
    return Path(root if root is not None else os.environ.get("CNNENGINE_DATA") or "data")


def _load(source: IdxSet, root: str | os.PathLike[str] | None, download: bool) -> Dataset:
    folder = root_folder(root) / source.folder / "raw"
    missing = [name for name in source.sha256 if _find(folder, name) is None]
    if missing and download:
        try:
            for name in missing:
                fetch(source.title, source.mirrors, name, source.sha256[name], folder)
        except DataError as error:
            raise DataError(
                f"{error}; without a network, put {', '.join(missing)} into {folder}, each as it is or as .gz"
            ) from error
        missing = [name for name in source.sha256 if _find(folder, name) is None]
    if missing:
        raise DataError(
            f"{source.title} is not in {folder}: expected {', '.join(missing)} there, each as it is or as .gz"
            f" (torchvision's layout; any copy of {source.title} will do)"
        )
    train, test = _read_part(folder, "train"), _read_part(folder, "t10k")
    return Dataset(source.title, *train, *test, source.classes, source.mean, source.std)


def _read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(folder / str(_find(folder, f"{part}-images-idx3-ubyte")), rank=3)
    labels = read_idx(folder / str(_find(folder, f"{part}-labels-idx1-ubyte")), rank=1)
    return images[..., np.newaxis], labels.astype(np.int64)


def _find(folder: Path, name: str) -> str | None:
    return next((n for n in (name, f"{name}.gz") if (folder / n).is_file()), None)
