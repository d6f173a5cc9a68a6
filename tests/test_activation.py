"""Activations on every backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import ACTIVATION_SAVES, ACTIVATIONS, Backend, Epilogue
from cnnengine.backends.numpy.activation import activate
from cnnengine.shapes import conv2d_shape, gemm_shape

from .cases.elementwise import SIZES
from .compare import assert_close
from .gradients import check_gradients
from .harness import oracle, random_array, run_verb, runs

SPECIAL = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38, 3.0, -3.0, 6.0], np.float32)
ROUNDINGS = 16  # as in test_binary.py: exp and its kin may be off by a few units in the last place
EXACT = ("identity", "relu", "relu6")  # nothing is rounded
PARAMETERS = {"leaky_relu": 0.25, "elu": 1.5}

FUNCTIONS: dict[str, Callable[[cnn.Tensor], cnn.Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "elu": lambda x: F.elu(x, 1.25),
}
MODULES: dict[str, tuple[nn.Module, str]] = {
    "relu": (nn.ReLU(), "ReLU()"),
    "relu6": (nn.ReLU6(), "ReLU6()"),
    "leaky_relu": (nn.LeakyReLU(0.2), "LeakyReLU(negative_slope=0.2)"),
    "silu": (nn.SiLU(), "SiLU()"),
    "gelu": (nn.GELU(), "GELU(approximate='none')"),
    "gelu_tanh": (nn.GELU("tanh"), "GELU(approximate='tanh')"),
    "sigmoid": (nn.Sigmoid(), "Sigmoid()"),
    "tanh": (nn.Tanh(), "Tanh()"),
    "hardswish": (nn.Hardswish(), "Hardswish()"),
    "hardsigmoid": (nn.Hardsigmoid(), "Hardsigmoid()"),
    "elu": (nn.ELU(1.25), "ELU(alpha=1.25)"),
}


def theirs(kind: str, torch: Any) -> Callable[[Any], Any]:
    """PyTorch's function of the same parameters as FUNCTIONS."""
    functional = torch.nn.functional
    special = {
        "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
        "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
        "elu": lambda x: functional.elu(x, 1.25),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
    }
    return special.get(kind) or getattr(functional, kind)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("name", SIZES)
def test_forward_and_backward(backend: Backend, name: str, kind: str, rng: np.random.Generator) -> None:
    tier, shape = SIZES[name]
    if not runs(backend, tier):
        pytest.skip(f"{tier} cases are too large for {backend.name}")
    x, dy, parameter = random_array(rng, shape) * np.float32(3), random_array(rng, shape), PARAMETERS.get(kind, 0.0)
    x.reshape(-1)[: len(SPECIAL)] = SPECIAL[: x.size]

    def forward(which: Backend):
        return lambda x, y: which.activation_forward(kind, x, y, parameter)

    def backward(which: Backend):
        return lambda saved, dy, dx: which.activation_backward(kind, saved, dy, dx, parameter)

    output = [(shape, "float32")]
    (expected,) = run_verb(oracle(), forward(oracle()), [x], output, "oracle")
    (y,) = run_verb(backend, forward(backend), [x], output, f"{backend.name} {kind}")
    saved = y if ACTIVATION_SAVES[kind] == "y" else x
    (expected_dx,) = run_verb(oracle(), backward(oracle()), [saved, dy], output, "oracle")
    (dx,) = run_verb(backend, backward(backend), [saved, dy], output, f"{backend.name} {kind} backward")
    if kind in EXACT:
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(dx, expected_dx)
    else:
        huge = np.abs(x) > 1e37  # would make the comparator's root mean square, and so its tolerance, huge too
        for actual, wanted, what in ((y, expected, "y"), (dx, expected_dx, "dx")):
            assert_close(np.where(huge, 0, actual), np.where(huge, 0, wanted), ROUNDINGS, f"{kind} {what}")
            assert_close(actual[huge], wanted[huge], ROUNDINGS, f"{kind} {what} of huge x")


