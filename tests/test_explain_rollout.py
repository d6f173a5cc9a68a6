"""Attention weights and attention rollout: by hand, by products of whole matrices, and on ViT, CoAtNet, MobileViT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import explain, nn
from cnnengine.explain.rollout import grid


class Attending(nn.Module):
    """Attentions whose softmax is given, (parts, L, L) each, on tokens of zeros; scores (1, 1)."""

    def __init__(self, *softmax: Any) -> None:
        super().__init__()
        with np.errstate(divide="ignore"):
            self.bias = [cnn.Tensor(np.log(np.array(p, np.float32))) for p in softmax]

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        for bias in self.bias:
            parts, L, _ = bias.shape
            tokens = cnn.Tensor(np.zeros((parts, L, 3), np.float32))
            F.multi_head_attention(tokens, 1, bias.reshape(parts, 1, L, L))
        return x.reshape(1, -1)[:, :1]


def image(height: int, width: int) -> np.ndarray:
    return np.zeros((1, height, width, 1), np.float32)


# ---- weights


def test_attention_weights_are_the_softmax(rng: np.random.Generator) -> None:
    q, k, v = (cnn.Tensor(rng.standard_normal((2, 3, L, 4)).astype(np.float32)) for L in (5, 6, 6))
    with F.attention_weights() as weights:
        y = F.scaled_dot_product_attention(q, k, v)
        F.multi_head_attention(cnn.Tensor(rng.standard_normal((2, 7, 24)).astype(np.float32)), 2)
    assert [w.shape for w in weights] == [(2, 3, 5, 6), (2, 2, 7, 7)]
    scores = np.einsum("nhqd,nhkd->nhqk", q.numpy(), k.numpy(), dtype=np.float64) / 2
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights[0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(weights[0].numpy() @ v.numpy(), y.numpy(), atol=1e-5)
    F.scaled_dot_product_attention(q, k, v)
    assert len(weights) == 2, "left behind the block"


def test_attention_weights_change_no_gradient(rng: np.random.Generator) -> None:
    def gradient() -> np.ndarray:
        x = cnn.Tensor(values, requires_grad=True)
        F.multi_head_attention(x, 2).sum().backward()
        assert x.grad is not None
        return x.grad.numpy()

    values = rng.standard_normal((300, 7, 24)).astype(np.float32)  # more images than are computed at a time
    expected = gradient()
    with F.attention_weights() as weights:
        np.testing.assert_array_equal(gradient(), expected)
    assert weights[0].shape == (300, 2, 7, 7)


def test_attention_weights_are_refused_in_a_graph() -> None:
    def step(x: cnn.Tensor) -> cnn.Tensor:
        with F.attention_weights():
            return F.multi_head_attention(x, 1)

    with pytest.raises(cnn.Unsupported, match=r"attention_weights in a step of cnn\.graph"):
        cnn.graph(step)(cnn.Tensor(np.zeros((1, 2, 3), np.float32)))


# ---- rollout by hand


def test_from_a_class_token_by_hand() -> None:
    first = [[[0.2, 0.8, 0], [0, 1, 0], [0.5, 0.5, 0]]]
    second = [[[0.5, 0.25, 0.25], [1, 0, 0], [0, 0, 1]]]
    # back through the second: (3/4, 1/8, 1/8); through the first: the mean of that and (.2125, .7875, 0)
    found = explain.attention_rollout(Attending(first, second), image(1, 2))
    np.testing.assert_allclose(found, np.array([[0.45625, 0.0625]]) / 0.51875, rtol=1e-6)


def test_through_a_pooling_by_hand() -> None:
    # one token, pooled from 2 x 2, of which every one looks at the last: (1/4 + 0) / 2, and (1/4 + 1) / 2 there
    found = explain.attention_rollout(Attending([[[0, 0, 0, 1]] * 4], [[[1]]]), image(4, 4))
    np.testing.assert_allclose(found, [[0.125, 0.125], [0.125, 0.625]], rtol=1e-6)


def test_apart_by_places_by_hand() -> None:
    # four attentions, one for each place in a patch of 2 x 2; in the first all look at its first token
    same = np.eye(4)
    found = explain.attention_rollout(Attending([[[1, 0, 0, 0]] * 4, same, same, same]), image(8, 8))
    expected = np.full((4, 4), 1 / 16)
    expected[0, 0], expected[0, 2], expected[2, 0], expected[2, 2] = 5 / 32, 1 / 32, 1 / 32, 1 / 32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("parts", "tokens", "size", "expected"),
    [
        (1, 197, (224, 224), (14, 14, True)),
        (1, 196, (224, 224), (14, 14, False)),
        (4, 80, (256, 320), (16, 20, False)),
        (1, 7, (20, 30), (2, 3, True)),
    ],
)
def test_grids(parts: int, tokens: int, size: tuple[int, int], expected: tuple[int, int, bool]) -> None:
    assert grid(parts, (tokens, tokens), size) == expected


@pytest.mark.parametrize(("parts", "tokens", "size"), [(1, 7, (30, 30)), (2, 4, (30, 30)), (4, 5, (30, 30))])
def test_what_is_no_grid(parts: int, tokens: int, size: tuple[int, int]) -> None:
    with pytest.raises(cnn.Unsupported, match=f"{parts} attentions among {tokens} tokens are no grid over an image"):
        grid(parts, (tokens, tokens), size)


# ---- networks


def rolled(weights: Sequence[np.ndarray], start: np.ndarray) -> np.ndarray:
    """start times the product of (A + I) / 2 of the mean over heads, of one image"""
    for w in reversed(weights):
        start = start @ (w[0].mean(0) + np.eye(w.shape[-1])) / 2
    return start


def weights_of(model: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    with F.attention_weights() as found, cnn.no_grad():
        model.eval()(cnn.Tensor(x))
    return [w.numpy().astype(np.float64) for w in found]


def pixels(side: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((1, side, side, 3)).astype(np.float32)


def test_vit(rng: np.random.Generator) -> None:
    cnn.manual_seed(0)
    model, x = cnn.models.vit_tiny(10, image_size=64, depth=3), pixels(64, rng)
    found = explain.attention_rollout(model, x)
    weights = weights_of(model, x)
    assert [w.shape for w in weights] == [(1, 3, 17, 17)] * 3
    expected = rolled(weights, np.eye(17)[0])[1:].reshape(4, 4)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-6)


def test_coatnet(rng: np.random.Generator) -> None:
    cnn.manual_seed(0)
    model, x = cnn.models.coatnet_0(10, image_size=64, depths=(1, 1, 2, 2)), pixels(64, rng)
    found = explain.attention_rollout(model, x)
    weights = weights_of(model, x)
    assert [w.shape[-1] for w in weights] == [16, 16, 4, 4]
    last = rolled(weights[2:], np.full(4, 1 / 4)).reshape(2, 2)
    expected = rolled(weights[:2], np.repeat(np.repeat(last / 4, 2, 0), 2, 1).ravel()).reshape(4, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_mobilevit(rng: np.random.Generator) -> None:
    cnn.manual_seed(0)
    model, x = cnn.models.mobilevit_s(10), pixels(64, rng)
    found = explain.attention_rollout(model, x)
    weights = weights_of(model, x)
    assert [w.shape for w in weights] == [(4, 4, 16, 16)] * 2 + [(4, 4, 4, 4)] * 4 + [(4, 4, 1, 1)] * 3
    share = np.full((4, 4), 1 / 16)  # behind the attentions among one token each, which change nothing
    for size, part in ((4, weights[2:6]), (8, weights[:2])):
        share = np.repeat(np.repeat(share / (size // len(share)) ** 2, size // len(share), 0), size // len(share), 1)
        for row in range(2):
            for column in range(2):
                place = share[row::2, column::2]
                own = [w[2 * row + column][None] for w in part]
                share[row::2, column::2] = rolled(own, place.ravel()).reshape(place.shape)
    np.testing.assert_allclose(found, share, rtol=1e-6)
    assert found.sum() == pytest.approx(1)


def test_a_network_without_attention_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(cnn.Unsupported, match="this network has no attention"):
        explain.attention_rollout(cnn.models.lenet5(), image(28, 28))
