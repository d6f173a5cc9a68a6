"""A network without its last layer: what is left gives features of a picture instead of scores of classes."""

from __future__ import annotations

import numpy as np

from ..autograd import no_grad
from ..data import Dataset, batches
from ..models import create
from ..nn import Identity, Linear, Module
from ..tensor import Tensor

BATCH = 500  # images whose features are computed at once


def headless(model: Module) -> int:
    """Takes a network's last linear layer away, for good; how many features came into it. Raises ValueError for a
    network that has none."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, Linear)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear layer, so no head to take away")
    name, layer = layers[-1]
    path, _, leaf = name.rpartition(".")
    setattr(dict(model.named_modules())[path], leaf, Identity())
    return layer.weight.shape[1]


def encoder(name: str) -> tuple[Module, int]:
    """The network of that name without its head, freshly initialised, and how many features it gives. Raises
    ValueError."""
    model = create(name)
    return model, headless(model)


def features(model: Module, dataset: Dataset, images: np.ndarray) -> np.ndarray:
    """(N, D) float32 of images uint8 (N, H, W, C), in evaluation mode on the active backend of the model's device."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    with no_grad():
        walk = batches(images, np.zeros(len(images)), BATCH)
        found = [model(Tensor(dataset.normalize(part)).to(device)).numpy() for part, _ in walk]
    model.train(training)
    return np.concatenate(found)