def everywhere(rng: np.random.Generator) -> np.ndarray:
    """float32 numbers of every exponent, denormal ones too, and a fine grid where the activations bend"""
    any_bits = rng.integers(0, 2**32, 60_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    grids = [np.linspace(-end, end, 30_001, dtype=np.float32) for end in (1, 16, 110)]
    return np.concatenate([any_bits[np.isfinite(any_bits)], *grids])


UNITS = {"silu": 4, "gelu": 9, "gelu_tanh": 4, "sigmoid": 3, "tanh": 2, "hardswish": 3, "elu": 2}


@pytest.mark.parametrize("kind", UNITS)
def test_units_in_the_last_place(backend: Backend, kind: str, rng: np.random.Generator) -> None:
    """Of the native kernels over the whole range. An intermediate result that is denormal may cost x times its unit;
    gelu_tanh amplifies the rounding of the argument of its exponential by that argument's size."""
    if backend.name != "native":
        pytest.skip("the other backends call their platform's functions")
    x = everywhere(rng)
    y = np.empty_like(x)
    backend.activation_forward(kind, x, y, 1.0)
    exact = activate(kind, x.astype(np.float64), 1.0)
    size = np.maximum(np.abs(exact), 2.0**-126 * np.maximum(1, np.abs(x).astype(np.float64)))
    unit = 2.0 ** (np.floor(np.log2(size)) - 23)
    if kind == "gelu_tanh":
        inside = np.clip(x.astype(np.float64), -11, 11)
        unit = unit * (1 + np.abs(2 * math.sqrt(2 / math.pi) * (inside + 0.044715 * inside**3)))
    error = np.abs(y - exact) / unit
    assert error.max() <= UNITS[kind], f"{error.max():.1f} units at {x[error.argmax()]}"


@pytest.mark.parametrize("kind", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("offset", [0, 1, 7])
def test_larger_than_the_caches(backend: Backend, kind: str, offset: int, rng: np.random.Generator) -> None:
    """Stores past the caches start at the first aligned element, wherever the array does"""
    if backend.name != "native":
        pytest.skip("only the native kernels look at addresses and sizes")
    n = 3 * 2**20 + 5
    x, dy = random_array(rng, (n + 16,)), random_array(rng, (n + 16,))
    memory = np.full((2, n + 48), 7, np.float32)
    for a in memory:
        a[:16] = a[-16:] = 5
    y, dx = (a[16 + offset : 16 + offset + n] for a in memory)
    backend.activation_forward(kind, x[offset : offset + n], y, 0.0)
    saved = y if ACTIVATION_SAVES[kind] == "y" else x[offset : offset + n]
    backend.activation_backward(kind, saved, dy[:n], dx, 0.0)
    ends = np.r_[0:100, n // 2 : n // 2 + 40_000, n - 100 : n]
    small = [np.empty(len(ends), np.float32) for _ in range(2)]
    backend.activation_forward(kind, x[offset : offset + n][ends], small[0], 0.0)
    backend.activation_backward(kind, saved[ends], dy[:n][ends], small[1], 0.0)
    np.testing.assert_array_equal(y[ends], small[0])
    np.testing.assert_array_equal(dx[ends], small[1])
    for a in memory:
        assert (a[:16] == 5).all()
        assert (a[16 : 16 + offset] == 7).all()
        assert (a[16 + offset + n : -16] == 7).all()
        assert (a[-16:] == 5).all()


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_in_place(backend: Backend, kind: str, rng: np.random.Generator) -> None:
    """The contract lets y be x and dx be dy"""
    x, dy = random_array(rng, (37,)), random_array(rng, (37,))
    (y,) = run_verb(backend, lambda x, y: backend.activation_forward(kind, x, y, 0.5), [x], [(x.shape, x.dtype)], kind)
    both = backend.to_device(x.copy())
    backend.activation_forward(kind, both, both, 0.5)
    np.testing.assert_array_equal(backend.to_host(both), y)

    def backward(saved: Any, dy: Any, dx: Any) -> None:
        backend.activation_backward(kind, saved, dy, dx, 0.5)

    (dx,) = run_verb(backend, backward, [y, dy], [(x.shape, x.dtype)], kind)
    gradient = backend.to_device(dy.copy())
    backend.activation_backward(kind, both, gradient, gradient, 0.5)
    np.testing.assert_array_equal(backend.to_host(gradient), dx)


@pytest.mark.parametrize("kind", [k for k in ACTIVATIONS if k != "identity"])
def test_epilogue(backend: Backend, kind: str, rng: np.random.Generator) -> None:
    """Of a convolution and of a product, whether the backend fuses it or not"""
    s = conv2d_shape((1, 4, 5, 3), (18, 3, 3, 3), padding=1)
    product = gemm_shape(1, 3, 19, 5, False, True, False, False)
    x, w, bias, residual = (random_array(rng, shape) for shape in (s.x, s.w, (s.K,), s.y))
    a, b = random_array(rng, (1, 3, 5)), random_array(rng, (1, 19, 5))
    parameter = PARAMETERS.get(kind, 0.0)

    def convolve(which: Backend):
        def call(x, w, bias, residual, y):
            epilogue = Epilogue(bias, residual=residual, activation=kind, parameter=parameter)
            which.conv2d_forward(s, x, w, y, epilogue, None)

        return call

    def multiply(which: Backend):
        return lambda a, b, c: which.gemm(product, a, b, c, Epilogue(activation=kind, parameter=parameter))

    for call, inputs, shape in ((convolve, [x, w, bias, residual], s.y), (multiply, [a, b], (1, 3, 19))):
        (expected,) = run_verb(oracle(), call(oracle()), inputs, [(shape, "float32")], "oracle")
        (actual,) = run_verb(backend, call(backend), inputs, [(shape, "float32")], backend.name)
        assert_close(actual, expected, 32, kind)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_derivatives(kind: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 5)) * 3
    kinks = np.array([-3.0, 0.0, 3.0, 6.0])
    distance = x[..., None] - kinks
    x += np.where(np.abs(distance) < 1e-3, 0.01, 0).sum(-1)  # differences must not straddle one
    check_gradients(FUNCTIONS[kind], [x], rng)


def test_every_activation_has_a_function_and_a_module() -> None:
    assert set(FUNCTIONS) == set(MODULES) == set(ACTIVATIONS) - {"identity"}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_as_pytorch(backend: Backend, kind: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    points = [0.0, -0.0, np.nan, -np.inf, 1e-45, -1e-45, 3.0, -3.0, 6.0, 100.0, -100.0, 1e20, -1e20]
    values = np.concatenate([np.array(points, np.float32), random_array(rng, (23,))])
    x = torch.from_numpy(np.tile(values, 4)).requires_grad_()  # in whole vectors: its single elements differ at NaN
    y = theirs(kind, torch)(x)
    y.backward(torch.ones_like(y))
    ours = cnn.Tensor(backend.to_device(values.copy()), requires_grad=True)
    result = FUNCTIONS[kind](ours)
    result.backward(backend.to_device(np.ones_like(values)))
    dx = x.grad.numpy()[: len(values)].copy()
    if kind == "gelu_tanh":  # its derivative overflows to NaN on a large finite x
        dx[np.abs(values) == np.float32(1e20)] = [1, 0]
    expected = y.detach().numpy()[: len(values)]
    for actual, wanted, what in ((result.numpy(), expected, "y"), (ours.grad.numpy(), dx, "dx")):
        finite = np.abs(values) < 1e10
        for part in (finite, ~finite):
            assert_close(actual[part], wanted[part].astype(np.float64), 64, f"{kind} {what}")


@pytest.mark.parametrize("parameter", [-0.5, -1.0, -3.0])
@pytest.mark.parametrize("kind", ["leaky_relu", "elu"])
def test_negative_parameters(backend: Backend, kind: str, parameter: float, rng: np.random.Generator) -> None:
    """The result is positive on both sides of 0. By their definitions, alone and behind a linear layer"""
    x = np.concatenate([SPECIAL, random_array(rng, (37,)) * 3]).astype(np.float32)
    dy = random_array(rng, x.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = x.astype(np.float64)
        slope = np.full_like(wide, parameter) if kind == "leaky_relu" else parameter * np.exp(np.minimum(wide, 0))
        lower = wide * parameter if kind == "leaky_relu" else parameter * np.expm1(np.minimum(wide, 0))
        y = np.where(x > 0, wide, lower).astype(np.float32)
        dx = np.where(x > 0, 1, slope) * dy
    ordinary = ~(np.abs(x) > 1e37)
    function = F.leaky_relu if kind == "leaky_relu" else F.elu
    for recorded in (False, True):
        ours = cnn.Tensor(backend.to_device(x), requires_grad=recorded)
        result = function(ours, parameter)
        for part in (ordinary, ~ordinary):
            assert_close(result.numpy()[part], y[part], ROUNDINGS, f"{kind} y")
    result.backward(backend.to_device(dy))
    assert ours.grad is not None
    assert_close(ours.grad.numpy()[ordinary], dx[ordinary], ROUNDINGS, f"{kind} dx")

    column = cnn.Tensor(backend.to_device(x[ordinary][:, None]), requires_grad=True)
    one = cnn.Tensor(backend.to_device(np.ones((1, 1), np.float32)))
    result = F.linear(column, one, activation=kind, activation_parameter=parameter)
    result.backward(backend.to_device(dy[ordinary][:, None]))
    assert column.grad is not None
    assert_close(result.numpy()[:, 0], y[ordinary], ROUNDINGS, f"linear and {kind}, y")
    assert_close(column.grad.numpy()[:, 0], dx[ordinary], ROUNDINGS, f"linear and {kind}, dx")


@pytest.mark.parametrize("kind", MODULES)
def test_modules(kind: str, rng: np.random.Generator) -> None:
    module, text = MODULES[kind]
    x = cnn.Tensor(random_array(rng, (2, 3)))
    np.testing.assert_array_equal(module(x).numpy(), FUNCTIONS[kind](x).numpy())
    assert repr(module) == text


@pytest.mark.parametrize("activation", ["silu", "leaky_relu", "elu", "gelu"])
def test_fused_with_a_convolution(backend: Backend, activation: str, rng: np.random.Generator) -> None:
    """One pass without a gradient, composed with one: the same result"""
    x, w = (cnn.Tensor(backend.to_device(random_array(rng, s))) for s in ((1, 4, 4, 2), (3, 3, 3, 2)))
    fused = F.conv2d_norm_act(x, w, activation=activation)
    composed = F.conv2d_norm_act(cnn.Tensor(x.data, requires_grad=True), w, activation=activation)
    assert composed.requires_grad
    assert_close(fused.numpy(), composed.numpy().astype(np.float64), ROUNDINGS)


def test_what_backward_needs_is_watched() -> None:
    """gelu reads its input, relu its result: a change of either in between is noticed"""
    x = cnn.Tensor(np.ones(3, np.float32), requires_grad=True)
    y = F.gelu(x)
    x.bump_version()
    with pytest.raises(RuntimeError, match=r"its input 0, shape \(3,\), was changed in place"):
        y.backward(np.ones(3, np.float32))
    y = F.sigmoid(x)
    y.bump_version()
    with pytest.raises(RuntimeError, match=r"its result, shape \(3,\), was changed in place"):
        y.backward(np.ones(3, np.float32))


def test_bad_input_is_named() -> None:
    x = cnn.Tensor(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="relu: empty x"):
        F.relu(cnn.Tensor(np.zeros((0, 3), np.float32)))
    with pytest.raises(TypeError, match="received int64"):
        F.relu(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="leaky_relu: negative_slope must be a finite number, received nan"):
        F.leaky_relu(x, float("nan"))
    with pytest.raises(ValueError, match="elu: alpha must be a finite number"):
        nn.ELU(float("inf"))
    with pytest.raises(ValueError, match="gelu: approximate must be 'none' or 'tanh', received 'fine'"):
        F.gelu(x, "fine")
    with pytest.raises(ValueError, match="GELU: approximate must be"):
        nn.GELU("fine")
    with pytest.raises(ValueError, match="unknown kind 'mish'"):
        oracle().activation_forward("mish", x.data, x.data, 0.0)
