"""Using trained weights on pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import no_grad
from ..backends.registry import use_backend
from ..data import load_digit, normalize
from ..data.sets import DIGITS, MNIST
from ..errors import DataError
from ..models import create
from ..nn import Module
from ..serialize import load_with_metadata
from ..tensor import Tensor
from .run import METADATA, RunFolder, first_fault

DEFAULT = {"model": "lenet5", "classes": DIGITS, "mean": MNIST.mean, "std": MNIST.std}  # weights without a description


def predict(
    path: str | os.PathLike[str], images: list[str], backend: str, top: int = 3
) -> list[list[tuple[str, float]]]:
    """For each image file the ``top`` classes with their probabilities, the likeliest first.

    ``path`` is a .safetensors file of weights or a run folder. Raises DataError for files that are missing or corrupt.
    """
    pictures = np.stack([load_digit(image) for image in images])
    with use_backend(backend) as kernels, no_grad():
        model, facts = load_model(path)
        model.to(kernels.device).freeze()
        x = Tensor(normalize(pictures, facts["mean"], facts["std"])).to(kernels.device)
        probability = F.softmax(model(x)).numpy()
    order = np.argsort(-probability, axis=1, kind="stable")[:, :top]
    return [[(facts["classes"][c], float(row[c])) for c in best] for row, best in zip(probability, order, strict=True)]


def load_model(path: str | os.PathLike[str]) -> tuple[Module, dict[str, Any]]:
    """A trained model in evaluation mode, and its "model", "classes", "mean" and "std". Raises DataError."""
    path = Path(path)
    if path.is_dir():
        path = RunFolder(path).model
    arrays, metadata = load_with_metadata(path)
    try:
        facts = DEFAULT | json.loads(metadata.get(METADATA, "{}"))
        facts |= {"mean": float(facts["mean"]), "std": float(facts["std"])}
        model = create(facts["model"], num_classes=len(facts["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: holds no model that this version of cnnengine knows: {error!r}") from error
    try:
        model.load_state_dict(arrays)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: these are not the weights of {facts['model']}: {first_fault(error)}") from error
    return model.eval(), facts
