"""Class activation maps: which places of a layer speak for a class. All give (P, Q), 0 or above, of the layer's size;
``resized`` brings them to the image's."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import no_grad
from ..nn import Module
from ..tensor import Tensor
from ._network import ascend, class_of, in_batches, likeliest, logits_of, on_device, one_image, scores, undisturbed
from .layers import feature_maps, last_maps, watching


def grad_cam(model: Module, x: Any, target: int | None = None, layer: str | None = None) -> np.ndarray:
    """ReLU of the sum of a layer's feature maps, each times its weight: the mean of the gradient of the class's logit
    over that map.

    ``layer`` as in ``feature_maps``; None is ``last_maps``. Raises ValueError for unknown layers and those that make no
    maps. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", arXiv
    1610.02391, equations 1 and 2.
    """
    maps, slope = _maps_and_gradient("grad_cam", model, x, target, layer)
    return _positive_sum(maps, slope.mean((0, 1)))


def grad_cam_plus_plus(model: Module, x: Any, target: int | None = None, layer: str | None = None) -> np.ndarray:
    """Grad-CAM whose weights are sums of the positive gradients g, each times a = g^2 / (2 g^2 + g^3 S), S the sum of
    its map; a is 0 where g is.

    Arguments as in ``grad_cam``. Chattopadhay, Sarkar, Howlader and Balasubramanian, "Grad-CAM++: improved visual
    explanations for deep convolutional networks", arXiv 1710.11063, equations 5 and 19: the score is exp(logit), whose
    constant factor leaves the map's shape alone and is left out.
    """
    maps, slope = _maps_and_gradient("grad_cam_plus_plus", model, x, target, layer)
    square = slope * slope
    below = 2 * square + square * slope * maps.sum((0, 1))
    share = np.divide(square, below, out=np.zeros_like(square), where=below != 0)
    return _positive_sum(maps, (share * np.maximum(slope, 0)).sum((0, 1)))


def score_cam(
    model: Module, x: Any, target: int | None = None, layer: str | None = None, *, channels: int | None = None
) -> np.ndarray:
    """Grad-CAM without a gradient: a map's weight is the softmax over all maps of the class's logit for x times the
    map, brought to x's size and to [0, 1].

    ``channels`` looks at that many maps alone, those of the largest mean: an approximation, for networks whose last
    layer has a thousand. Other arguments as in ``grad_cam``. Wang et al., "Score-CAM: score-weighted visual
    explanations for convolutional neural networks", arXiv 1910.01279, algorithm 1.
    """
    image = one_image("score_cam", x)
    layer = last_maps(model, image) if layer is None else layer
    maps = _pictures("score_cam", feature_maps(model, image, [layer])[layer], layer).astype(np.float64)
    if channels is not None:
        if channels < 1:
            raise ValueError(f"score_cam: channels must be at least 1, received {channels}")
        maps = maps[:, :, np.sort(np.argsort(-maps.mean((0, 1)), kind="stable")[:channels])]
    low, high = maps.min((0, 1)), maps.max((0, 1))
    telling = high > low  # a map that is the same everywhere masks nothing
    maps, low, high = maps[:, :, telling], low[telling], high[telling]
    if not maps.shape[2]:
        return np.zeros(maps.shape[:2])

    def masked(start: int, end: int) -> np.ndarray:
        masks = [resized((maps[:, :, k] - low[k]) / (high[k] - low[k]), image.shape[1:3]) for k in range(start, end)]
        found: np.ndarray = image * np.stack(masks)[..., None]
        return found.astype(image.dtype)

    with undisturbed(model):
        target = likeliest("score_cam", model, image, target)
        batches = [scores("score_cam", model, images, target, "logit") for images in in_batches(masked, len(low))]
    score = np.concatenate(batches)  # that of an image of zeros, taken off all, does not change their softmax
    weight = np.exp(score - score.max())
    return _positive_sum(maps, weight / weight.sum())


def _positive_sum(maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """ReLU of the sum of maps (P, Q, K) times weight (K,)"""
    total: np.ndarray = np.maximum(maps @ weight, 0)
    return total


def resized(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (P, Q) at the image's size (H, W), bilinear, as float64."""
    with no_grad():
        return F.interpolate(_float32(heat), size, mode="bilinear").numpy()[0, :, :, 0].astype(np.float64)


def _float32(heat: np.ndarray) -> Tensor:
    return Tensor(np.ascontiguousarray(heat, np.float32)[None, :, :, None])


def _maps_and_gradient(
    what: str, model: Module, x: Any, target: int | None, layer: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """A layer's maps (P, Q, K), and the gradient of the class's logit by them, both float64."""
    image = one_image(what, x)
    layer = last_maps(model, image) if layer is None else layer
    leaves: list[Tensor] = []

    def cut(value: Tensor) -> Tensor:
        """The graph begins here: nothing before is recorded, as nothing there wants a gradient."""
        leaf = value.detach()
        leaf.requires_grad = True
        leaves.append(leaf)
        return leaf

    with undisturbed(model), watching(model, {layer: cut}):
        logits = logits_of(what, model, on_device(model, image))
        if not leaves:
            raise ValueError(f"{what}: the network did not call {layer}")
        maps = _pictures(what, leaves[-1].numpy()[0], layer)
        if logits.requires_grad:
            ascend(logits, class_of(what, logits.numpy(), target))
    slope = leaves[-1].grad
    if slope is None:
        raise ValueError(f"{what}: the scores do not depend on what passes at {layer}")
    return maps.astype(np.float64), slope.numpy()[0].astype(np.float64)


def _pictures(what: str, maps: np.ndarray, layer: str) -> np.ndarray:
    if maps.ndim != 3:
        raise ValueError(f"{what}: {layer} makes no feature maps (P, Q, K) of an image, but {maps.shape}")
    return maps
