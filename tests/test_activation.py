"""Activations on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import Backend

from .cases.elementwise import SIZES
from .harness import oracle, random_array, run_verb, runs

SPECIAL = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3e38], np.float32)


@pytest.mark.parametrize("name", SIZES)
def test_relu(backend: Backend, name: str, rng: np.random.Generator) -> None:
    tier, shape = SIZES[name]
    if not runs(backend, tier):
        pytest.skip(f"{tier} cases are too large for {backend.name}")
    x, dy = random_array(rng, shape), random_array(rng, shape)
    x.reshape(-1)[: len(SPECIAL)] = SPECIAL[: x.size]

    def forward(which: Backend):
        return lambda x, y: which.activation_forward("relu", x, y)

    def backward(which: Backend):
        return lambda y, dy, dx: which.activation_backward("relu", y, dy, dx)

    output = [(shape, "float32")]
    (expected,) = run_verb(oracle(), forward(oracle()), [x], output, "oracle")
    (y,) = run_verb(backend, forward(backend), [x], output, f"{backend.name} relu")
    np.testing.assert_array_equal(y, expected)
    (expected_dx,) = run_verb(oracle(), backward(oracle()), [y, dy], output, "oracle")
    (dx,) = run_verb(backend, backward(backend), [y, dy], output, f"{backend.name} relu backward")
    np.testing.assert_array_equal(dx, expected_dx)


def test_in_place(backend: Backend, rng: np.random.Generator) -> None:
    """The contract lets y be x and dx be dy"""
    x, dy = random_array(rng, (37,)), random_array(rng, (37,))
    both = backend.to_device(x.copy())
    backend.activation_forward("relu", both, both)
    np.testing.assert_array_equal(backend.to_host(both), np.maximum(x, 0))
    gradient = backend.to_device(dy.copy())
    backend.activation_backward("relu", both, gradient, gradient)
    np.testing.assert_array_equal(backend.to_host(gradient), dy * (x > 0))


def test_as_pytorch_at_the_kink() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.from_numpy(SPECIAL.copy()).requires_grad_()
    torch.relu(x).backward(torch.ones(len(SPECIAL)))
    ours = cnn.Tensor(SPECIAL.copy(), requires_grad=True)
    y = F.relu(ours)
    y.backward(np.ones(len(SPECIAL), np.float32))
    np.testing.assert_array_equal(y.numpy(), torch.relu(x).detach().numpy())
    np.testing.assert_array_equal(ours.grad.numpy(), x.grad.numpy())


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="relu: empty x"):
        F.relu(cnn.Tensor(np.zeros((0, 3), np.float32)))
    with pytest.raises(TypeError, match="received int64"):
        F.relu(np.zeros(3, np.int64))
