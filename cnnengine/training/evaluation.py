"""How good a model is: loss, accuracies and the classes predicted for a part of a data set."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .. import functional as F
from ..autograd import no_grad
from ..data import Dataset, batches
from ..nn import Module
from ..tensor import Tensor
from .interrupt import Interrupted

EVALUATION_BATCH = 500  # images
LARGE = 64 * 64  # numbers of an image: larger ones are evaluated in the batches of training
TOP = 5


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss, accuracies in [0, 1], and for each image its label and the class predicted, (N,) int64."""

    loss: float
    accuracy: float
    top5: float
    labels: np.ndarray
    predictions: np.ndarray


class Scorer(Protocol):
    """What scores classes and is no network, such as the models of ``cnnengine.classic``."""

    def scores(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32 of images uint8 (N, H, W, C); the largest is the class that is predicted."""


def evaluate_batches(
    model: Module,
    walk: Iterable[tuple[np.ndarray, np.ndarray]],
    normalize: Callable[[np.ndarray], np.ndarray],
    stop: Callable[[], signal.Signals | None] = lambda: None,
) -> Evaluation:
    """Evaluates the batches of ``walk`` on the active backend of the model's device, in the model's mode.

    ``top5`` is the share of images whose label is among the five likeliest classes, all of them where there are fewer.
    Raises Interrupted where ``stop()`` names a signal between two batches.
    """
    device = next(model.parameters()).device
    return _evaluate(lambda images: model(Tensor(normalize(images)).to(device)), walk, stop)


def evaluate_scores(scorer: Scorer, walk: Iterable[tuple[np.ndarray, np.ndarray]]) -> Evaluation:
    """The same of what is no network; the loss takes its scores for logits."""
    return _evaluate(lambda images: Tensor(scorer.scores(images)), walk)


def _evaluate(
    logits_of: Callable[[np.ndarray], Tensor],
    walk: Iterable[tuple[np.ndarray, np.ndarray]],
    stop: Callable[[], signal.Signals | None] = lambda: None,
) -> Evaluation:
    losses, among, labels, predicted = 0.0, 0, [], []
    with no_grad():
        for images, y in walk:
            logits = logits_of(images)
            losses += F.cross_entropy(logits, y, reduction="sum").item()
            scores = logits.numpy()
            predicted.append(scores.argmax(1))
            labels.append(y)
            among += in_top(scores, y)
            if by := stop():
                raise Interrupted(by)
    known, classes = np.concatenate(labels), np.concatenate(predicted)
    return Evaluation(losses / len(known), float((classes == known).mean()), among / len(known), known, classes)


def in_top(scores: np.ndarray, labels: np.ndarray, k: int = TOP) -> int:
    """How many rows of ``scores`` (N, classes) have fewer than ``k`` scores above that of their label."""
    own = scores[np.arange(len(labels)), labels][:, np.newaxis]
    return int(((scores > own).sum(1) < k).sum() - np.isnan(own).sum())


def evaluate(
    model: Module | Scorer, dataset: Dataset, images: np.ndarray, labels: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Mean loss, accuracy in [0, 1], and the predicted classes (N,) of uint8 images (N, H, W, C)."""
    walk = batches(images, labels, EVALUATION_BATCH)
    if isinstance(model, Module):
        result = evaluate_batches(model, walk, dataset.normalize)
    else:
        result = evaluate_scores(model, walk)
    return result.loss, result.accuracy, result.predictions


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) int64: row true, column predicted."""
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)
