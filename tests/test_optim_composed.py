"""RMSprop, LAMB and Muon against their formulas in float64, and against PyTorch where it has them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import nn, optim
from cnnengine.backends.contract import Backend

from .compare import assert_close, assert_identical
from .harness import random_array

SHAPES = [(3, 2, 2, 5), (2, 7), (6, 4)]
Arrays = list[np.ndarray]


def rmsprop(p: Arrays, gradients: list[Arrays], lr: float, **o: Any) -> None:
    for i, g in _each(p, gradients, o):
        if not o.get("tf"):
            o["v"][i] = o["alpha"] * o["v"][i] + (1 - o["alpha"]) * g**2
        else:
            o["v"][i] = o["alpha"] * o.setdefault(f"seen{i}", np.ones_like(g)) + (1 - o["alpha"]) * g**2
            o[f"seen{i}"] = o["v"][i]
        o["m"][i] = o["alpha"] * o["m"][i] + (1 - o["alpha"]) * g
        v = o["v"][i] - o["m"][i] ** 2 if o.get("centered") else o["v"][i]
        if o.get("tf"):
            o["b"][i] = o.get("momentum", 0) * o["b"][i] + lr * g / np.sqrt(v + o["eps"])
            p[i] -= o["b"][i]
        else:
            o["b"][i] = o.get("momentum", 0) * o["b"][i] + g / (np.sqrt(v) + o["eps"])
            p[i] -= lr * o["b"][i]


def _each(p: Arrays, gradients: list[Arrays], o: dict[str, Any]) -> Any:
    """Each parameter's gradient with the decay, step by step; ``o`` gets zeros for the states v, m and b."""
    for name in "vmb":
        o[name] = [np.zeros_like(a) for a in p]
    for step in gradients:
        for i, g in enumerate(step):
            yield i, g + o.get("weight_decay", 0.0) * p[i]


def lamb(p: Arrays, gradients: list[Arrays], lr: float, weight_decay: float = 0.01, eps: float = 1e-6) -> None:
    m, v = [np.zeros_like(a) for a in p], [np.zeros_like(a) for a in p]
    for t, step in enumerate(gradients, 1):
        for i, g in enumerate(step):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            u = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + eps) + weight_decay * p[i]
            p[i] -= lr * u * np.linalg.norm(p[i]) / np.linalg.norm(u)


def muon(
    p: Arrays,
    gradients: list[Arrays],
    lr: float,
    weight_decay: float = 0.1,
    momentum: float = 0.95,
    nesterov: bool = True,
) -> None:
    b = [np.zeros_like(a) for a in p]
    for step in gradients:
        for i, g in enumerate(step):
            b[i] = momentum * b[i] + (1 - momentum) * g
            u = (1 - momentum) * g + momentum * b[i] if nesterov else b[i]
            x = u.reshape(len(u), -1)
            rows, columns = x.shape
            x = x / np.linalg.norm(x)
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
            p[i] -= lr * weight_decay * p[i] + lr * max(1, rows / columns) ** 0.5 * x.reshape(u.shape)


CASES: dict[str, tuple[type[optim.Optimizer], dict[str, Any], Callable[..., None], dict[str, Any]]] = {
    "rmsprop": (optim.RMSprop, {}, rmsprop, {"alpha": 0.99, "eps": 1e-8}),
    "rmsprop_centered": (
        optim.RMSprop,
        {"alpha": 0.9, "momentum": 0.8, "weight_decay": 0.1, "centered": True},
        rmsprop,
        {"eps": 1e-8},
    ),
    "rmsprop_tf": (
        optim.RMSpropTF,
        {"momentum": 0.9, "eps": 1e-3, "weight_decay": 1e-2},
        rmsprop,
        {"alpha": 0.9, "tf": True},
    ),
    "rmsprop_tf_centered": (optim.RMSpropTF, {"centered": True, "eps": 0.1}, rmsprop, {"alpha": 0.9, "tf": True}),
    "lamb": (optim.LAMB, {}, lamb, {}),
    "lamb_plain": (optim.LAMB, {"weight_decay": 0.0, "eps": 1e-3}, lamb, {}),
    "muon": (optim.Muon, {}, muon, {}),
    "muon_plain": (optim.Muon, {"nesterov": False, "weight_decay": 0.0, "momentum": 0.7}, muon, {}),
}


def _parameters(rng: np.random.Generator, backend: Backend | None = None) -> list[nn.Parameter]:
    arrays = [random_array(rng, shape) for shape in SHAPES]
    return [nn.Parameter(backend.to_device(a) if backend else a) for a in arrays]


