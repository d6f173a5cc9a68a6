"""Dropout: the generator's published answers, the same mask everywhere, exact scaling."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import Backend
from cnnengine.backends.numpy.dropout import philox

from .cases.elementwise import SIZES
from .harness import oracle, random_array, run_verb, runs


def test_philox_known_answers() -> None:
    """Philox4x32-10 of the authors' known-answer file: all zeros, and all ones"""
    zeros = philox(0, np.zeros(1, np.uint64), 0)[0]
    assert [f"{w:08x}" for w in zeros] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    ones = philox(2**64 - 1, np.full(1, 2**64 - 1, np.uint64), 2**64 - 1)[0]
    assert [f"{w:08x}" for w in ones] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]


@pytest.mark.parametrize("name", SIZES)
def test_same_bits_as_the_oracle(backend: Backend, name: str, rng: np.random.Generator) -> None:
    tier, shape = SIZES[name]
    if not runs(backend, tier):
        pytest.skip(f"{tier} cases are too large for {backend.name}")
    x = random_array(rng, shape)
    state = np.array([0x123456789ABCDEF0, 0xFFFFFFFF0], np.uint64)
    threshold, scale = round(0.3 * 2**32), 1 / 0.7

    def call(which: Backend):
        return lambda x, state, y: which.dropout(x, y, threshold, scale, state)

    (expected,) = run_verb(oracle(), call(oracle()), [x, state], [(shape, "float32")], "oracle")
    (actual,) = run_verb(backend, call(backend), [x, state], [(shape, "float32")], f"{backend.name} dropout")
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("offset", [0, 1])
def test_larger_than_the_caches(backend: Backend, offset: int, rng: np.random.Generator) -> None:
    """Stores past the caches, where the array's address allows them"""
    if backend.name != "native":
        pytest.skip("only the native kernels look at addresses and sizes")
    n = 9 * 2**18 + 5
    x, state = random_array(rng, (n + offset,))[offset:], np.array([3, 2**33], np.uint64)
    memory = np.full(n + 64, 7, np.float32)
    start = -memory.ctypes.data // 4 % 16 + offset
    y, expected = memory[start : start + n], np.empty(n, np.float32)
    backend.dropout(x, y, 2**31, 2.0, state)
    oracle().dropout(x, expected, 2**31, 2.0, state)
    np.testing.assert_array_equal(y, expected)
    assert (memory[:start] == 7).all()
    assert (memory[start + n :] == 7).all()


def test_share_scale_and_repeatability(backend: Backend) -> None:
    x = np.ones((40, 50), np.float32)
    cnn.manual_seed(5)
    first = F.dropout(cnn.Tensor(backend.to_device(x)), 0.25).numpy().copy()
    second = F.dropout(cnn.Tensor(backend.to_device(x)), 0.25).numpy().copy()
    cnn.manual_seed(5)
    again = F.dropout(cnn.Tensor(backend.to_device(x)), 0.25).numpy()
    np.testing.assert_array_equal(first, again)
    assert (first != second).any(), "each call must draw a mask of its own"
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 5 * (0.25 * 0.75 / x.size) ** 0.5


def test_backward_uses_the_same_mask(backend: Backend, rng: np.random.Generator) -> None:
    x = cnn.Tensor(backend.to_device(np.ones((7, 9), np.float32)), requires_grad=True)
    y = F.dropout(x, 0.5)
    y.backward(backend.to_device(np.ones((7, 9), np.float32)))
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_evaluation_changes_nothing() -> None:
    x = cnn.Tensor([1.0, 2.0])
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_bad_probability_is_named(p: float) -> None:
    with pytest.raises(ValueError, match="p must be in"):
        F.dropout(cnn.Tensor([1.0]), p)
