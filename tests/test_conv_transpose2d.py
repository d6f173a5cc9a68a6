"""Transposed convolution: pixel by pixel, as the adjoint of the convolution, derivatives, and PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import Backend

from .compare import assert_close
from .gradients import check_gradients
from .harness import random_array


@dataclass(frozen=True)
class Case:
    name: str
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    geometry: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("one_element", (1, 1, 1, 1), (1, 1, 1, 1)),
    Case("plain", (2, 2, 3, 2), (2, 3, 2, 3)),
    Case("twice_as_large", (1, 2, 2, 2), (2, 2, 2, 1), {"stride": 2}),
    Case("output_padding", (1, 2, 3, 2), (2, 3, 3, 2), {"stride": 2, "padding": 1, "output_padding": 1}),
    Case("dilation", (1, 2, 2, 1), (1, 2, 3, 2), {"dilation": (2, 1), "padding": (1, 0)}),
    Case("groups", (1, 2, 2, 4), (4, 2, 2, 1), {"groups": 2, "stride": (2, 1), "output_padding": (1, 0)}),
    Case("stride_past_the_filter", (1, 2, 2, 1), (1, 2, 1, 2), {"stride": 3, "output_padding": 2}),
    Case("sides", (1, 3, 3, 1), (1, 3, 3, 2), {"padding": ((1, 0), (0, 2)), "stride": 2}),
]


def operands(case: Case, rng: np.random.Generator) -> list[np.ndarray]:
    """x, w, b"""
    channels = case.w[3] * case.geometry.get("groups", 1)
    return [random_array(rng, case.x), random_array(rng, case.w), random_array(rng, (channels,))]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def expected(case: Case, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Every element of x adds its filter to y"""
    g = case.geometry
    stride, dilation, extra = (pair(g.get(k, d)) for k, d in (("stride", 1), ("dilation", 1), ("output_padding", 0)))
    padding, groups = pair(g.get("padding", 0)), g.get("groups", 1)
    (top, bottom), (left, right) = padding if isinstance(padding[0], tuple) else ((padding[0],) * 2, (padding[1],) * 2)
    N, H, W, C = x.shape
    _, R, S, Kg = w.shape
    P = (H - 1) * stride[0] + dilation[0] * (R - 1) + 1 + extra[0]
    Q = (W - 1) * stride[1] + dilation[1] * (S - 1) + 1 + extra[1]
    y = np.zeros((N, P, Q, Kg * groups))
    for h in range(H):
        for width in range(W):
            for r in range(R):
                for s in range(S):
                    at = (slice(None), h * stride[0] + r * dilation[0], width * stride[1] + s * dilation[1])
                    for c in range(C):
                        start = c // (C // groups) * Kg
                        y[(*at, slice(start, start + Kg))] += x[:, h, width, c, None].astype(np.float64) * w[c, r, s]
    return y[:, top : P - bottom, left : Q - right] + b


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv_transpose2d(backend: Backend, case: Case, rng: np.random.Generator) -> None:
    arrays = operands(case, rng)
    tensors = [cnn.Tensor(backend.to_device(a), requires_grad=True) for a in arrays]
    y = F.conv_transpose2d(*tensors, **case.geometry)
    want = expected(case, *arrays)
    assert_close(y.numpy(), want, 36)
    dy = random_array(rng, y.shape)
    y.backward(backend.to_device(dy))
    zero = np.zeros_like(arrays[2])
    for i, name in ((0, "dx"), (1, "dw")):  # y without b is linear in each: its derivative is y of the unit arrays
        gradient = np.empty(arrays[i].size)
        for j in range(arrays[i].size):
            unit = [*arrays[:2], zero]
            unit[i] = np.eye(arrays[i].size, dtype=np.float32)[j].reshape(arrays[i].shape)
            gradient[j] = np.vdot(expected(case, *unit), dy)
        assert_close(tensors[i].grad.numpy(), gradient.reshape(arrays[i].shape), 36, name)
    assert_close(tensors[2].grad.numpy(), dy.astype(np.float64).sum((0, 1, 2)), dy[..., 0].size, "db")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_derivatives(case: Case, rng: np.random.Generator) -> None:
    check_gradients(lambda x, w, b: F.conv_transpose2d(x, w, b, **case.geometry), operands(case, rng), rng)


def test_it_is_the_adjoint_of_the_convolution(rng: np.random.Generator) -> None:
    """<conv(y), x> = <y, conv_transpose(x)> with one and the same weight, whatever algorithm computes each"""
    w = random_array(rng, (8, 3, 3, 4))
    y, x = random_array(rng, (2, 11, 13, 4)), random_array(rng, (2, 6, 7, 8))
    there = F.conv2d(cnn.Tensor(y), cnn.Tensor(w), stride=2, padding=1).numpy()
    back = F.conv_transpose2d(cnn.Tensor(x), cnn.Tensor(w), stride=2, padding=1).numpy()
    assert back.shape == y.shape
    left, right = np.vdot(there.astype(np.float64), x), np.vdot(y, back.astype(np.float64))
    assert abs(left - right) < 1e-5 * np.linalg.norm(there) * np.linalg.norm(x)


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "sides"], ids=str)
def test_against_pytorch(case: Case, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, w, b = operands(case, rng)
    nchw = [torch.from_numpy(a.transpose(0, 3, 1, 2).astype(np.float64)) for a in (x, w)]
    y = torch.nn.functional.conv_transpose2d(*nchw, torch.from_numpy(b.astype(np.float64)), **case.geometry)
    np.testing.assert_allclose(expected(case, x, w, b), y.numpy().transpose(0, 2, 3, 1), rtol=1e-9, atol=1e-11)


def test_module(rng: np.random.Generator) -> None:
    module = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    assert module.weight.shape == (4, 3, 3, 3)
    y = module(cnn.Tensor(random_array(rng, (1, 5, 5, 4))))
    assert y.shape == (1, 10, 10, 6)
    assert repr(module) == (
        "ConvTranspose2d(4, 6, kernel_size=(3, 3), stride=2, padding=1, output_padding=1, groups=2)"
    )
    with pytest.raises(ValueError, match="multiples of groups, all at least 1, received 4, 6 and 4"):
        nn.ConvTranspose2d(4, 6, 3, groups=4)
    with pytest.raises(ValueError, match="kernel_size must be one or two numbers of at least 1, received 0"):
        nn.ConvTranspose2d(4, 6, 0)


def test_bad_input_is_named() -> None:
    x, w = cnn.Tensor(np.zeros((1, 2, 2, 4), np.float32)), cnn.Tensor(np.zeros((4, 3, 3, 2), np.float32))
    for message, arguments, options in (
        ("w expects 4 input channels, x has 3", (cnn.Tensor(np.zeros((1, 2, 2, 3), np.float32)), w), {}),
        ("4 channels of x do not divide into 3 groups", (x, w), {"groups": 3}),
        (r"output_padding \(2, 2\) must be less than stride \(2, 2\)", (x, w), {"stride": 2, "output_padding": 2}),
        ("the output would be 0 x 0", (x, w), {"padding": 2}),
        (r"b must be \(2,\), one an output channel, received \(3,\)", (x, w, cnn.Tensor([0.0] * 3)), {}),
        ("received x", (x, cnn.Tensor([[1.0]])), {}),
    ):
        with pytest.raises(ValueError, match=f"conv_transpose2d: .*{message}"):
            F.conv_transpose2d(*arguments, **options)
