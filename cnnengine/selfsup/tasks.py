"""Tasks that need no labels. Each has an ``encoder``, which is kept, and what helps it to learn, which is not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from ..data import Dataset, transforms
from ..nn import Linear, Module, ReLU, Sequential
from ..tensor import Tensor
from .encoder import encoder
from .losses import nt_xent
from .views import apart, simclr_views

Transform = Callable[[Any, np.random.Generator], Any]


class Task(Module):
    """``encoder`` gives (N, width) of images (N, H, W, C); ``transform`` is what happens to each picture of a batch
    before ``loss``, None for nothing."""

    encoder: Module
    width: int
    transform: Transform | None = None

    @abstractmethod
    def loss(
        self, images: np.ndarray, normalize: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
    ) -> Tensor:
        """The mean loss of a batch of transformed images uint8; ``rng`` has the batch's own random numbers."""

    @property
    def device(self) -> str:
        """Where the parameters are."""
        return next(self.parameters()).device


class SimCLR(Task):
    """Two views of a picture must have features that are more alike than those of any two pictures (``nt_xent``).

    They are compared behind a projection head of two layers, which is thrown away: it may forget what the views do not
    share, such as colour, while the features in front of it keep it. Chen et al. 2020, sections 2.1 and 4.2.
    """

    def __init__(self, model: str, dataset: Dataset, temperature: float = 0.5, projection: int = 128) -> None:
        super().__init__()
        self.encoder, self.width = encoder(model)
        self.head = Sequential(Linear(self.width, self.width), ReLU(), Linear(self.width, projection))
        self.temperature = temperature
        _, height, width, channels = dataset.train_images.shape
        self.transform = simclr_views((height, width), channels)

    def loss(
        self, images: np.ndarray, normalize: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
    ) -> Tensor:
        views = Tensor(normalize(apart(images))).to(self.device)
        return nt_xent(self.head(self.encoder(views)), self.temperature)


class Rotation(Task):
    """By how many right angles was the picture turned? To tell, a network must know what stands upright.

    Each picture is seen turned by 0, 90, 180 and 270 degrees, and the four are classes. Gidaris, Singh, Komodakis:
    Unsupervised representation learning by predicting image rotations, ICLR 2018. Raises ValueError for pictures that
    are not square.
    """

    def __init__(self, model: str, dataset: Dataset) -> None:
        super().__init__()
        _, height, width, channels = dataset.train_images.shape
        if height != width:
            raise ValueError(f"Rotation: pictures must be square, those of {dataset.name} are {height} x {width}")
        self.encoder, self.width = encoder(model)
        self.head = Linear(self.width, 4)
        crop = transforms.RandomCrop()
        self.transform = transforms.Compose(crop, transforms.HorizontalFlip()) if channels == 3 else crop

    def loss(
        self, images: np.ndarray, normalize: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
    ) -> Tensor:
        turned = Tensor(normalize(four_turns(images))).to(self.device)
        return F.cross_entropy(self.head(self.encoder(turned)), np.repeat(np.arange(4), len(images)))


def four_turns(images: np.ndarray) -> np.ndarray:
    """(4N, H, W, C): all images (N, H, W, C), then all turned by 90 degrees counter-clockwise, by 180, by 270."""
    return np.concatenate([np.rot90(images, turns, axes=(1, 2)) for turns in range(4)])
