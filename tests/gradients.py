"""The gradient check: float64, on the oracle, along one random direction.

For a random cotangent v and direction u, <v, f(x + h u) - f(x - h u)> / 2h must equal <grad, u>: central differences,
whose error is of the order h**2, against the tape's gradient of <v, f(x)>.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

import cnnengine as cnn

STEP = 1e-5
ALLOWED = 1e-7  # relative; h**2 and the rounding 1e-16 / h are both below it


def check_gradients(
    f: Callable[..., cnn.Tensor], inputs: Sequence[np.ndarray], rng: np.random.Generator, step: float = STEP
) -> None:
    """Fail unless the tape's gradients of f at ``inputs`` (float64) agree with central differences."""
    with cnn.use_backend("numpy"):
        tensors = [cnn.Tensor(a.astype(np.float64), requires_grad=True) for a in inputs]
        y = f(*tensors)
        v = rng.standard_normal(y.shape)
        y.backward(v)
        for i, t in enumerate(tensors):
            assert t.grad is not None, f"input {i} received no gradient"
            assert t.grad.shape == t.shape
            u = rng.standard_normal(t.shape)
            ends = []
            for sign in (1, -1):
                moved = [cnn.Tensor(a.data) for a in tensors]
                moved[i] = cnn.Tensor(t.data + sign * step * u)
                ends.append(f(*moved).numpy())
            numeric = np.vdot(v, (ends[0] - ends[1]) / (2 * step))
            analytic = np.vdot(t.grad.numpy(), u)
            scale = np.linalg.norm(t.grad.numpy()) * np.linalg.norm(u) + 1e-6
            assert abs(numeric - analytic) <= ALLOWED * scale, (
                f"input {i}: {analytic} by the tape, {numeric} by differences"
            )
