"""Optimizer steps, in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..contract import Array


@np.errstate(all="ignore")
def step(
    kind: str, parameters: Sequence[Array], gradients: Sequence[Array], states: Sequence[Array], hyper: Array
) -> None:
    """``sgd``: see the contract; the arithmetic in float64, rounded once."""
    lr, momentum, decay, nesterov, scale = (float(h) for h in hyper)
    velocities = states if len(states) else [None] * len(parameters)
    for p, gradient, velocity in zip(parameters, gradients, velocities, strict=True):
        g = gradient.astype(np.float64) * scale + decay * p.astype(np.float64)
        if velocity is not None:
            v = momentum * velocity.astype(np.float64) + g
            velocity[...] = v
            g = g + momentum * v if nesterov else v
        p[...] = p.astype(np.float64) - lr * g
