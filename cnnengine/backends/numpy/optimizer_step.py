"""Optimizer steps, in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..contract import Array


@np.errstate(all="ignore")
def step(
    kind: str, parameters: Sequence[Array], gradients: Sequence[Array], states: Sequence[Array], hyper: Array
) -> None:
    """See the contract; the arithmetic in float64, rounded once."""
    if kind == "sgd":
        _sgd(parameters, gradients, states, hyper)
    elif kind == "adam":
        _adam(parameters, gradients, states, hyper)
    else:
        raise ValueError(f"optimizer_step: unknown kind {kind!r}")


def _sgd(parameters: Sequence[Array], gradients: Sequence[Array], velocities: Sequence[Array], hyper: Array) -> None:
    lr, momentum, decay, nesterov, scale = (float(h) for h in hyper)
    for i, (p, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        g = gradient.astype(np.float64) * scale + decay * p.astype(np.float64)
        if len(velocities):
            v = momentum * velocities[i].astype(np.float64) + g
            velocities[i][...] = v
            g = g + momentum * v if nesterov else v
        p[...] = p.astype(np.float64) - lr * g


def _adam(parameters: Sequence[Array], gradients: Sequence[Array], states: Sequence[Array], hyper: Array) -> None:
    rate, beta1, rest1, beta2, rest2, correction, epsilon, decay, kept, scale = (float(h) for h in hyper)
    firsts, seconds = states[: len(parameters)], states[len(parameters) :]
    for p, gradient, first, second in zip(parameters, gradients, firsts, seconds, strict=True):
        g = gradient.astype(np.float64) * scale + decay * p.astype(np.float64)
        m = beta1 * first.astype(np.float64) + rest1 * g
        v = beta2 * second.astype(np.float64) + rest2 * g * g
        first[...], second[...] = m, v
        p[...] = kept * p.astype(np.float64) - rate * m / (np.sqrt(v) * correction + epsilon)
