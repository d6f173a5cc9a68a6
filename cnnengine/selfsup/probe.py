"""How good features are: what a linear layer, or the nearest neighbours, can tell from them alone."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from .. import random
from ..autograd import no_grad
from ..nn import Linear
from ..optim import Adam, schedule
from ..tensor import Tensor

STEPS, BATCH = 2000, 512  # of the linear layer
RATE, DECAY = 1e-2, 1e-3
NEIGHBOURS, TEMPERATURE = 20, 0.1
ROWS = 1000  # compared with all training features at once


def linear_probe(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, *, steps: int = STEPS, seed: int = 0
) -> np.ndarray:
    """The classes (M,) that a linear layer predicts of features ``test`` (M, D), trained on ``train`` (N, D) float32
    with ``labels`` (N,): the features brought to mean 0 and deviation 1, ``steps`` steps of Adam at a rate that falls
    from 0.01 to 0 along a cosine, weight decay 0.001, batches of at most 512. Computes on the host's backend.
    Raises ValueError for arrays that do not fit."""
    _check("linear_probe", train, labels, test)
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, test = ((x - mean) / std for x in (train, test))
    state = random.get_state()
    random.manual_seed(seed)  # the weights' start does not depend on what was computed before, nor changes what follows
    layer = Linear(train.shape[1], classes)
    random.set_state(state)
    optimizer, rng = Adam(layer.parameters(), RATE, weight_decay=DECAY), np.random.default_rng(seed)
    for step in range(steps):
        rows = rng.integers(len(train), size=min(BATCH, len(train)))
        loss = F.cross_entropy(layer(Tensor(train[rows])), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = schedule.cosine(RATE, step, steps)
        optimizer.step()
    with no_grad():
        predicted: np.ndarray = layer(Tensor(test)).numpy().argmax(1)
    return predicted


def k_nearest(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    classes: int,
    *,
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """The classes (M,) of features ``test`` (M, D) by the votes of the ``k`` most similar of ``train`` (N, D): each
    counts exp(cosine similarity / temperature). Nothing is trained. Raises ValueError for arrays that do not fit.

    Wu, Xiong, Yu, Lin: Unsupervised feature learning via non-parametric instance discrimination, CVPR 2018,
    section 3.4.
    """
    _check("k_nearest", train, labels, test)
    if k < 1 or not temperature > 0:
        raise ValueError(f"k_nearest: k must be at least 1 and temperature above 0, received {k} and {temperature}")
    k = min(k, len(train))
    known, asked = (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) for x in (train, test))
    predicted = []
    for start in range(0, len(asked), ROWS):
        similarity = asked[start : start + ROWS] @ known.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weight = np.exp((np.take_along_axis(similarity, nearest, 1) - 1) / temperature)
        votes = np.zeros((len(similarity), classes))
        np.add.at(votes, (np.arange(len(similarity))[:, np.newaxis], labels[nearest]), weight)
        predicted.append(votes.argmax(1))
    return np.concatenate(predicted)


def labelled_share(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """The rows, in rising order, of a random share of each class, of at least one row. Raises ValueError for a share
    outside (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"labelled_share: share must lie in (0, 1], received {share}")
    rng, rows = np.random.default_rng(seed), []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        rows.append(rng.permutation(own)[: max(1, round(share * len(own)))])
    return np.sort(np.concatenate(rows))


def _check(operation: str, train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> None:
    if (
        train.ndim != 2
        or test.ndim != 2
        or train.shape[1:] != test.shape[1:]
        or len(labels) != len(train)
        or not len(train)
    ):
        raise ValueError(
            f"{operation}: features (N, D), labels (N,) and features (M, D) expected, received {train.shape},"
            f" {labels.shape} and {test.shape}"
        )
