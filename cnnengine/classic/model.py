"""Features designed by hand and a linear support vector machine: how pictures were classified before networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from ..data import Dataset
from ..errors import DataError
from ._library import library
from .bag import BagOfFeatures
from .edges import Edges
from .hog import HOG
from .images import checked
from .lbp import LBP

TOGETHER = 1000  # images whose features are computed at once


class Features(Protocol):
    """What makes numbers of pictures: (N, H, W, C) uint8 -> (N, D) float32."""

    def fit(self, images: np.ndarray) -> object:
        """Learns from training images what there is to learn."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The numbers of each image."""


class Pixels:
    """The pixels themselves, in [0, 1]: what features are compared with."""

    def fit(self, images: np.ndarray) -> None:
        """Nothing is learned."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H * W * C) float32 of images uint8 (N, H, W, C)."""
        images = checked("Pixels", images)
        return images.reshape(len(images), -1).astype(np.float32) / 255


FEATURES: dict[str, Callable[[], Features]] = {
    "pixels": Pixels,
    "sobel": Edges,
    "canny": lambda: Edges("canny"),
    "lbp": LBP,
    "hog": HOG,
    "bag": BagOfFeatures,
    "sift": lambda: BagOfFeatures(descriptor="sift"),
}


def names() -> tuple[str, ...]:
    """The features that ``create`` knows."""
    return tuple(FEATURES)


def create(name: str) -> ClassicModel:
    """A linear support vector machine on the features of that name. Raises ValueError, listing the known ones."""
    if name not in FEATURES:
        raise ValueError(f"there are no features {name!r}; there are {', '.join(names())}")
    return ClassicModel(FEATURES[name]())


class ClassicModel:
    """``features`` of a picture, and a linear support vector machine that decides by them.

    The machine is scikit-learn's LinearSVC: for each class a plane between it and all others, by the squared hinge
    loss and ``c`` against the length of its normal. Fitting is deterministic. The model is used where a network is:
    ``cnnengine.training.evaluate(model, dataset, images, labels)``.
    """

    def __init__(self, features: Features, *, c: float = 0.1, tolerance: float = 1e-3, iterations: int = 2000) -> None:
        for name, value in (("c", c), ("tolerance", tolerance), ("iterations", iterations)):
            if not value > 0:
                raise ValueError(f"ClassicModel: {name} must be above 0, received {value}")
        self.features = features
        self._machine = {"C": c, "tol": tolerance, "max_iter": iterations}
        self._planes: tuple[np.ndarray, np.ndarray] | None = None
        self._image: tuple[int, ...] = ()

    def fit(self, dataset: Dataset) -> ClassicModel:
        """Learns from the training part of a data set in memory; gives itself. Raises DataError where a class has no
        training image, or there is one class alone."""
        images, labels = checked("ClassicModel.fit", dataset.train_images), dataset.train_labels
        count = np.bincount(labels, minlength=len(dataset.classes))
        if len(count) < 2 or not count.all():
            missing = [name for name, n in zip(dataset.classes, count, strict=True) if not n]
            reason = f"no training image of {', '.join(missing)}" if missing else "one class alone"
            raise DataError(f"{dataset.name}: a classifier needs images of two classes or more, there is {reason}")
        self.features.fit(images)
        machine = library("sklearn.svm").LinearSVC(dual=False, **self._machine)
        machine.fit(np.concatenate(list(self._walk(images, f"features of {dataset.name}"))), labels)
        normals, offsets = machine.coef_, machine.intercept_
        if len(count) == 2:  # scikit-learn keeps one plane then
            normals, offsets = np.concatenate([-normals, normals]), np.concatenate([-offsets, offsets])
        self._planes, self._image = (normals, offsets), images.shape[1:]
        return self

    @property
    def size(self) -> int:
        """How many numbers the planes have. Raises ValueError before ``fit``."""
        return sum(numbers.size for numbers in self._fitted())

    def scores(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32: how far each image lies on the class's side of its plane, as a share of the margin.
        ``images`` uint8 (N, H, W, C) of the size of the training images. Raises ValueError for others, and before
        ``fit``."""
        normals, offsets = self._fitted()
        images = checked("ClassicModel", images)
        if images.shape[1:] != self._image:
            raise ValueError(f"ClassicModel: fitted to images {self._image}, received {images.shape[1:]}")
        rows = [found @ normals.T + offsets for found in self._walk(images)]
        return np.concatenate(rows).astype(np.float32)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The class of each image: (N,) int64. Arguments and errors as for ``scores``."""
        classes: np.ndarray = self.scores(images).argmax(1)
        return classes

    def _fitted(self) -> tuple[np.ndarray, np.ndarray]:
        if self._planes is None:
            raise ValueError("ClassicModel: fit the model to a data set first")
        return self._planes

    def _walk(self, images: np.ndarray, title: str | None = None) -> Iterator[np.ndarray]:
        starts: Any = range(0, len(images), TOGETHER)
        if title is not None:
            starts = tqdm(starts, title, unit=f" x {TOGETHER} images", leave=False, disable=None)
        for start in starts:
            yield self.features(images[start : start + TOGETHER])
