"""Gradients within bounds: values by hand, PyTorch's where it is, and nothing changed where nothing should be."""

from __future__ import annotations

import math

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import nn, optim
from cnnengine.backends.contract import Backend

from .compare import assert_close
from .harness import random_array

NAN, INF = math.nan, math.inf


def _with_gradients(*gradients: np.ndarray | None, backend: Backend | None = None) -> list[nn.Parameter]:
    parameters = []
    for g in gradients:
        p = nn.Parameter(np.zeros((1,) if g is None else g.shape, np.float32 if g is None else g.dtype))
        if g is not None:
            p.grad = cnn.Tensor(backend.to_device(g.copy()) if backend else g.copy())
        parameters.append(p)
    return parameters


@pytest.mark.parametrize("norm_type", [2.0, INF])
@pytest.mark.parametrize("max_norm", [0.0, 1.5, 100.0])
def test_the_norm_is_brought_to_its_limit(
    backend: Backend, norm_type: float, max_norm: float, rng: np.random.Generator
) -> None:
    gradients = [random_array(rng, (3, 4)), None, random_array(rng, (5,)) * np.float32(-3)]
    parameters = _with_gradients(*gradients, backend=backend)
    norm = optim.clip_grad_norm_(parameters, max_norm, norm_type)
    known = [g.astype(np.float64) for g in gradients if g is not None]
    expected = np.linalg.norm(np.concatenate([g.reshape(-1) for g in known]), norm_type)
    assert norm.shape == ()
    assert norm.item() == pytest.approx(expected, rel=1e-6)
    factor = min(1.0, max_norm / (expected + 1e-6))
    for p, g in zip((parameters[0], parameters[2]), known, strict=True):
        assert_close(p.grad.numpy(), (g * factor).astype(np.float32), reduction=16)
        if factor == 1:
            assert (p.grad.numpy() == g.astype(np.float32)).all()
    assert parameters[1].grad is None


@pytest.mark.parametrize("norm_type", [2.0, INF])
@pytest.mark.parametrize("special", [None, NAN, INF, -INF])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6])
def test_norms_as_pytorchs(norm_type: float, special: float | None, max_norm: float, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    gradients = [random_array(rng, (3, 4)), random_array(rng, (5,))]
    if special is not None:
        gradients[1][2] = special
    ours = _with_gradients(*gradients)
    theirs = [torch.nn.Parameter(torch.zeros(g.shape)) for g in gradients]
    for p, g in zip(theirs, gradients, strict=True):
        p.grad = torch.from_numpy(g.copy())
    norm = optim.clip_grad_norm_(iter(ours), max_norm, norm_type)
    np.testing.assert_allclose(norm.numpy(), torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type).numpy(), 1e-6)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)
    if special is not None:
        ours = _with_gradients(*gradients)
        with pytest.raises(RuntimeError, match=r"the norm of the gradients is (nan|inf); nothing was changed"):
            optim.clip_grad_norm_(ours, max_norm, norm_type, error_if_nonfinite=True)
        for p, g in zip(ours, gradients, strict=True):
            np.testing.assert_array_equal(p.grad.numpy(), g)


def test_values_are_brought_into_their_range(backend: Backend) -> None:
    g = np.array([[-3.0, -0.1], [0.1, 2.5], [NAN, INF]], np.float32)
    parameters = _with_gradients(g, None, backend=backend)
    optim.clip_grad_value_(parameters, 0.5)
    expected = np.array([[-0.5, -0.1], [0.1, 0.5], [NAN, 0.5]], np.float32)  # what lies within keeps its bits
    np.testing.assert_array_equal(parameters[0].grad.numpy(), expected)


def test_narrow_gradients_are_summed_in_float32() -> None:
    with cnn.use_backend("numpy"):
        (p,) = _with_gradients(np.full(1000, 300, np.float16))  # the square of one of them is more than float16 has
        norm = optim.clip_grad_norm_(p, 10.0)
        assert norm.item() == pytest.approx(300 * 1000**0.5, rel=1e-6)
        assert p.grad.dtype == np.float16
        np.testing.assert_allclose(p.grad.numpy().astype(np.float64), 10 / 1000**0.5, rtol=2**-10)
        optim.clip_grad_value_(p, 0.25)
        assert (p.grad.numpy() == np.float16(0.25)).all()


def test_a_changed_gradient_is_noticed(rng: np.random.Generator) -> None:
    (p,) = _with_gradients(random_array(rng, (3,)))
    before = p.grad.version[0]
    optim.clip_grad_norm_([p], 1.0)
    optim.clip_grad_value_([p], 1.0)
    assert p.grad.version[0] == before + 2


def test_bad_bounds_are_refused() -> None:
    assert optim.clip_grad_norm_([nn.Parameter([1.0])], 1.0).item() == 0
    for bad in (-1.0, NAN):
        with pytest.raises(ValueError, match="clip_grad_norm_: max_norm must be a number, 0 or above"):
            optim.clip_grad_norm_([], bad)
        with pytest.raises(ValueError, match="clip_grad_value_: clip_value must be a number, 0 or above"):
            optim.clip_grad_value_([], bad)
    with pytest.raises(ValueError, match="norm_type must be 2 or inf, received 3"):
        optim.clip_grad_norm_([], 1.0, 3)
