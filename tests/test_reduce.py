"""Reductions on every backend, over any axes, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import REDUCE as OPS
from cnnengine.backends.contract import Backend
from cnnengine.shapes import reduce_shape

from .cases.elementwise import REDUCE
from .compare import assert_close
from .gradients import check_gradients
from .harness import oracle, random_array, root_of_squares, run_verb, runs, tie_free


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", REDUCE)
def test_reduce(backend: Backend, op: str, name: str, rng: np.random.Generator) -> None:
    tier, outer, reduced, inner = REDUCE[name]
    if not runs(backend, tier):
        pytest.skip(f"{tier} cases are too large for {backend.name}")
    shape = reduce_shape(outer, reduced, inner)
    x = random_array(rng, (outer, reduced, inner))

    def call(which: Backend):
        return lambda x, y: which.reduce(op, shape, x, y)

    output = [((outer, inner), "float32")]
    (expected,) = run_verb(oracle(), call(oracle()), [x], output, "oracle")
    (actual,) = run_verb(backend, call(backend), [x], output, f"{backend.name} {op} {name}")
    terms = root_of_squares(call(oracle()), [x], (outer, inner)) if op == "sum" else None
    assert_close(actual, expected, reduced, f"{backend.name} {op} {name}", terms)
    (again,) = run_verb(backend, call(backend), [x], output, "again")
    np.testing.assert_array_equal(actual, again, err_msg="the same input must give the same bits")


def test_max_lets_nan_win(backend: Backend) -> None:
    x = np.array([[1, np.nan, 3], [1, 2, -np.inf]], np.float32)
    np.testing.assert_array_equal(cnn.Tensor(backend.to_device(x)).max(axis=1).numpy(), [np.nan, 2])


AXES = [None, 0, 1, -1, (0, 1), (0, 2), (0, 1, 2), (-1, 0)]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_axes(backend: Backend, axis, keepdims: bool, rng: np.random.Generator) -> None:
    x = random_array(rng, (2, 3, 5))
    t = cnn.Tensor(backend.to_device(x))
    for name in ("sum", "mean", "max"):
        actual = getattr(t, name)(axis, keepdims).numpy()
        assert_close(actual, getattr(x.astype(np.float64), name)(axis=axis, keepdims=keepdims), 30, name)


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_derivatives(axis, rng: np.random.Generator) -> None:
    for f in (F.sum, F.mean, F.max):
        check_gradients(lambda x, f=f: f(x, axis), [tie_free(rng, (2, 3, 5), "float64")], rng)


def test_max_shares_its_gradient_among_equals() -> None:
    x = cnn.Tensor([1.0, 3.0, 3.0], requires_grad=True)
    x.max().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0.5, 0.5])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mean_of_more_than_float16_holds(backend: Backend, dtype: str) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"{backend.name} does not compute in {dtype}")
    x = cnn.Tensor(backend.to_device(np.full(70001, 1.5, dtype)), requires_grad=True)
    y = x.mean()
    assert (y.item(), y.dtype) == (1.5, x.dtype)
    y.backward(70001.0 if dtype == "bfloat16" else 65504.0)
    assert_close(x.grad.numpy(), np.full(70001, 1.0 if dtype == "bfloat16" else 65504 / 70001))


def test_bad_input_is_named() -> None:
    x = cnn.Tensor(np.zeros((2, 3), np.float32))
    with pytest.raises(TypeError, match=r"sum: axis must be an int, a tuple of ints or None, received 1\.5"):
        x.sum(1.5)
    np.testing.assert_array_equal(x.sum([0, 1]).numpy(), 0)
    with pytest.raises(ValueError, match=r"sum: axis 2 is out of range for x \(2, 3\)"):
        x.sum(2)
    with pytest.raises(ValueError, match="names an axis twice"):
        x.sum((0, -2))
    with pytest.raises(ValueError, match="empty x"):
        x[:0].mean()
