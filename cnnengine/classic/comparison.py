"""Methods designed by hand beside networks, all on the same disturbed test images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..backends.registry import use_backend
from ..data import Dataset
from ..models import registry
from ..nn import Module
from ..training import RunFolder, Settings, Trainer, evaluate
from . import model as classic

AUGMENTED = "+augment"  # behind a network's name
AUGMENT = ("affine", "darken")  # turned by up to 30 degrees, scaled by 0.7 to 1.3, moved by a tenth, darkened to 0.15


@dataclass(frozen=True, slots=True)
class Row:
    """How a method did on one test set: of ``images`` the share ``accuracy`` was right."""

    method: str
    test_set: str
    images: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A method that has learned: its size in numbers, how long it took in seconds, and its accuracy in [0, 1] on images
    uint8 (N, H, W, C) with labels (N,)."""

    method: str
    parameters: int
    seconds: float
    accuracy: Callable[[np.ndarray, np.ndarray], float]


def known_methods() -> tuple[str, ...]:
    """The features of ``cnnengine.classic`` and the networks, each of which also takes "+augment" behind its name."""
    return (*classic.names(), *registry.names())


def check_method(name: str) -> None:
    """Raises ValueError for a name that is no method's, listing them."""
    if name not in known_methods() and name.removesuffix(AUGMENTED) not in registry.names():
        raise ValueError(
            f"there is no method {name!r}; there are {', '.join(classic.names())} with a linear SVM, and the networks"
            f" {', '.join(sorted(registry.names()))}, also with {AUGMENTED} behind the name"
        )


def default_methods(dataset: Dataset) -> tuple[str, ...]:
    """HOG and the networks for such images: LeNet-5 with and without augmentation for 28 x 28 grey, and ResNet-20."""
    lenet = ("lenet5", f"lenet5{AUGMENTED}")
    return ("hog", *(lenet if dataset.train_images.shape[1:] == registry.entry("lenet5").image else ()), "resnet20")


def settings_of(method: str, data: str, *, epochs: int, seed: int, backend: str) -> Settings:
    """How a network is trained: Adam at 1e-3, batches of 64, as few epochs as are asked for, no weight decay."""
    return Settings(
        model=method.removesuffix(AUGMENTED),
        data=data,
        epochs=epochs,
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        schedule="constant",
        seed=seed,
        backend=backend,
        augment=AUGMENT if method.endswith(AUGMENTED) else (),
    )


def check_network(settings: Settings, dataset: Dataset) -> None:
    """Raises DataError where the network does not take the images; nothing is written."""
    Trainer(settings, as_seen(dataset, registry.entry(settings.model).image[2]), RunFolder("."))


def train_network(
    settings: Settings,
    method: str,
    dataset: Dataset,
    folder: RunFolder,
    *,
    resume: bool = False,
    report: Callable[[str], object] = print,
) -> Trained:
    """A network that is trained, with ``resume`` on from the folder's checkpoint if there is one. Grey images have
    three equal channels where it takes colour. Raises DataError where it does not take the images, Interrupted after
    Ctrl-C."""
    channels = registry.entry(settings.model).image[2]
    seen = as_seen(dataset, channels)
    resume = resume and folder.checkpoint.is_file()
    trainer = Trainer(settings, seen, folder, resume=resume)
    if not resume:
        folder.prepare()
        for left in (folder.checkpoint, folder.model):  # of another comparison
            left.unlink(missing_ok=True)
    trainer.run(report)
    network: Module = trainer.model.eval()

    def accuracy(images: np.ndarray, labels: np.ndarray) -> float:
        with use_backend(settings.backend):
            return evaluate(network, seen, in_channels(images, channels), labels)[1]

    return Trained(method, sum(p.size for p in network.parameters()), trainer.progress.seconds, accuracy)


def fit_classic(method: str, dataset: Dataset) -> Trained:
    """Features of ``cnnengine.classic`` with a linear SVM. Raises ImportError without the libraries, DataError."""
    began = time.monotonic()
    fitted = classic.create(method).fit(dataset)

    def accuracy(images: np.ndarray, labels: np.ndarray) -> float:
        return evaluate(fitted, dataset, images, labels)[1]

    return Trained(method, fitted.size, time.monotonic() - began, accuracy)


def score(
    trained: Trained,
    test_sets: Mapping[str, np.ndarray],
    labels: np.ndarray,
    report: Callable[[Row], object] = lambda row: None,
) -> list[Row]:
    """The method's accuracy on each test set."""
    rows = []
    for name, images in test_sets.items():
        rows.append(Row(trained.method, name, len(labels), trained.accuracy(images, labels)))
        report(rows[-1])
    return rows


def as_seen(dataset: Dataset, channels: int) -> Dataset:
    """The data set, its grey images with as many equal channels."""
    return replace(
        dataset,
        train_images=in_channels(dataset.train_images, channels),
        test_images=in_channels(dataset.test_images, channels),
    )


def in_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Grey images with as many equal channels; others, and grey ones where one is asked for, as they are."""
    return np.repeat(images, channels, axis=3) if images.shape[3] == 1 else images
