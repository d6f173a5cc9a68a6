"""Local response normalisation: the definition written out, gradients, PyTorch's values."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import Backend

from .compare import assert_close
from .gradients import check_gradients
from .harness import random_array

SETTINGS = ((1, 1e-1, 0.75, 1.0), (3, 0.3, 0.75, 2.0), (4, 0.5, 0.6, 1.0), (5, 5e-4, 0.75, 2.0), (9, 0.2, 1.0, 1.5))


def definition(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    y = np.empty_like(x, dtype=np.float64)
    channels = x.shape[-1]
    for c in range(channels):
        window = x[..., max(0, c - size // 2) : min(channels, c + (size - 1) // 2 + 1)].astype(np.float64)
        y[..., c] = x[..., c] / (k + alpha / size * np.square(window).sum(-1)) ** beta
    return y


@pytest.mark.parametrize("settings", SETTINGS)
def test_it_is_the_definition(backend: Backend, settings: tuple[int, float, float, float], rng) -> None:
    x = random_array(rng, (2, 3, 2, 7))
    y = F.local_response_norm(cnn.Tensor(backend.to_device(x)), *settings)
    assert_close(y.numpy(), definition(x, *settings), reduction=30)


def test_by_hand() -> None:
    x = cnn.Tensor([[1.0, 2.0, 3.0]])
    y = F.local_response_norm(x, 3, alpha=3.0, beta=1.0, k=1.0)
    np.testing.assert_allclose(y.numpy(), [[1 / 6, 2 / 15, 3 / 14]], rtol=1e-6)
    y = F.local_response_norm(x, 2, alpha=2.0, beta=0.5, k=0.0)  # an even window reaches down
    np.testing.assert_allclose(y.numpy(), [[1, 2 / np.sqrt(5), 3 / np.sqrt(13)]], rtol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients(settings: tuple[int, float, float, float], rng: np.random.Generator) -> None:
    check_gradients(lambda x: F.local_response_norm(x, *settings), [rng.standard_normal((2, 2, 3, 7))], rng)


def test_float32_gradients_are_those_of_float64(backend: Backend, rng: np.random.Generator) -> None:
    x, dy = random_array(rng, (2, 2, 3, 7)), random_array(rng, (2, 2, 3, 7))
    leaf = cnn.Tensor(backend.to_device(x), requires_grad=True)
    F.local_response_norm(leaf, 4, 0.5, 0.75, 2.0).backward(backend.to_device(dy))
    with cnn.use_backend("numpy"):
        exact = cnn.Tensor(x.astype(np.float64), requires_grad=True)
        F.local_response_norm(exact, 4, 0.5, 0.75, 2.0).backward(dy.astype(np.float64))
    assert leaf.grad is not None
    assert exact.grad is not None
    assert_close(leaf.grad.numpy(), exact.grad.numpy(), reduction=30)


@pytest.mark.parametrize("settings", SETTINGS)
def test_it_is_pytorchs(settings: tuple[int, float, float, float], rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, dy = rng.standard_normal((2, 3, 2, 7)), rng.standard_normal((2, 3, 2, 7))
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y = torch.nn.functional.local_response_norm(theirs, *settings)
    y.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).copy()))
    with cnn.use_backend("numpy"):
        ours = cnn.Tensor(x, requires_grad=True)
        z = F.local_response_norm(ours, *settings)
        z.backward(dy)
    assert ours.grad is not None
    np.testing.assert_allclose(z.numpy(), y.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-13)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-12, atol=1e-14)


def test_module_and_errors() -> None:
    x = np.ones((1, 1, 1, 3), np.float32)
    layer = nn.LocalResponseNorm(3, alpha=3.0, beta=1.0, k=1.0)
    np.testing.assert_allclose(layer(cnn.Tensor(x)).numpy().reshape(-1), [1 / 3, 1 / 4, 1 / 3], rtol=1e-6)
    assert repr(layer) == "LocalResponseNorm(3, alpha=3.0, beta=1.0, k=1.0)"
    with pytest.raises(ValueError, match="size must be a number of channels of at least 1, received 0"):
        F.local_response_norm(cnn.Tensor(x), 0)
    with pytest.raises(ValueError, match=r"x must be \(..., C\) with 2 axes or more, received \(3,\)"):
        F.local_response_norm(cnn.Tensor([1.0, 2.0, 3.0]), 3)
    with pytest.raises(ValueError, match="empty batch"):
        F.local_response_norm(cnn.Tensor(x[:0]), 3)
