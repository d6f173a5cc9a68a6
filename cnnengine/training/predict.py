"""Using trained weights on pictures: those of a run of ours, or those of a known network from a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..autograd import no_grad
from ..backends.registry import use_backend
from ..data import imagenet_classes, load_digit
from ..data.decode import decode
from ..data.preprocessing import Preprocessing
from ..data.sets import DIGITS, MNIST
from ..errors import DataError
from ..models import registry
from ..nn import Module
from ..serialize import load_torch, load_with_metadata
from .run import METADATA, RunFolder, first_fault

DEFAULT = {"model": "lenet5", "classes": DIGITS, "mean": MNIST.mean, "std": MNIST.std}  # weights without a description
BATCH = 16  # pictures at once
OURS = ".safetensors"
SHOWN = 3  # names of one kind that do not fit


class Guess(NamedTuple):
    """A class, by its number among the network's outputs and by its name, and the probability that it is it."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Classifier:
    """A trained network in evaluation mode, the names of its classes, and how a file becomes its input: ``read`` makes
    (H, W, C) uint8 of one, normalised by ``mean`` and ``std``."""

    model: Module
    classes: Sequence[str]
    read: Callable[[str], np.ndarray]
    mean: float | Sequence[float]
    std: float | Sequence[float]


def classify(classifier: Classifier, images: Sequence[str], backend: str, top: int) -> Iterator[list[Guess]]:
    """For each image file the ``top`` likeliest classes, the likeliest first. The network is fused, for good. Raises
    DataError for files that are missing or corrupt."""
    with use_backend(backend) as kernels, no_grad():
        model = classifier.model.to(kernels.device).fuse()
        for start in range(0, len(images), BATCH):
            pictures = np.stack([classifier.read(image) for image in images[start : start + BATCH]])
            x = F.normalize_images(kernels.to_device(pictures), classifier.mean, classifier.std)
            for row in F.softmax(model(x)).numpy():
                best = np.argsort(-row, kind="stable")[:top]
                yield [Guess(int(c), classifier.classes[c], float(row[c])) for c in best]


def from_run(path: str | os.PathLike[str]) -> Classifier:
    """What a run trained: ``path`` is its folder, or a .safetensors file of its weights. Raises DataError."""
    path = Path(path)
    if path.is_dir():
        path = RunFolder(path).model
    arrays, metadata = load_with_metadata(path)
    facts: dict[str, Any] = DEFAULT | _description(path, metadata)
    try:
        name = str(facts["model"])
        model = registry.create(name, num_classes=len(facts["classes"]))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: holds no model that this version of cnnengine knows: {error!r}") from error
    return _classifier(path, name, model, arrays, facts)


def from_network(name: str, weights: str | os.PathLike[str]) -> Classifier:
    """The network of that name with weights from a .safetensors file, of ours or with PyTorch's order of axes, or from
    a PyTorch checkpoint. Classes that the file does not name are ImageNet's, or "0", "1", ... Raises DataError."""
    path = Path(weights)
    if path.suffix == OURS:
        arrays, metadata = load_with_metadata(path)
        facts = _description(path, metadata)
    else:
        arrays, facts = load_torch(path), {}
    options = {"num_classes": len(facts["classes"])} if "classes" in facts else {}
    model = registry.create(name, **options)
    expected = {key: value.shape for key, value in model.state_dict().items()}
    if path.suffix == OURS and not _fits(arrays, expected):
        turned = load_torch(arrays)
        arrays = turned if _fits(turned, expected) else arrays
    return _classifier(path, name, model, arrays, facts)


def _description(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """What our trainer says of the weights in their file; nothing in files of others."""
    try:
        facts = json.loads(metadata.get(METADATA, "{}"))
        for key in ("mean", "std"):
            if key in facts:
                value = facts[key]
                facts[key] = tuple(map(float, value)) if isinstance(value, list) else float(value)
        if "classes" in facts:
            facts["classes"] = tuple(map(str, facts["classes"]))
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: holds no model that this version of cnnengine knows: {error!r}") from error
    return facts  # type: ignore[no-any-return]


def _fits(arrays: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]) -> bool:
    """Whether those arrays that are asked for have the right shape."""
    return all(arrays[name].shape == shape for name, shape in expected.items() if name in arrays)


def _misfit(arrays: dict[str, np.ndarray], model: Module) -> str:
    """Which names are missing, unexpected and of another shape: how many of each, and the first."""
    own = {name: value.shape for name, value in model.state_dict().items()}
    kinds = {
        "missing": [name for name in own if name not in arrays],
        "unexpected": [name for name in arrays if name not in own],
        "of another shape": [name for name in own if name in arrays and arrays[name].shape != own[name]],
    }
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for kind, names in kinds.items()
        if names
    )


def _classifier(
    path: Path, name: str, model: Module, arrays: dict[str, np.ndarray], facts: dict[str, Any]
) -> Classifier:
    """The model with its weights, and what is known of its images."""
    try:
        model.load_state_dict(arrays)
    except (ValueError, TypeError) as error:
        faults = _misfit(arrays, model) or first_fault(error)
        raise DataError(f"{path}: these are not the weights of {name}: {faults}") from error
    outputs = list(model.parameters())[-1].shape[0]
    known = imagenet_classes()
    names = known if outputs == len(known) else tuple(map(str, range(outputs)))
    classes: Sequence[str] = facts.get("classes") or names
    entry = registry.entry(name)
    preprocessing = entry.preprocessing
    if preprocessing is None:  # grey: digits
        mean, std = facts.get("mean", MNIST.mean), facts.get("std", MNIST.std)
        return Classifier(model.eval(), classes, load_digit, mean, std)
    given = {key: facts[key] for key in ("mean", "std") if key in facts}
    preprocessing = replace(preprocessing, **given)
    return Classifier(model.eval(), classes, _reader(preprocessing), preprocessing.mean, preprocessing.std)


def _reader(preprocessing: Preprocessing) -> Callable[[str], np.ndarray]:
    return lambda path: preprocessing(decode(path, path))
