"""Every explanation of one image under one name: a map (H, W) of the image's size, large where it matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..nn import Module
from ._network import one_image
from .cam import grad_cam, grad_cam_plus_plus, resized, score_cam
from .gradients import guided_backprop, heat, integrated_gradients, saliency, smooth_grad
from .occlusion import occlusion
from .rollout import attention_rollout

Explain = Callable[..., np.ndarray]


@dataclass(frozen=True, slots=True)
class Method:
    """``explain(model, x, target, ...)``, whether it takes a ``layer``, and what kind of map it gives."""

    explain: Explain
    takes_layer: bool = False
    of_pixels: bool = False  # whether each pixel has a number of its own
    of_class: bool = True  # whether it explains a class, or is the same for all


def _of_pixels(attributions: Explain) -> Explain:
    """As a map: the largest magnitude among a pixel's channels."""
    return lambda model, x, target, **options: heat(attributions(model, x, target, **options))


def _added(attributions: Explain) -> Explain:
    """As a map: the sum over a pixel's channels, below 0 where it speaks against the class."""

    def explain(model: Module, x: Any, target: int | None, **options: Any) -> np.ndarray:
        total: np.ndarray = attributions(model, x, target, **options).sum(2)
        return total

    return explain


def _of_layer(maps: Explain) -> Explain:
    return lambda model, x, target, **options: resized(maps(model, x, target, **options), np.shape(x)[1:3])


METHODS = {
    "occlusion": Method(occlusion),
    "saliency": Method(_of_pixels(saliency), of_pixels=True),
    "smooth_grad": Method(_of_pixels(smooth_grad), of_pixels=True),
    "guided_backprop": Method(_of_pixels(guided_backprop), of_pixels=True),
    "integrated_gradients": Method(_added(integrated_gradients), of_pixels=True),
    "grad_cam": Method(_of_layer(grad_cam), takes_layer=True),
    "grad_cam_plus_plus": Method(_of_layer(grad_cam_plus_plus), takes_layer=True),
    "score_cam": Method(_of_layer(score_cam), takes_layer=True),
    "attention_rollout": Method(_of_layer(lambda model, x, target: attention_rollout(model, x)), of_class=False),
}


def explain(model: Module, x: Any, method: str, target: int | None = None, **options: Any) -> np.ndarray:
    """The map (H, W) of one image x (1, H, W, C), normalised as the network wants it, for class ``target`` (None: the
    likeliest) by one of METHODS, as float64.

    ``options`` are those of the function of the method's name. Raises ValueError for an unknown method, listing those
    there are, and as the functions do.
    """
    if method not in METHODS:
        raise ValueError(f"explain: there is no method {method!r}; there are {', '.join(METHODS)}")
    image = one_image("explain", x)
    return METHODS[method].explain(model, image, target, **options).astype(np.float64)
