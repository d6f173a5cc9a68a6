"""split, stack and pad on every backend against NumPy, their derivatives and what shares memory."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import Backend

from .gradients import check_gradients
from .harness import random_array


@pytest.mark.parametrize(
    ("sizes", "axis", "parts"), [(2, 0, [2, 2, 1]), ([1, 3], 1, [1, 3]), ([2, 1], -1, [2, 1]), (5, 0, [5])]
)
def test_split(backend: Backend, sizes, axis: int, parts: list[int], rng: np.random.Generator) -> None:
    x, dy = random_array(rng, (5, 4, 3)), random_array(rng, (5, 4, 3))
    given = cnn.Tensor(backend.to_device(x), requires_grad=True)
    bounds = np.cumsum(parts)[:-1]
    pieces = F.split(given, sizes, axis)
    total = cnn.Tensor(backend.to_device(np.zeros((), np.float32)))
    for piece, want, factor in zip(pieces, np.split(x, bounds, axis), np.split(dy, bounds, axis), strict=True):
        np.testing.assert_array_equal(piece.numpy(), want)
        total = total + (piece * cnn.Tensor(backend.to_device(np.ascontiguousarray(factor)))).sum()
    total.backward()
    np.testing.assert_array_equal(given.grad.numpy(), dy)


def test_parts_without_a_gradient_leave_zeros(rng: np.random.Generator) -> None:
    x = cnn.Tensor(random_array(rng, (4, 6)), requires_grad=True)
    first, _, last = F.split(x, [1, 3, 2], 1)
    ((first * 2).sum() + last.sum()).backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.broadcast_to([2, 0, 0, 0, 1, 1], (4, 6)))


def test_a_tensor_with_other_uses(rng: np.random.Generator) -> None:
    """The whole's gradient is added to that of its other uses, and a part used twice has the sum of both."""
    x = cnn.Tensor(random_array(rng, (2, 3)), requires_grad=True)
    y = x * 3
    top, bottom = F.split(y, 1)
    (top * bottom + top + y.sum()).sum().backward()
    data = x.numpy() * 3
    want = np.stack([data[1] + 1 + 3, data[0] + 3]) * 3
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-6)


def test_what_lies_in_one_piece_shares_memory(rng: np.random.Generator) -> None:
    x = cnn.Tensor(random_array(rng, (4, 3)))
    assert all(np.shares_memory(x.numpy(), part.numpy()) for part in F.split(x, 2))
    assert not any(np.shares_memory(x.numpy(), part.numpy()) for part in F.split(x, [1, 2], 1))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_stack(backend: Backend, axis: int, rng: np.random.Generator) -> None:
    arrays = [random_array(rng, (2, 3)) for _ in range(3)]
    y = F.stack([cnn.Tensor(backend.to_device(a)) for a in arrays], axis)
    np.testing.assert_array_equal(y.numpy(), np.stack(arrays, axis))


def test_pad(backend: Backend, rng: np.random.Generator) -> None:
    x, widths = random_array(rng, (2, 2, 3, 1)), ((0, 0), (1, 2), (3, 0), (0, 1))
    given = cnn.Tensor(backend.to_device(x), requires_grad=True)
    y = F.pad(given, widths, 7.0)
    np.testing.assert_array_equal(y.numpy(), np.pad(x, widths, constant_values=7.0))
    dy = random_array(rng, y.shape)
    y.backward(backend.to_device(dy))
    np.testing.assert_array_equal(given.grad.numpy(), dy[:, 1:3, 3:, :1])


def test_derivatives(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4))
    check_gradients(lambda a: F.split(a, [1, 3], 1)[1], [x], rng)
    check_gradients(lambda a, b: F.stack([a, b, a], 1), [x, x + 1], rng)
    check_gradients(lambda a: F.pad(a, ((1, 0), (0, 2)), 3.0), [x], rng)


def test_bad_input_is_named() -> None:
    x = cnn.Tensor(np.zeros((4, 3), np.float32))
    with pytest.raises(ValueError, match=r"sizes must be at least 1 and add up to 4, x \(4, 3\), received \[1, 2\]"):
        F.split(x, [1, 2])
    with pytest.raises(ValueError, match=r"axis 2 is out of range for x \(4, 3\)"):
        F.split(x, 1, 2)
    with pytest.raises(ValueError, match="a size must be at least 1, received 0"):
        F.split(x, 0)
    with pytest.raises(ValueError, match=r"tensors of one shape, at least one, received \[\(4, 3\), \(2, 3\)\]"):
        F.stack([x, x[:2]])
    with pytest.raises(ValueError, match=r"axis 3 is out of range for tensors \(4, 3\)"):
        F.stack([x], 3)
    with pytest.raises(ValueError, match=r"expected 2 pairs \(before, after\) of at least 0, x \(4, 3\)"):
        F.pad(x, ((0, -1), (0, 0)))
