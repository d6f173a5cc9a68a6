"""Matrix products on every backend, with NumPy's shapes, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import IDENTITY, Backend, Epilogue

from .cases.gemm import CASES, GemmCase
from .compare import assert_close
from .gradients import check_gradients
from .harness import oracle, random_array, root_of_squares, run_verb, runs


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gemm(backend: Backend, case: GemmCase, rng: np.random.Generator) -> None:
    if not runs(backend, case.tier):
        pytest.skip(f"{case.tier} cases are too large for {backend.name}")
    a, b = random_array(rng, case.a), random_array(rng, case.b)
    output = [((case.batch, case.M, case.N), "float32")]

    def call(which: Backend):
        return lambda a, b, c: which.gemm(case.shape, a, b, c, IDENTITY)

    (expected,) = run_verb(oracle(), call(oracle()), [a, b], output, "oracle")
    (actual,) = run_verb(backend, call(backend), [a, b], output, f"{backend.name} {case}")
    terms = root_of_squares(call(oracle()), [a, b], output[0][0])
    assert_close(actual, expected, case.K, f"{backend.name} {case}", terms)


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("uneven", "primes", "lenet_fc1")], ids=str)
def test_epilogue(backend: Backend, case: GemmCase, rng: np.random.Generator) -> None:
    if not runs(backend, case.tier):
        pytest.skip(f"{case.tier} cases are too large for {backend.name}")
    a, b = random_array(rng, case.a), random_array(rng, case.b)
    channels = [random_array(rng, (case.N,)) for _ in range(3)]
    residual = random_array(rng, (case.batch, case.M, case.N))

    def call(which: Backend):
        def run(a, b, bias, scale, shift, residual, c):
            which.gemm(case.shape, a, b, c, Epilogue(bias, scale, shift, residual, "relu"))

        return run

    output = [((case.batch, case.M, case.N), "float32")]
    given = [a, b, *channels, residual]
    (expected,) = run_verb(oracle(), call(oracle()), given, output, "oracle")
    (actual,) = run_verb(backend, call(backend), given, output, f"{backend.name} {case}")
    assert_close(actual, expected, case.K + 4, f"{backend.name} {case}")


MATMULS = [
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 2, 3, 4), (2, 2, 4, 1)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 3)),
]


@pytest.mark.parametrize(("a", "b"), MATMULS, ids=str)
def test_matmul_shapes_are_numpys(backend: Backend, a, b, rng: np.random.Generator) -> None:
    left, right = random_array(rng, a), random_array(rng, b)
    y = cnn.Tensor(backend.to_device(left)) @ cnn.Tensor(backend.to_device(right))
    assert_close(y.numpy(), np.asarray(left.astype(np.float64) @ right), 4)


def test_matmul_of_an_array_and_a_tensor() -> None:
    x = cnn.Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y = np.full((4, 2), 2, np.float32) @ x
    assert isinstance(y, cnn.Tensor)
    np.testing.assert_array_equal(y.numpy(), np.full((4, 3), 4))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.full((2, 3), 8))


@pytest.mark.parametrize(("a", "b"), MATMULS, ids=str)
def test_matmul_derivatives(a, b, rng: np.random.Generator) -> None:
    check_gradients(F.matmul, [rng.standard_normal(a), rng.standard_normal(b)], rng)


@pytest.mark.parametrize("x", [(5, 3), (3,), (2, 4, 3)], ids=str)
def test_linear(backend: Backend, x, rng: np.random.Generator) -> None:
    given, w, b = random_array(rng, x), random_array(rng, (4, 3)), random_array(rng, (4,))
    tensors = [cnn.Tensor(backend.to_device(a), requires_grad=True) for a in (given, w, b)]
    y = F.linear(*tensors)
    assert_close(y.numpy(), given.astype(np.float64) @ w.T + b, 4)
    dy = random_array(rng, y.shape)
    y.backward(backend.to_device(dy))
    rows, drows = given.reshape(-1, 3).astype(np.float64), dy.reshape(-1, 4)
    assert_close(tensors[0].grad.numpy(), dy.astype(np.float64) @ w, 4, "dx")
    assert_close(tensors[1].grad.numpy(), drows.T @ rows, len(rows), "dw")
    assert_close(tensors[2].grad.numpy(), drows.astype(np.float64).sum(0), len(rows), "db")


def test_linear_derivatives(rng: np.random.Generator) -> None:
    check_gradients(F.linear, [rng.standard_normal(s) for s in ((2, 5, 3), (4, 3), (4,))], rng)


def test_bad_input_is_named() -> None:
    x, w = cnn.Tensor(np.zeros((2, 3), np.float32)), cnn.Tensor(np.zeros((4, 5), np.float32))
    with pytest.raises(ValueError, match=r"linear: expected x .* received x \(2, 3\), w \(4, 5\)"):
        F.linear(x, w)
    with pytest.raises(ValueError, match=r"b must have shape \(4,\), received \(3,\)"):
        F.linear(cnn.Tensor(np.zeros((2, 5), np.float32)), w, cnn.Tensor(np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match="matmul: expected"):
        x @ x
    with pytest.raises(ValueError, match="empty"):
        F.linear(x[:0], cnn.Tensor(np.zeros((4, 3), np.float32)))
