"""Images in another size: hand-computed, against weights summed up pixel by pixel, derivatives, and PyTorch."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import Backend

from .compare import assert_close, assert_identical
from .gradients import check_gradients
from .harness import random_array

SIZES: list[dict[str, Any]] = [
    {"size": (4, 6)},  # twice as large
    {"size": (2, 3)},  # as it is
    {"size": (5, 4)},
    {"size": 1},
    {"scale_factor": 2.0},
    {"scale_factor": (0.5, 1.7)},
    {"scale_factor": 2.6},
    {"scale_factor": (2.3, 1.3)},  # to 4 x 3, where the factor plays no part
]
MODES = [("nearest", False), ("bilinear", False), ("bilinear", True)]
CASES = [(size, *mode) for size in SIZES for mode in MODES]


def taps(n: int, m: int, p: int, factor: float | None, mode: str, corners: bool) -> list[tuple[int, float]]:
    """(input, its share) of output p of m from n inputs"""
    if m == n or (mode == "nearest" and m == 2 * n):
        factor = None
    step = n / m if factor is None else 1 / factor
    if mode == "nearest":
        return [(min(floor(p * step), n - 1), 1.0)]
    at = p * (n - 1) / max(m - 1, 1) if corners else max((p + 0.5) * step - 0.5, 0)
    low = min(floor(at), n - 1)
    share = min(at - low, 1.0)
    return [(low, 1 - share), (min(low + 1, n - 1), share)]


def expected(x: np.ndarray, size: dict[str, Any], mode: str, corners: bool) -> np.ndarray:
    H, W = x.shape[1:3]
    if "size" in size:
        target = size["size"]
        (P, Q), factors = ((target, target) if isinstance(target, int) else target), (None, None)
    else:
        factor = size["scale_factor"]
        factors = factor if isinstance(factor, tuple) else (factor, factor)
        P, Q = floor(H * factors[0]), floor(W * factors[1])
    y = np.zeros((x.shape[0], P, Q, x.shape[3]))
    for p in range(P):
        for q in range(Q):
            for h, a in taps(H, P, p, factors[0], mode, corners):
                for w, b in taps(W, Q, q, factors[1], mode, corners):
                    y[:, p, q] += a * b * x[:, h, w]
    return y


@pytest.mark.parametrize(("size", "mode", "corners"), CASES, ids=str)
def test_interpolate(backend: Backend, size, mode: str, corners: bool, rng: np.random.Generator) -> None:
    x = random_array(rng, (2, 2, 3, 2))
    given = cnn.Tensor(backend.to_device(x), requires_grad=True)
    y = F.interpolate(given, mode=mode, align_corners=corners, **size)
    want = expected(x, size, mode, corners)
    assert_close(y.numpy(), want, 4)
    if mode == "nearest":
        assert_identical(y.numpy(), want.astype(np.float32))
    dy = random_array(rng, y.shape)
    y.backward(backend.to_device(dy))
    units = np.eye(x.size).reshape(x.size, *x.shape)  # y is linear in x: its derivative is y of the unit images
    dx = [np.vdot(expected(unit, size, mode, corners), dy) for unit in units]
    assert_close(given.grad.numpy(), np.array(dx).reshape(x.shape), 16, "dx")


@pytest.mark.parametrize(("size", "mode", "corners"), CASES, ids=str)
def test_derivatives(size, mode: str, corners: bool, rng: np.random.Generator) -> None:
    check_gradients(
        lambda x: F.interpolate(x, mode=mode, align_corners=corners, **size), [random_array(rng, (2, 2, 3, 2))], rng
    )


@pytest.mark.parametrize(("n", "m"), [(n, m) for n in (1, 2, 3, 7, 10) for m in (1, 2, 5, 6, 14, 30)])
@pytest.mark.parametrize(("mode", "corners"), MODES)
def test_against_pytorch(n: int, m: int, mode: str, corners: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = random_array(rng, (1, n, m, 2))
    for size in ({"size": (m, n)}, {"scale_factor": (m / n + 0.3, n / m + 0.3)}):
        theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        options = {"mode": mode} if mode == "nearest" else {"mode": mode, "align_corners": corners}
        want = torch.nn.functional.interpolate(theirs, **size, **options).numpy().transpose(0, 2, 3, 1)
        got = F.interpolate(cnn.Tensor(x), mode=mode, align_corners=corners, **size).numpy()
        if mode == "nearest":
            assert_identical(got, np.ascontiguousarray(want))
        else:
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)  # they place pixels in float32


def test_hand_computed() -> None:
    x = cnn.Tensor(np.array([0.0, 4.0], np.float32).reshape(1, 1, 2, 1))
    assert F.interpolate(x, (1, 4)).numpy().ravel().tolist() == [0, 0, 4, 4]
    assert F.interpolate(x, (1, 4), mode="bilinear").numpy().ravel().tolist() == [0, 1, 3, 4]
    corners = F.interpolate(x, (1, 5), mode="bilinear", align_corners=True)
    assert corners.numpy().ravel().tolist() == [0, 1, 2, 3, 4]


def test_repeated_pixels_keep_a_nan_to_themselves() -> None:
    x = np.zeros((1, 2, 2, 1), np.float32)
    x[0, 0, 1, 0] = np.nan
    y = F.interpolate(cnn.Tensor(x), scale_factor=3).numpy()
    assert np.isnan(y[0, :3, 3:]).all()
    assert np.isnan(y).sum() == 9


def test_module(rng: np.random.Generator) -> None:
    x = cnn.Tensor(random_array(rng, (1, 3, 4, 2)))
    module = nn.Upsample(scale_factor=2, mode="bilinear")
    np.testing.assert_array_equal(module(x).numpy(), F.interpolate(x, scale_factor=2, mode="bilinear").numpy())
    assert repr(module) == "Upsample(scale_factor=2, mode='bilinear', align_corners=False)"


def test_bad_input_is_named() -> None:
    x = cnn.Tensor(np.zeros((1, 2, 2, 1), np.float32))
    for message, options in (
        ("expected size or scale_factor, received None and None", {}),
        ("expected size or scale_factor, received 2 and 2", {"size": 2, "scale_factor": 2}),
        ("mode must be one of nearest, bilinear, received 'bicubic'", {"size": 2, "mode": "bicubic"}),
        ("align_corners is for mode 'bilinear'", {"size": 2, "align_corners": True}),
        ("size must be at least 1, received 0", {"size": 0}),
        ("positive numbers, received -1", {"scale_factor": -1}),
        ("the output would be 0 x 0", {"scale_factor": 0.1}),
    ):
        with pytest.raises(ValueError, match=message):
            F.interpolate(x, **options)
    with pytest.raises(ValueError, match=r"x must be \(N, H, W, C\), received \(2, 2\)"):
        F.interpolate(cnn.Tensor(np.zeros((2, 2), np.float32)), 2)