def _step(optimizer: optim.Optimizer, gradients: Arrays, backend: Backend | None = None) -> None:
    for parameter, gradient in zip(optimizer.parameters, gradients, strict=True):
        parameter.grad = cnn.Tensor(backend.to_device(gradient.copy()) if backend else gradient.copy())
    optimizer.step()


def _gradients(rng: np.random.Generator, steps: int) -> list[Arrays]:
    return [[random_array(rng, shape) for shape in SHAPES] for _ in range(steps)]


@pytest.mark.parametrize("name", CASES)
def test_steps_follow_the_formula(backend: Backend, name: str, rng: np.random.Generator) -> None:
    make, options, formula, more = CASES[name]
    if backend.name == "numba" and name not in ("rmsprop_tf", "lamb", "muon"):
        pytest.skip("the simulator is slow: one case of each optimizer there")
    parameters = _parameters(rng, backend)
    expected = [p.numpy().astype(np.float64) for p in parameters]
    gradients = _gradients(rng, 2 if backend.name == "numba" else 4)
    optimizer = make(parameters, lr=0.05, **options)  # type: ignore[call-arg]
    for g in gradients:
        _step(optimizer, g, backend)
    formula(expected, [[a.astype(np.float64) for a in g] for g in gradients], 0.05, **options, **more)
    for parameter, value in zip(parameters, expected, strict=True):
        assert_close(parameter.numpy(), value.astype(np.float32), reduction=256)


@pytest.mark.parametrize("name", ["rmsprop", "rmsprop_centered"])
def test_rmsprop_equals_pytorchs(name: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    ours = _parameters(rng)
    theirs = [torch.nn.Parameter(torch.from_numpy(p.numpy().astype(np.float64))) for p in ours]
    optimizer = optim.RMSprop(ours, lr=0.05, **CASES[name][1])
    reference = torch.optim.RMSprop(theirs, lr=0.05, **CASES[name][1])
    for g in _gradients(rng, 5):
        _step(optimizer, g)
        for parameter, gradient in zip(theirs, g, strict=True):
            parameter.grad = torch.from_numpy(gradient.astype(np.float64))
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.numpy(), b.detach().numpy(), reduction=64)


def test_muon_equals_pytorchs_but_for_its_bfloat16(rng: np.random.Generator) -> None:
    """PyTorch orthogonalises in bfloat16: what is subtracted agrees to a few of its units of 2^-8"""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this version of torch has no Muon")
    ours = [nn.Parameter(random_array(rng, shape)) for shape in [(8, 24), (24, 8)]]
    before = [p.numpy().copy() for p in ours]
    theirs = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in before]
    optimizer, reference = optim.Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1)
    gradients = [random_array(rng, a.shape) for a in before]
    for p, q, g in zip(ours, theirs, gradients, strict=True):
        p.grad, q.grad = cnn.Tensor(g), torch.from_numpy(g.copy())
    optimizer.step()
    reference.step()
    for a, b, start in zip(ours, theirs, before, strict=True):
        mine, other = a.numpy() - start, b.detach().numpy() - start
        assert np.linalg.norm(mine - other) < 4 * 2.0**-8 * np.linalg.norm(other)


def test_defaults_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for ours, name in ((optim.RMSprop, "RMSprop"), (optim.Muon, "Muon")):
        if not hasattr(torch.optim, name):
            continue
        theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(1, 1))]).param_groups[0]
        (group,) = ours([nn.Parameter([[1.0]])]).param_groups
        shared = (group.keys() & theirs.keys()) - {"params", "eps"} | ({"eps"} if name == "RMSprop" else set())
        assert len(shared) >= 5
        assert {k: group[k] for k in shared} == {k: theirs[k] for k in shared}


def test_the_trust_ratio_of_nothing_is_1() -> None:
    """A parameter that is 0 moves by lr * u, one whose u is 0 stays"""
    p, q = nn.Parameter(np.zeros(4, np.float32)), nn.Parameter(np.ones(4, np.float32))
    optimizer = optim.LAMB([p, q], lr=0.5, weight_decay=0.0, eps=0.0)
    p.grad, q.grad = cnn.Tensor(np.full(4, 3.0, np.float32)), None
    optimizer.step()
    np.testing.assert_allclose(p.numpy(), -0.5, rtol=1e-6)
    optimizer = optim.LAMB([q], lr=0.5, weight_decay=0.0)
    q.grad = cnn.Tensor(np.zeros(4, np.float32))
    optimizer.step()
    assert q.numpy().tolist() == [1, 1, 1, 1]


