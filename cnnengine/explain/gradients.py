"""What the pixels do to a class's score, by its gradient: saliency, SmoothGrad, guided backpropagation, integrated
gradients. All give (H, W, C), the sign included; ``heat`` makes one number a pixel of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import Unsupported
from ..functional import guided_relu
from ..nn import Module
from ._network import gradients, in_batches, likeliest, one_image, scores, undisturbed


def saliency(model: Module, x: Any, target: int | None = None) -> np.ndarray:
    """d logit / d x of one image x (1, H, W, C) for class ``target`` (None: the likeliest).

    Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", arXiv 1312.6034, section 3.
    """
    image = one_image("saliency", x)
    with undisturbed(model):
        target = likeliest("saliency", model, image, target)
        found: np.ndarray = gradients("saliency", model, image, target)[0]
    return found


def smooth_grad(
    model: Module, x: Any, target: int | None = None, *, samples: int = 32, noise: float = 0.15, seed: int = 0
) -> np.ndarray:
    """The mean gradient over ``samples`` images to which normal noise was added, whose standard deviation is ``noise``
    times the range of x. Raises ValueError for less than one sample and noise below 0.

    Smilkov, Thorat, Kim, Viegas and Wattenberg, "SmoothGrad: removing noise by adding noise", arXiv 1706.03825.
    """
    image = one_image("smooth_grad", x)
    if samples < 1 or not noise >= 0:
        raise ValueError(f"smooth_grad: expected samples >= 1 and noise >= 0, received {samples} and {noise}")
    rng = np.random.default_rng(seed)
    deviation = noise * float(image.max() - image.min())

    def noisy(start: int, end: int) -> np.ndarray:
        found: np.ndarray = image + deviation * rng.standard_normal((end - start, *image.shape[1:]))
        return found.astype(image.dtype)

    with undisturbed(model):
        target = likeliest("smooth_grad", model, image, target)
        total = np.zeros(image.shape[1:])
        for batch in in_batches(noisy, samples):
            total += gradients("smooth_grad", model, batch, target).sum(0, dtype=np.float64)
    return (total / samples).astype(image.dtype)


def guided_backprop(model: Module, x: Any, target: int | None = None) -> np.ndarray:
    """The gradient where every ReLU and ReLU6 hands on positive gradients only: ``F.guided_relu``. Raises Unsupported
    for a network without them.

    It shows what a network can see rather than why it decides: it hardly changes with the upper layers' weights (see
    ``sanity``). Springenberg et al., arXiv 1412.6806; Adebayo et al., arXiv 1810.03292.
    """
    image = one_image("guided_backprop", x)
    with undisturbed(model), guided_relu() as scope:
        target = likeliest("guided_backprop", model, image, target)
        found: np.ndarray = gradients("guided_backprop", model, image, target)[0]
    if not scope.rectifiers:
        raise Unsupported("guided_backprop: this network has no ReLU or ReLU6 whose backward pass could be guided")
    return found


def integrated_gradients(
    model: Module, x: Any, target: int | None = None, *, baseline: Any = None, steps: int = 64
) -> np.ndarray:
    """(x - baseline) times the mean gradient on the straight line from the baseline, by default all 0, to x: the
    midpoints of ``steps`` equal parts. Raises ValueError for less than one step and another baseline's shape.

    The attributions add up to the logit of x less that of the baseline, but for what the sum misses of the integral;
    ``completeness`` says how much that is. Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", arXiv
    1703.01365, equation 3 and proposition 1.
    """
    image = one_image("integrated_gradients", x)
    start = _baseline("integrated_gradients", image, baseline)
    if steps < 1:
        raise ValueError(f"integrated_gradients: steps must be at least 1, received {steps}")
    difference = image - start

    def between(first: int, end: int) -> np.ndarray:
        share = ((np.arange(first, end) + 0.5) / steps).astype(image.dtype)
        found: np.ndarray = start + share[:, None, None, None] * difference
        return found

    with undisturbed(model):
        target = likeliest("integrated_gradients", model, image, target)
        total = np.zeros(image.shape[1:])
        for batch in in_batches(between, steps):
            total += gradients("integrated_gradients", model, batch, target).sum(0, dtype=np.float64)
    attributions: np.ndarray = difference[0] * (total / steps)
    return attributions.astype(image.dtype)


def completeness(
    model: Module, x: Any, attributions: np.ndarray, target: int | None = None, *, baseline: Any = None
) -> tuple[float, float]:
    """(the sum of the attributions, the logit of x less that of the baseline): equal for a complete explanation."""
    image = one_image("completeness", x)
    start = _baseline("completeness", image, baseline)
    with undisturbed(model):
        target = likeliest("completeness", model, image, target)
        of_x, of_start = scores("completeness", model, np.concatenate([image, start]), target, "logit")
    return float(attributions.sum(dtype=np.float64)), float(of_x - of_start)


def heat(attributions: np.ndarray) -> np.ndarray:
    """One number a pixel, (H, W): the largest magnitude among the channels of (H, W, C), as Simonyan et al. do."""
    found: np.ndarray = np.abs(attributions).max(2)
    return found


def _baseline(what: str, image: np.ndarray, baseline: Any) -> np.ndarray:
    if baseline is None:
        return np.zeros_like(image)
    start = one_image(what, baseline)
    if start.shape != image.shape:
        raise ValueError(f"{what}: baseline must be {image.shape} as x is, received {start.shape}")
    return start.astype(image.dtype)
