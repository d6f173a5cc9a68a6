"""The optimizer verb on every backend, over parameters of many sizes at once."""

from __future__ import annotations

import numpy as np
import pytest

from cnnengine.backends.contract import Backend

from .compare import assert_close
from .harness import Guarded, oracle, random_array

SIZES = [(1,), (7,), (4, 3, 3, 2), (33,), (129,)]


@pytest.mark.parametrize(
    "hyper",
    [[0.1, 0, 0, 0, 1], [0.1, 0.9, 0, 0, 1], [0.05, 0.9, 0.01, 0, 1], [0.05, 0.9, 0.01, 1, 0.125]],
    ids=["plain", "momentum", "decay", "nesterov_scaled"],
)
def test_sgd(backend: Backend, hyper: list[float], rng: np.random.Generator) -> None:
    parameters = [random_array(rng, s) for s in SIZES]
    gradients = [random_array(rng, s) for s in SIZES]
    velocities = [random_array(rng, s) for s in SIZES] if hyper[1] else []
    results = []
    for which in (oracle(), backend):
        p = [Guarded(which, a.shape, a.dtype, a) for a in parameters]
        v = [Guarded(which, a.shape, a.dtype, a) for a in velocities]
        g = [which.to_device(a.copy()) for a in gradients]
        h = which.to_device(np.array(hyper, np.float32))
        for _ in range(3):
            which.optimizer_step("sgd", [a.array for a in p], g, [a.array for a in v], h)
        results.append([a.result(f"{which.name} sgd") for a in p + v])
    for i, (actual, expected) in enumerate(zip(results[1], results[0], strict=True)):
        assert_close(actual, expected, 16, f"{backend.name} sgd array {i}")


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(backend: Backend, decoupled: bool, rng: np.random.Generator) -> None:
    """rate, betas and what is left of 1, correction, epsilon, weight decay, what is kept of p, gradient scale"""
    parameters, gradients, first = ([random_array(rng, s) for s in SIZES] for _ in range(3))
    second = [np.abs(random_array(rng, s)) for s in SIZES]
    decay = [0, 0.99] if decoupled else [0.01, 1]
    hyper = [0.01, 0.9, 0.1, 0.99, 0.01, 3.0, 1e-3, *decay, 0.5]
    results = []
    for which in (oracle(), backend):
        p, m, v = ([Guarded(which, a.shape, a.dtype, a) for a in arrays] for arrays in (parameters, first, second))
        g = [which.to_device(a.copy()) for a in gradients]
        h = which.to_device(np.array(hyper, np.float32))
        for _ in range(3):
            which.optimizer_step("adam", [a.array for a in p], g, [a.array for a in m + v], h)
        results.append([a.result(f"{which.name} adam") for a in p + m + v])
    for i, (actual, expected) in enumerate(zip(results[1], results[0], strict=True)):
        assert_close(actual, expected, 16, f"{backend.name} adam array {i}")


@pytest.mark.parametrize(
    ("kind", "hyper"),
    [("sgd", [0.1, 0.9, 0, 0, 1]), ("adam", [0.01, 0.9, 0.1, 0.9, 0.1, 1, 1e-3, 0, 1, 1])],
    ids=["sgd", "adam"],
)
def test_states_decay_to_0(backend: Backend, kind: str, hyper: list[float]) -> None:
    """Without gradients a state reaches 0 on the native backend, elsewhere a denormal number; a NaN stays."""
    p, g = np.ones(19, np.float32), np.zeros(19, np.float32)
    states = [np.full(19, value, np.float32) for value in ((-1e-30,) if kind == "sgd" else (-1e-30, 1e-30))]
    for state in states:
        state[3] = np.nan
    p, g, *states = (backend.to_device(a) for a in (p, g, *states))
    for _ in range(400):
        backend.optimizer_step(kind, [p], [g], states, backend.to_device(np.array(hyper, np.float32)))
    for state in states:
        host = backend.to_host(state)
        assert np.isnan(host[3])
        rest = np.delete(host, 3)
        assert not rest.any() if backend.name == "native" else (abs(rest) < 1e-37).all()


def test_no_parameters_are_no_work(backend: Backend) -> None:
    backend.optimizer_step("adam", [], [], [], backend.to_device(np.zeros(10, np.float32)))


def test_as_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(0)
    start, gradient = random_array(rng, (5, 3), "float64"), random_array(rng, (5, 3), "float64")
    theirs = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = torch.optim.SGD([theirs], lr=0.125, momentum=0.5, weight_decay=0.25, nesterov=True)
    ours, velocity = start.copy(), np.zeros_like(start)
    for _ in range(4):
        theirs.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        oracle().optimizer_step("sgd", [ours], [gradient], [velocity], np.array([0.125, 0.5, 0.25, 1, 1], np.float32))
    assert_close(ours, theirs.detach().numpy(), 16)