def test_muon_makes_matrices_orthogonal(rng: np.random.Generator) -> None:
    for shape in ((6, 40), (40, 6), (5, 5)):
        p = nn.Parameter(np.zeros(shape, np.float32))
        p.grad = cnn.Tensor(random_array(rng, shape))
        optim.Muon([p], lr=1.0).step()
        values = np.linalg.svd(p.numpy() / max(1, shape[0] / shape[1]) ** 0.5, compute_uv=False)
        assert 0.5 < values.min() <= values.max() < 1.25, shape


def test_muon_groups_leave_the_ends_and_vectors_to_adamw(rng: np.random.Generator) -> None:
    model = cnn.models.lenet5()
    groups = optim.muon_groups(model, lr=0.003)
    assert [len(g["params"]) for g in groups] == [3, 7]
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in model.parameters()}
    assert groups[1]["lr"] == 0.003
    vector, alone = nn.Parameter(random_array(rng, (9,))), nn.Parameter(np.zeros(9, np.float32))
    alone.data = vector.numpy().copy()
    mine = optim.Muon([{"params": [vector], "use_muon": False}], lr=0.01, weight_decay=0.2)
    adamw = optim.AdamW([alone], lr=0.01, betas=(0.9, 0.95), weight_decay=0.2)
    for _ in range(3):
        g = random_array(rng, (9,))
        vector.grad, alone.grad = cnn.Tensor(g), cnn.Tensor(g)
        mine.step()
        adamw.step()
    assert_identical(vector.numpy(), alone.numpy())


@pytest.mark.parametrize("name", ["rmsprop_centered", "rmsprop_tf", "lamb", "muon"])
def test_a_restored_optimizer_goes_on_bit_for_bit(name: str, rng: np.random.Generator) -> None:
    make, options, _, _ = CASES[name]
    gradients = _gradients(rng, 6)
    first = _parameters(rng)
    optimizer = make(first, lr=0.02, **options)  # type: ignore[call-arg]
    for g in gradients[:3]:
        _step(optimizer, g)
    second = [nn.Parameter(p.numpy().copy()) for p in first]
    restored = make(second, lr=9.0)  # type: ignore[call-arg]
    restored.load_state_dict(optimizer.state_dict())
    for o, g in itertools.product((optimizer, restored), gradients[3:]):
        _step(o, g)
    for a, b in zip(first, second, strict=True):
        assert_identical(a.numpy(), b.numpy())


@pytest.mark.parametrize("make", [optim.RMSpropTF, optim.LAMB, optim.Muon])
def test_float16_parameters_have_float32_states_and_a_gradient_scale(make: Any, rng: np.random.Generator) -> None:
    start, gradient = (random_array(rng, (6, 4)).astype(np.float16) for _ in range(2))
    results = []
    with cnn.use_backend("numpy"):
        for dtype, scale in ((np.float16, 16.0), (np.float32, 1.0)):  # the one divides by 16 what was multiplied by it
            p = nn.Parameter(start.astype(dtype))
            optimizer = make([p], lr=0.01)
            for _ in range(2):
                p.grad = cnn.Tensor(gradient.astype(dtype) * dtype(scale))
                optimizer.step(gradient_scale=1 / scale)
            assert p.dtype == dtype
            states = optimizer.state_dict()
            assert all(a.dtype == np.float32 for name in optimizer.keeps for a in states[name] if a is not None)
            results.append(p.numpy().astype(np.float32))
    np.testing.assert_allclose(results[0], results[1], rtol=2**-9, atol=2**-12)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (optim.RMSprop, {"alpha": 1.0}, r"RMSprop: alpha must lie in \[0, 1\), received 1.0"),
        (optim.RMSpropTF, {"eps": -1}, "RMSpropTF: eps must be a finite number"),
        (optim.LAMB, {"betas": (1.0, 0.9)}, "LAMB: betas must be two numbers"),
        (optim.Muon, {"ns_steps": 0}, "Muon: ns_steps must be an int of at least 1, received 0"),
        (optim.Muon, {"momentum": 0.0}, "Muon: nesterov needs a momentum above 0"),
        (optim.Muon, {"momentum": 1.0}, r"Muon: momentum must lie in \[0, 1\)"),
    ],
)
def test_bad_options_are_refused(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make([nn.Parameter([[1.0]])], **options)


def test_muon_wants_matrices() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\) is no matrix; put it into a group with use_muon=False"):
        optim.Muon([nn.Parameter([1.0, 2.0, 3.0])])
