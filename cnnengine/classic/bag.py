"""A bag of features: a picture as a count of visual words, which are typical pieces of pictures.

Csurka, Dance, Fan, Willamowski, Bray: Visual categorization with bags of keypoints (2004). The squares in which words
are counted apart: Lazebnik, Schmid, Ponce: Beyond bags of features, CVPR 2006.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np

from ._library import library
from .hog import HOG
from .images import checked, grey

Descriptor = Literal["dense", "sift"]
MOST = 100_000  # descriptors of which words are made
SIFT_NUMBERS = 128


class BagOfFeatures:
    """How often each of ``words`` visual words is in each of ``grid`` x ``grid`` parts of a picture.

    Words are the centres of k-means clusters of descriptors of the training images (``fit``). ``descriptor`` is
    "dense", a block of HOG at every 4 pixels, or "sift", the scale-invariant feature transform at the points that it
    finds (Lowe: Distinctive image features from scale-invariant keypoints, IJCV 60, 2004). The counts of a part are
    scaled to the sum 1, and the root is taken, which lets common words weigh less. ``seed`` decides which descriptors
    the words are made of, and where k-means starts.
    """

    def __init__(
        self, words: int = 200, descriptor: Descriptor = "dense", grid: int = 2, hog: HOG | None = None, seed: int = 0
    ) -> None:
        if descriptor not in ("dense", "sift"):
            raise ValueError(f"BagOfFeatures: descriptor must be 'dense' or 'sift', received {descriptor!r}")
        for name, value in (("words", words), ("grid", grid)):
            if value < 1:
                raise ValueError(f"BagOfFeatures: {name} must be at least 1, received {value}")
        self.words = words
        self.descriptor = descriptor
        self.grid = grid
        self.hog = hog or HOG()
        self.seed = seed
        self._clusters: Any = None

    @property
    def vocabulary(self) -> np.ndarray:
        """The words: (words, numbers of a descriptor) float32. Raises ValueError before ``fit``."""
        if self._clusters is None:
            raise ValueError("BagOfFeatures: fit the bag to training images first")
        return np.asarray(self._clusters.cluster_centers_, np.float32)

    def fit(self, images: np.ndarray) -> None:
        """Makes the words of the descriptors of images uint8 (N, H, W, C), at most 100,000 of them, drawn at random.
        Raises ValueError where there are fewer descriptors than words."""
        rng = np.random.default_rng(self.seed)
        found, _, _ = self.describe(images)
        if len(found) < self.words:
            raise ValueError(f"BagOfFeatures: {self.words} words need as many descriptors, {len(found)} found")
        found = found[rng.permutation(len(found))[:MOST]]
        clusters = library("sklearn.cluster").MiniBatchKMeans(
            self.words, random_state=self.seed, n_init=3, batch_size=4096
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Number of distinct clusters")  # a word that is there twice
            self._clusters = clusters.fit(found)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, grid * grid * words) float32 of images uint8 (N, H, W, C). Raises ValueError before ``fit``."""
        words, parts = len(self.vocabulary), self.grid**2
        found, owners, places = self.describe(images)
        counts = np.zeros((len(images), parts, words))
        if len(found):
            part = (places * self.grid).astype(np.int64).clip(0, self.grid - 1)
            np.add.at(counts, (owners, part[:, 0] * self.grid + part[:, 1], self._clusters.predict(found)), 1)
        counts /= counts.sum(2, keepdims=True).clip(1)
        return np.sqrt(counts).reshape(len(images), -1).astype(np.float32)

    def describe(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All descriptors (M, D) float32 of images uint8 (N, H, W, C); for each the number of its image (M,), and where
        in it (M, 2): row and column as shares in [0, 1) of its height and width."""
        images = checked("BagOfFeatures", images)
        return self._blocks(images) if self.descriptor == "dense" else _keypoints(images)

    def _blocks(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        blocks = self.hog.blocks(images)
        n, rows, columns, numbers = blocks.shape
        middle = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), 2)
        middle = (middle + self.hog.block / 2) * self.hog.cell / np.array(images.shape[1:3])
        return (
            blocks.reshape(-1, numbers),
            np.repeat(np.arange(n), rows * columns),
            np.tile(middle.reshape(-1, 2), (n, 1)),
        )


def _keypoints(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """SIFT's; there may be none in a picture."""
    feature = library("skimage.feature")
    found, owners, places = [np.empty((0, SIFT_NUMBERS), np.float32)], [], [np.empty((0, 2))]
    for number, image in enumerate(grey(images)):
        sift = feature.SIFT()
        try:
            sift.detect_and_extract(image)
        except RuntimeError:  # it finds no features
            continue
        found.append(sift.descriptors.astype(np.float32) / 255)
        places.append(sift.keypoints / image.shape)
        owners += [number] * len(sift.descriptors)
    return np.concatenate(found), np.array(owners, np.int64), np.concatenate(places)
