"""Elementwise arithmetic on every backend, and its derivatives in float64."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import BINARY, UNARY, Backend
from cnnengine.shapes import broadcast_shape

from .cases.elementwise import BROADCAST, SIZES
from .compare import assert_close
from .gradients import check_gradients
from .harness import oracle, random_array, run_verb, runs

ROUNDINGS = 16  # exp, log, pow and sqrt may be off by a few units in the last place, as if 16 sums were rounded


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("name", BROADCAST)
def test_binary(backend: Backend, op: str, name: str, rng: np.random.Generator) -> None:
    tier, a_shape, b_shape = BROADCAST[name]
    if not runs(backend, tier):
        pytest.skip(f"{tier} cases are too large for {backend.name}")
    a, b = random_array(rng, a_shape), random_array(rng, b_shape)
    if op == "pow":
        a = np.abs(a) + np.float32(0.1)
    if op == "equal":
        a, b = np.round(a), np.round(b)
    shape, walk = broadcast_shape(op, a.shape, b.shape)

    def call(which: Backend):
        return lambda a, b, y: which.binary(op, walk, a, b, y)

    (expected,) = run_verb(oracle(), call(oracle()), [a, b], [(shape, "float32")], "oracle")
    (actual,) = run_verb(backend, call(backend), [a, b], [(shape, "float32")], f"{backend.name} {op} {name}")
    assert_close(actual, expected, ROUNDINGS if op == "pow" else 1, f"{backend.name} {op} {name}")


def test_division_by_zero_and_overflow(backend: Backend) -> None:
    a = np.array([1, -1, 0, 3e38, np.nan, np.inf], np.float32)
    b = np.array([0, 0, 0, 1e-38, 1, np.inf], np.float32)
    walk = broadcast_shape("div", a.shape, b.shape)[1]
    (y,) = run_verb(
        backend, lambda a, b, y: backend.binary("div", walk, a, b, y), [a, b], [(a.shape, "float32")], "div"
    )
    np.testing.assert_array_equal(y, [np.inf, -np.inf, np.nan, np.inf, np.nan, np.nan])


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("name", SIZES)
def test_unary(backend: Backend, op: str, name: str, rng: np.random.Generator) -> None:
    tier, shape = SIZES[name]
    if not runs(backend, tier):
        pytest.skip(f"{tier} cases are too large for {backend.name}")
    x = random_array(rng, shape)
    if op in ("log", "sqrt"):
        x = np.abs(x) + np.float32(1e-3)

    def call(which: Backend):
        return lambda x, y: which.unary(op, x, y)

    (expected,) = run_verb(oracle(), call(oracle()), [x], [(shape, "float32")], "oracle")
    (actual,) = run_verb(backend, call(backend), [x], [(shape, "float32")], f"{backend.name} {op} {name}")
    assert_close(actual, expected, ROUNDINGS, f"{backend.name} {op} {name}")


@pytest.mark.parametrize(
    ("op", "x", "y"),
    [
        ("exp", [0, 200, -200, np.inf, -np.inf, np.nan], [1, np.inf, 0, np.inf, 0, np.nan]),
        ("log", [1, 0, -1, np.inf, np.nan], [0, -np.inf, np.nan, np.inf, np.nan]),
        ("sqrt", [4, 0, -1, np.inf, np.nan], [2, 0, np.nan, np.inf, np.nan]),
        ("neg", [0, 2, np.inf, np.nan], [-0.0, -2, -np.inf, np.nan]),
    ],
)
def test_unary_at_its_ends(backend: Backend, op: str, x: list[float], y: list[float]) -> None:
    given = np.array(x, np.float32)
    (got,) = run_verb(backend, lambda x, y: backend.unary(op, x, y), [given], [(given.shape, "float32")], op)
    assert_close(got, np.array(y), ROUNDINGS)


@pytest.mark.parametrize("name", [n for n, (tier, *_) in BROADCAST.items() if tier == "tiny"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "pow"])
def test_derivatives(op: str, name: str, rng: np.random.Generator) -> None:
    _, a_shape, b_shape = BROADCAST[name]
    a, b = np.abs(rng.standard_normal(a_shape)) + 0.5, np.abs(rng.standard_normal(b_shape)) + 0.5
    check_gradients(lambda a, b: getattr(F, op)(a, b), [a, b], rng)


@pytest.mark.parametrize("op", UNARY)
def test_derivatives_of_one_operand(op: str, rng: np.random.Generator) -> None:
    check_gradients(getattr(F, op), [np.abs(rng.standard_normal((3, 4))) + 0.5], rng)


def test_operators_and_python_numbers(backend: Backend) -> None:
    x = cnn.Tensor(backend.to_device(np.array([1.0, 2.0, 4.0], np.float32)))
    for result, expected in (
        (x + 1, [2, 3, 5]),
        (1 + x, [2, 3, 5]),
        (x - 1, [0, 1, 3]),
        (1 - x, [0, -1, -3]),
        (x * 3, [3, 6, 12]),
        (x / 2, [0.5, 1, 2]),
        (4 / x, [4, 2, 1]),
        (x**2, [1, 4, 16]),
        (-x, [-1, -2, -4]),
        (2**x, [2, 4, 16]),
        (x * np.int64(3), [3, 6, 12]),
        (np.int32(3) - x, [2, 1, -1]),
        (x * np.float64(0.5), [0.5, 1, 2]),
        (np.float16(2) * x, [2, 4, 8]),
        (x + x, [2, 4, 8]),
    ):
        assert result.dtype == np.float32
        assert_close(result.numpy(), np.array(expected, np.float64), ROUNDINGS)


def test_array_on_the_left_gives_a_tensor(backend: Backend) -> None:
    y = backend.to_device(np.ones(3, np.float32)) + cnn.Tensor(backend.to_device(np.array([1, 2, 3], np.float32)))
    assert isinstance(y, cnn.Tensor)
    np.testing.assert_array_equal(y.numpy(), [2, 3, 4])


def test_operands_that_are_no_tensors() -> None:
    with cnn.use_backend("numpy"):
        y = F.pow(2, np.array([1.0, 3.0]))
        assert y.dtype == np.float64
        np.testing.assert_array_equal(y.numpy(), [2, 8])
        assert F.add(1, 2).item() == F.add([1.0], 2).item() == 3


def test_power_at_zero(backend: Backend) -> None:
    a, b = ([0.0, 2.0, 0.0], [0.0, 0.0, 2.0])
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = [torch.tensor(v, requires_grad=True) for v in (a, b)]
    (theirs[0] ** theirs[1]).sum().backward()
    ours = [cnn.Tensor(backend.to_device(np.array(v, np.float32)), requires_grad=True) for v in (a, b)]
    (ours[0] ** ours[1]).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine.grad.numpy(), other.grad.double().numpy(), ROUNDINGS)


def test_bad_input_is_named() -> None:
    x = cnn.Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"add: shapes \(2,\) and \(3,\) cannot be broadcast"):
        x + cnn.Tensor([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="nothing is converted silently"):
        x + np.zeros(2)
    with pytest.raises(ValueError, match="an operand is empty"):
        x[:0] + x[:0]
