"""SGD and Adam against their formulas and against PyTorch; their state and groups; learning-rate schedules."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import nn, optim
from cnnengine.backends.contract import Backend

from .compare import assert_close, assert_identical
from .harness import random_array

SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1},
    "nesterov": {"momentum": 0.8, "weight_decay": 0.01, "nesterov": True},
}
SHAPES = [(3, 2, 2, 5), (7,), (1, 1)]


def _parameters(rng: np.random.Generator, backend: Backend | None = None) -> list[nn.Parameter]:
    arrays = [random_array(rng, shape) for shape in SHAPES]
    return [nn.Parameter(backend.to_device(a) if backend else a) for a in arrays]


def _step(optimizer: optim.Optimizer, gradients: list[np.ndarray], backend: Backend | None = None) -> None:
    for parameter, gradient in zip(optimizer.parameters, gradients, strict=True):
        parameter.grad = cnn.Tensor(backend.to_device(gradient.copy()) if backend else gradient.copy())
    optimizer.step()


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_follow_the_formula(backend: Backend, name: str, rng: np.random.Generator) -> None:
    settings: dict[str, Any] = SETTINGS[name]
    parameters = _parameters(rng, backend)
    expected = [p.numpy().astype(np.float64) for p in parameters]
    velocity = [np.zeros(shape) for shape in SHAPES]
    optimizer = optim.SGD(parameters, lr=0.1, **settings)
    momentum, decay = settings.get("momentum", 0.0), settings.get("weight_decay", 0.0)
    for step in range(4):
        optimizer.lr = lr = 0.1 / (step + 1)
        gradients = [random_array(rng, shape) for shape in SHAPES]
        _step(optimizer, gradients, backend)
        for i, gradient in enumerate(gradients):
            g = gradient + decay * expected[i]
            velocity[i] = momentum * velocity[i] + g
            expected[i] -= lr * (g + momentum * velocity[i] if settings.get("nesterov") else velocity[i])
    for parameter, value in zip(parameters, expected, strict=True):
        assert_close(parameter.numpy(), value.astype(np.float32), reduction=16)


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_equal_pytorchs(name: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    settings: dict[str, Any] = SETTINGS[name]
    ours = _parameters(rng)
    theirs = [torch.nn.Parameter(torch.from_numpy(p.numpy().copy())) for p in ours]
    optimizer, reference = optim.SGD(ours, lr=0.05, **settings), torch.optim.SGD(theirs, lr=0.05, **settings)
    for _ in range(5):
        gradients = [random_array(rng, shape) for shape in SHAPES]
        _step(optimizer, gradients)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = torch.from_numpy(gradient.copy())
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.numpy(), b.detach().numpy(), reduction=16)


def test_a_parameter_without_a_gradient_stays_as_it_is(rng: np.random.Generator) -> None:
    parameters = _parameters(rng)
    before = [p.numpy().copy() for p in parameters]
    optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1.0)
    parameters[1].grad = cnn.Tensor(np.ones(7, np.float32))
    optimizer.step()
    assert [(p.numpy() != b).any() for p, b in zip(parameters, before, strict=True)] == [False, True, False]
    assert [v is None for v in optimizer.state_dict()["velocity"]] == [True, False, True]


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    y = layer(cnn.Tensor([[1.0, 2.0]], requires_grad=True)).sum()
    layer.weight.grad = cnn.Tensor(np.ones((2, 2), np.float32))
    optimizer.step()
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


def test_the_hyperparameters_stay_in_one_device_array(rng: np.random.Generator) -> None:
    optimizer = optim.SGD(_parameters(rng), lr=0.1, momentum=0.9)
    gradients = [random_array(rng, shape) for shape in SHAPES]
    _step(optimizer, gradients)
    ((_, array),) = optimizer._hyper.values()
    optimizer.lr = 0.25
    _step(optimizer, gradients)
    ((_, after),) = optimizer._hyper.values()
    assert after is array
    assert array.tolist() == [0.25, np.float32(0.9), 0, 0, 1]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_restored_optimizer_goes_on_bit_for_bit(name: str, rng: np.random.Generator) -> None:
    gradients = [[random_array(rng, shape) for shape in SHAPES] for _ in range(6)]
    first = _parameters(rng)
    optimizer = optim.SGD(first, lr=0.1, **SETTINGS[name])
    for g in gradients[:3]:
        _step(optimizer, g)
    second = [nn.Parameter(p.numpy().copy()) for p in first]
    restored = optim.SGD(second, lr=9.0)
    restored.load_state_dict(optimizer.state_dict())
    for o, g in itertools.product((optimizer, restored), gradients[3:]):
        _step(o, g)
    for a, b in zip(first, second, strict=True):
        assert_identical(a.numpy(), b.numpy())


def test_a_state_that_does_not_fit_changes_nothing(rng: np.random.Generator) -> None:
    optimizer = optim.SGD(_parameters(rng), lr=0.1, momentum=0.9)
    _step(optimizer, [random_array(rng, shape) for shape in SHAPES])
    before = optimizer.state_dict()
    for wrong, message in (
        ({"velocity": before["velocity"][:2]}, "velocity of shapes"),
        ({"velocity": [np.zeros((2,)), None, None]}, r"velocity of shapes .* \[\(2,\), None, None\] received"),
        ({"lr": -1.0}, "lr must be a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict({**before, "momentum": 0.5, **wrong})
        assert optimizer.param_groups[0]["momentum"] == 0.9
    with pytest.raises(ValueError, match="the state lacks momentum, velocity"):
        optimizer.load_state_dict({"lr": 1.0, "weight_decay": 0.0, "nesterov": False})


ADAM = {
    "adam": (optim.Adam, {}),
    "adam_decay": (optim.Adam, {"weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-4}),
    "adamw": (optim.AdamW, {"weight_decay": 0.2}),
    "adamw_default": (optim.AdamW, {}),
}


@pytest.mark.parametrize("name", ADAM)
def test_adam_equals_pytorchs(backend: Backend, name: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    make, settings = ADAM[name]
    ours = _parameters(rng, backend)
    theirs = [torch.nn.Parameter(torch.from_numpy(p.numpy().astype(np.float64))) for p in ours]
    optimizer = make(ours, lr=0.05, **settings)
    reference = getattr(torch.optim, make.__name__)(theirs, lr=0.05, **settings)
    for step in range(5):
        gradients: list[Any] = [random_array(rng, shape) for shape in SHAPES]
        if step == 1:
            gradients[1] = None  # its bias correction then lags behind the others'
        for mine, other, g in zip(ours, theirs, gradients, strict=True):
            mine.grad = None if g is None else cnn.Tensor(backend.to_device(g.copy()))
            other.grad = None if g is None else torch.from_numpy(g.astype(np.float64))
        optimizer.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.numpy(), b.detach().numpy(), reduction=64)


def test_defaults_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for make in (optim.Adam, optim.AdamW):
        theirs = getattr(torch.optim, make.__name__)([torch.nn.Parameter(torch.ones(1))]).param_groups[0]
        (ours,) = make([nn.Parameter([1.0])]).param_groups
        assert {k: ours[k] for k in ours if k != "params"} == {k: theirs[k] for k in ours if k != "params"}


@pytest.mark.parametrize("name", ADAM)
def test_a_restored_adam_goes_on_bit_for_bit(name: str, rng: np.random.Generator) -> None:
    make, settings = ADAM[name]
    gradients = [[random_array(rng, shape) for shape in SHAPES] for _ in range(6)]
    first = _parameters(rng)
    optimizer = make(first, **settings)
    for g in gradients[:3]:
        _step(optimizer, g)
    second = [nn.Parameter(p.numpy().copy()) for p in first]
    restored = make(second, lr=9.0)
    restored.load_state_dict(optimizer.state_dict())
    for o, g in itertools.product((optimizer, restored), gradients[3:]):
        _step(o, g)
    for a, b in zip(first, second, strict=True):
        assert_identical(a.numpy(), b.numpy())
    with pytest.raises(ValueError, match=r"AdamW?.load_state_dict: the state lacks exp_avg_sq, steps"):
        restored.load_state_dict({k: v for k, v in optimizer.state_dict().items() if k not in ("exp_avg_sq", "steps")})


@pytest.mark.parametrize("make", [optim.SGD, optim.AdamW])
def test_groups_have_options_of_their_own(make: type[optim.Optimizer], rng: np.random.Generator) -> None:
    """As one optimizer a group; a state of several groups has a list of each option"""
    gradients = [[random_array(rng, shape) for shape in SHAPES] for _ in range(4)]
    together, apart = _parameters(rng), []
    apart = [nn.Parameter(p.numpy().copy()) for p in together]
    groups = [{"params": together[:2], "lr": 0.2}, {"params": together[2:], "weight_decay": 0.5}]
    optimizer = make(groups, lr=0.1)
    alone = [make(apart[:2], lr=0.2), make(apart[2:], lr=0.1, weight_decay=0.5)]
    for step, g in enumerate(gradients):
        if step == 2:
            again = make([{"params": together[:2]}, {"params": together[2:]}], lr=1.0)
            again.load_state_dict(optimizer.state_dict())
            optimizer = again
        _step(optimizer, g)
        _step(alone[0], g[:2])
        _step(alone[1], g[2:])
    for a, b in zip(together, apart, strict=True):
        assert_identical(a.numpy(), b.numpy())
    assert optimizer.state_dict()["lr"] == [0.2, 0.1]
    optimizer.lr = 0.3
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]
    with pytest.raises(ValueError, match="2 groups of 3 parameters in all expected"):
        optimizer.load_state_dict({**optimizer.state_dict(), "lr": [0.1]})


def test_bad_groups_are_refused() -> None:
    p = nn.Parameter([1.0])
    with pytest.raises(TypeError, match=r"a group has 'params' and may have lr, momentum.* received"):
        optim.SGD([{"params": [p], "beta": 1}], lr=0.1)
    with pytest.raises(TypeError, match="a group has 'params'"):
        optim.SGD([{"lr": 1}], lr=0.1)
    with pytest.raises(ValueError, match="a parameter is given twice"):
        optim.SGD([{"params": [p]}, {"params": [p]}], lr=0.1)
    with pytest.raises(ValueError, match="Adam: eps must be a finite number"):
        optim.Adam([{"params": [p], "eps": -1}])
    with pytest.raises(ValueError, match=r"AdamW: betas must be two numbers in \[0, 1\), received \(0.9, 1.0\)"):
        optim.AdamW([p], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="SGD: lr must be"):
        optim.SGD([p], lr=0.1).lr = -1


def test_zero_grad_forgets_or_fills(rng: np.random.Generator) -> None:
    optimizer = optim.SGD(_parameters(rng), lr=0.0)
    _step(optimizer, [random_array(rng, shape) for shape in SHAPES])
    optimizer.zero_grad(set_to_none=False)
    assert not any(p.grad.numpy().any() for p in optimizer.parameters)
    optimizer.zero_grad()
    assert all(p.grad is None for p in optimizer.parameters)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -0.1}, "lr must be a finite number, 0 or above, received -0.1"),
        ({"lr": float("nan")}, "lr must be a finite number"),
        ({"lr": 0.1, "momentum": -1.0}, "momentum must be"),
        ({"lr": 0.1, "weight_decay": float("inf")}, "weight_decay must be"),
        ({"lr": 0.1, "nesterov": True}, "nesterov needs a momentum above 0"),
    ],
)
def test_bad_hyperparameters_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim.SGD([nn.Parameter([1.0])], **settings)


def test_bad_parameters_are_refused() -> None:
    p = nn.Parameter([1.0])
    with pytest.raises(ValueError, match="there are no parameters to train"):
        optim.SGD([], lr=0.1)
    with pytest.raises(TypeError, match="parameter 1 must be a Tensor, received ndarray"):
        optim.SGD([p, np.zeros(3)], lr=0.1)
    with pytest.raises(ValueError, match="a parameter is given twice"):
        optim.SGD([p, p], lr=0.1)
    with pytest.raises(TypeError, match=r"parameter 0 of shape \(1,\) is a result, not a leaf"):
        optim.SGD([p * 2], lr=0.1)
    p.grad = cnn.Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"parameter 0 is \(1,\) float32, its gradient \(2,\) float32"):
        optim.SGD([p], lr=0.1).step()
    assert p.numpy().tolist() == [1.0]


def test_cosine_falls_from_lr_to_zero() -> None:
    values = [optim.cosine(0.4, step, 100) for step in range(101)]
    assert values[0] == 0.4
    assert values[50] == pytest.approx(0.2)
    assert values[100] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(values))
    warm = [optim.cosine(0.4, step, 100, warmup=4) for step in range(6)]
    assert warm[0] == pytest.approx(0.4 / 5)
    assert all(a < b for a, b in itertools.pairwise(warm[:5]))
    with pytest.raises(ValueError, match="steps must be at least 1, received 0"):
        optim.cosine(0.4, 0, 0)


def test_what_is_no_iterable_of_parameters_is_named() -> None:
    layer = cnn.nn.Linear(2, 3)
    for given in (layer, layer.weight, [{"params": layer.weight}]):
        with pytest.raises(TypeError, match=r"SGD: parameters must be an iterable .*model.parameters\(\), received a"):
            cnn.optim.SGD(given, lr=0.1)
