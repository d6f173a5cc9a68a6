"""Initial values, PyTorch's distributions, drawn from ``cnnengine.random.generator()``."""

from __future__ import annotations

import math

import numpy as np

from ..random import generator
from .parameter import Parameter


def fan_in(shape: tuple[int, ...]) -> int:
    """How many inputs feed one output of a weight (out, ..., in): the product of all axes but the first."""
    return math.prod(shape[1:])


def uniform(shape: tuple[int, ...], low: float, high: float) -> Parameter:
    """Uniform float32 in [low, high)."""
    return Parameter(generator().uniform(low, high, shape).astype(np.float32))


def kaiming_uniform(shape: tuple[int, ...], a: float = 0.0) -> Parameter:
    """Uniform in +-sqrt(6 / ((1 + a^2) fan_in)), after He et al. 2015; ``a`` is the slope of a leaky ReLU behind it.

    Convolutions and linear layers use a = sqrt(5), that is +-1 / sqrt(fan_in), as PyTorch does.
    """
    bound = math.sqrt(6 / ((1 + a * a) * fan_in(shape)))
    return uniform(shape, -bound, bound)


def layer_weight(shape: tuple[int, ...]) -> Parameter:
    """The weight of a new convolution or linear layer, (out, ..., in)."""
    return kaiming_uniform(shape, a=math.sqrt(5))


def layer_bias(weight_shape: tuple[int, ...]) -> Parameter:
    """The bias (out,) of a new layer with that weight: uniform in +-1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in(weight_shape))
    return uniform(weight_shape[:1], -bound, bound)


def fan_out(shape: tuple[int, ...]) -> int:
    """How many outputs one input of a weight (out, ..., in) feeds, groups left aside: all axes but the last."""
    return math.prod(shape[:-1])


def normal(shape: tuple[int, ...], std: float, mean: float = 0.0) -> Parameter:
    """Normal float32 of that mean and standard deviation."""
    return Parameter(generator().standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean))


def kaiming_normal(shape: tuple[int, ...], mode: str = "fan_in") -> Parameter:
    """Normal of standard deviation sqrt(2 / fan), for a ReLU behind it, after He et al. 2015 (arXiv 1502.01852).

    ``mode`` "fan_in" keeps the variance of activations, "fan_out" that of gradients. Raises ValueError for another.
    """
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming_normal: mode must be 'fan_in' or 'fan_out', received {mode!r}")
    return normal(shape, math.sqrt(2 / (fan_in(shape) if mode == "fan_in" else fan_out(shape))))


def zeros(shape: tuple[int, ...]) -> Parameter:
    """Zeros, float32."""
    return Parameter(np.zeros(shape, np.float32))


def ones(shape: tuple[int, ...]) -> Parameter:
    """Ones, float32."""
    return Parameter(np.ones(shape, np.float32))
