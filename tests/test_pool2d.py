"""Pooling: every case on every backend against the oracle; the oracle against PyTorch; ties, NaN and padding."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.contract import Backend

from .cases.pool2d import CASES, Pool2dCase
from .compare import assert_close
from .harness import oracle, random_array, run_verb, runs, tie_free


def forward(backend: Backend, case: Pool2dCase, x: np.ndarray, want_index: bool) -> list[np.ndarray]:
    s = case.shape
    outputs = [(s.y, "float32")] + ([(s.y, s.index_dtype)] if want_index else [])

    def call(x, y, index=None):
        backend.pool2d_forward(case.kind, s, x, y, index)

    return run_verb(backend, call, [x], outputs, f"{backend.name} {case}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_backward(backend: Backend, case: Pool2dCase, rng: np.random.Generator) -> None:
    if not runs(backend, case.tier):
        pytest.skip(f"{case.tier} cases are too large for {backend.name}")
    s, window = case.shape, case.shape.R * case.shape.S
    x, dy = tie_free(rng, s.x), random_array(rng, s.y)
    is_max = case.kind == "max"
    expected = forward(oracle(), case, x, is_max)
    actual = forward(backend, case, x, is_max)
    assert_close(actual[0], expected[0], window, f"{backend.name} {case} y")
    (alone,) = forward(backend, case, x, False)
    np.testing.assert_array_equal(alone, actual[0], err_msg="without an index the result must be the same")
    index = expected[1] if is_max else None
    if is_max:
        np.testing.assert_array_equal(actual[1], index)

    def backward(which: Backend):
        return lambda dy, index, dx: which.pool2d_backward(case.kind, s, dy, index, dx)

    (dx,) = run_verb(oracle(), backward(oracle()), [dy, index], [(s.x, "float32")], "oracle")
    (ours,) = run_verb(backend, backward(backend), [dy, index], [(s.x, "float32")], f"{backend.name} {case} dx")
    assert_close(ours, dx, window, f"{backend.name} {case} dx")


@pytest.mark.parametrize("case", [c for c in CASES if c.tier == "tiny" or "17" not in c.name], ids=str)
def test_oracle_against_pytorch(case: Pool2dCase, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    functional = torch.nn.functional
    x = tie_free(rng, case.x).astype(np.float64)
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    if case.adaptive:
        y = getattr(functional, f"adaptive_{case.kind}_pool2d")(theirs, case.window)
    elif case.kind == "max":
        y = functional.max_pool2d(theirs, case.window, case.stride, case.padding, case.dilation, case.ceil_mode)
    else:
        extra = (case.ceil_mode, case.count_include_pad, case.divisor)
        y = functional.avg_pool2d(theirs, case.window, case.stride, case.padding, *extra)
    dy = random_array(rng, case.shape.y, "float64")
    y.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).copy()))
    with cnn.use_backend("numpy"):
        mine = cnn.Tensor(x, requires_grad=True)
        if case.adaptive:
            out = getattr(F, f"adaptive_{case.kind}_pool2d")(mine, case.window)
        elif case.kind == "max":
            out = F.max_pool2d(mine, case.window, case.stride, case.padding, case.dilation, case.ceil_mode)
        else:
            out = F.avg_pool2d(mine, case.window, case.stride, case.padding, *extra)
        out.backward(dy)
    window = case.shape.R * case.shape.S
    assert_close(out.numpy(), y.detach().numpy().transpose(0, 2, 3, 1), window, "y")
    assert_close(mine.grad.numpy(), theirs.grad.numpy().transpose(0, 2, 3, 1), window, "dx")


def test_ties_go_to_the_first_and_nan_wins(backend: Backend) -> None:
    x = np.full((1, 4, 4, 1), 7, np.float32)
    x[0, 2, 3, 0] = np.nan
    t = cnn.Tensor(backend.to_device(x), requires_grad=True)
    y = F.max_pool2d(t, 2)
    np.testing.assert_array_equal(y.numpy().reshape(-1), [7, 7, 7, np.nan])
    y.backward(backend.to_device(np.ones((1, 2, 2, 1), np.float32)))
    expected = np.zeros((4, 4))
    expected[0, 0] = expected[0, 2] = expected[2, 0] = expected[2, 3] = 1
    np.testing.assert_array_equal(t.grad.numpy().reshape(4, 4), expected)


def test_padding_never_wins(backend: Backend) -> None:
    x = np.full((1, 3, 3, 1), -5, np.float32)
    y = F.max_pool2d(cnn.Tensor(backend.to_device(x)), 3, 1, 1).numpy()
    np.testing.assert_array_equal(y, x)
    x[:] = -np.inf
    np.testing.assert_array_equal(F.max_pool2d(cnn.Tensor(backend.to_device(x)), 3, 1, 1).numpy(), x)


def test_global_pooling_drops_the_axes(backend: Backend, rng: np.random.Generator) -> None:
    x = random_array(rng, (2, 3, 4, 5))
    y = F.global_avg_pool2d(cnn.Tensor(backend.to_device(x)))
    assert_close(y.numpy(), x.astype(np.float64).mean((1, 2)), 12)
    largest = F.global_max_pool2d(cnn.Tensor(backend.to_device(x)))
    np.testing.assert_array_equal(largest.numpy(), x.max((1, 2)))


def test_a_window_without_an_element_is_refused() -> None:
    """Taps at -1 and 2 of two rows"""
    with pytest.raises(ValueError, match=r"a window of 2 x 2 holds no element of the input: x \(1, 2, 2, 1\)"):
        F.max_pool2d(cnn.Tensor(np.zeros((1, 2, 2, 1), np.float32)), 2, 1, 1, 3)


def test_lists_and_numpys_ints_are_sizes() -> None:
    x = cnn.Tensor(np.zeros((1, 8, 8, 1), np.float32))
    assert F.max_pool2d(x, [2, 4], np.int64(3), [1, 2]).shape == F.max_pool2d(x, (2, 4), 3, (1, 2)).shape
    assert F.adaptive_avg_pool2d(x, [3, 2]).shape == (1, 3, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1, received 0"),
        ({"kernel_size": 2, "padding": 2}, "padding .2, 2. is more than half of kernel_size .2, 2."),
        ({"kernel_size": 9}, "the output would be 0 x 0"),
        ({"kernel_size": 2, "stride": -1}, "stride must be at least 1"),
    ],
)
def test_bad_input_is_named(arguments, words) -> None:
    with pytest.raises(ValueError, match=words):
        F.max_pool2d(cnn.Tensor(np.zeros((1, 8, 8, 1), np.float32)), **arguments)
    for divisor in (0, -2, 2.5, True):
        with pytest.raises(ValueError, match="avg_pool2d: divisor_override must be an int of at least 1, received"):
            F.avg_pool2d(cnn.Tensor(np.zeros((1, 8, 8, 1), np.float32)), 2, divisor_override=divisor)
    for pool in (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d):
        with pytest.raises(ValueError, match=r"empty batch: x \(0, 8, 8, 1\)"):
            pool(cnn.Tensor(np.zeros((0, 8, 8, 1), np.float32)), 2)
    with pytest.raises(ValueError, match="x must have 4 axes"):
        F.avg_pool2d(cnn.Tensor(np.zeros((8, 8, 1), np.float32)), 2)
