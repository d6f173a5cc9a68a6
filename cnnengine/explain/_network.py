"""What every explanation asks of a network: its scores for a batch of images, and how the pixels move one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from .. import functional as F
from .._arguments import is_int
from ..autograd import no_grad
from ..nn import Module
from ..tensor import Tensor

BATCH = 16  # images at once, where a method looks at many
Score = Literal["probability", "logit"]


@contextmanager
def undisturbed(model: Module) -> Iterator[None]:
    """Within the block the network is in evaluation mode and its parameters want no gradient; as before behind it."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    for parameter, _ in wanted:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad = requires_grad


def one_image(what: str, x: Any) -> np.ndarray:
    """x, an array or Tensor, on the host. Raises ValueError unless it is one image (1, H, W, C)."""
    array = x.numpy() if isinstance(x, Tensor) else np.asarray(x)
    if array.ndim != 4 or array.shape[0] != 1 or not array.size:
        raise ValueError(f"{what}: expected one image (1, H, W, C), received {array.shape}")
    if array.dtype.kind != "f":
        raise TypeError(f"{what}: expected a normalised image of floats, received {array.dtype}")
    return array


def on_device(model: Module, array: np.ndarray, requires_grad: bool = False) -> Tensor:
    """The array as a Tensor where the network's parameters are."""
    parameter = next(iter(model.parameters()), None)
    tensor = Tensor(np.ascontiguousarray(array)).to("cpu" if parameter is None else parameter.device)
    tensor.requires_grad = requires_grad
    return tensor


def logits_of(what: str, model: Module, x: Tensor) -> Tensor:
    """model(x). Raises ValueError unless that is one row of scores an image."""
    y = model(x)
    if not isinstance(y, Tensor) or y.ndim != 2 or y.shape[0] != x.shape[0]:
        shape = y.shape if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{what}: expected a network with scores (N, classes), it gives {shape}")
    return y


def class_of(what: str, scores: np.ndarray, target: int | None) -> int:
    """The class that is asked for, or the likeliest by (1, classes) scores. Raises ValueError."""
    classes = scores.shape[1]
    if target is None:
        return int(scores[0].argmax())
    if not is_int(target) or not 0 <= target < classes:
        raise ValueError(f"{what}: target must be a class from 0 to {classes - 1}, received {target!r}")
    return int(target)


def likeliest(what: str, model: Module, x: np.ndarray, target: int | None) -> int:
    """The class ``target``, or where it is None what the network takes x (1, H, W, C) for. Raises ValueError."""
    with no_grad():
        return class_of(what, logits_of(what, model, on_device(model, x)).numpy(), target)


def scores(what: str, model: Module, images: np.ndarray, target: int, score: Score = "probability") -> np.ndarray:
    """(N,) float64: the probability or the logit of a class for each of the images, a few at a time."""
    if score not in ("probability", "logit"):
        raise ValueError(f"{what}: score must be 'probability' or 'logit', received {score!r}")
    found = []
    with no_grad():
        for start in range(0, len(images), BATCH):
            y = logits_of(what, model, on_device(model, images[start : start + BATCH]))
            found.append((F.softmax(y) if score == "probability" else y).numpy()[:, target].astype(np.float64))
    return np.concatenate(found)


def gradients(what: str, model: Module, images: np.ndarray, target: int) -> np.ndarray:
    """d logit / d pixel of each of a few images for a class, of their shape."""
    x = on_device(model, images, requires_grad=True)
    ascend(logits_of(what, model, x), target)
    if x.grad is None:
        raise ValueError(f"{what}: the scores do not depend on the image")
    found: np.ndarray = x.grad.numpy()
    return found


def ascend(logits: Tensor, target: int) -> None:
    """The backward pass of the sum of a class's logits."""
    wanted = np.zeros(logits.shape, logits.dtype)
    wanted[:, target] = 1
    logits.backward(Tensor(wanted).to(logits.device))


def in_batches(images: Callable[[int, int], np.ndarray], count: int) -> Iterator[np.ndarray]:
    """``images(start, end)`` for all of 0 to ``count``, a few at a time."""
    for start in range(0, count, BATCH):
        yield images(start, min(start + BATCH, count))
