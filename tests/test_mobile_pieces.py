"""The pieces of mobile networks: stochastic depth, squeeze and excitation, convolution with norm and activation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import Backend
from cnnengine.nn.conv2d_norm_activation import Conv2dNormActivation, with_shortcut

from .compare import assert_close, assert_identical
from .harness import random_array
from .torch_networks import batch, fill

NETWORKS = ("mobilenet_v2", "efficientnet_b0", "efficientnet_lite0")


# ---- stochastic depth


def test_each_image_is_kept_and_scaled_or_left_out(backend: Backend) -> None:
    x = np.ones((64, 2, 3, 5), np.float32)
    cnn.manual_seed(3)
    y = F.drop_path(cnn.Tensor(backend.to_device(x)), 0.2).numpy()
    kept = y[:, 0, 0, 0]
    assert set(kept.tolist()) == {0.0, float(np.float32(1 / 0.8))}
    np.testing.assert_array_equal(y, np.broadcast_to(kept[:, None, None, None], x.shape))
    cnn.manual_seed(3)
    again = F.drop_path(cnn.Tensor(backend.to_device(x)), 0.2)
    np.testing.assert_array_equal(again.numpy(), y)
    assert (F.drop_path(cnn.Tensor(backend.to_device(x)), 0.2).numpy() != y).any()


def test_every_backend_draws_the_same(backend: Backend) -> None:
    cnn.manual_seed(11)
    y = F.drop_path(cnn.Tensor(backend.to_device(np.ones((32, 4), np.float32))), 0.5).numpy()[:, 0]
    with cnn.use_backend("numpy"):
        cnn.manual_seed(11)
        np.testing.assert_array_equal(F.drop_path(cnn.Tensor(np.ones((32, 4), np.float32)), 0.5).numpy()[:, 0], y)


def test_the_share_of_images_left_out() -> None:
    cnn.manual_seed(0)
    y = F.drop_path(cnn.Tensor(np.ones((10_000, 1), np.float32)), 0.3).numpy()
    assert abs((y == 0).mean() - 0.3) < 5 * (0.3 * 0.7 / len(y)) ** 0.5


def test_a_batch_is_left_out_as_a_whole() -> None:
    cnn.manual_seed(0)
    means = [F.drop_path(cnn.Tensor(np.ones((3, 2), np.float32)), 0.5, mode="batch").numpy() for _ in range(20)]
    assert all(len(np.unique(y)) == 1 for y in means)
    assert {float(y[0, 0]) for y in means} == {0.0, 2.0}


def test_the_gradient_is_left_out_with_the_image(rng: np.random.Generator) -> None:
    x = cnn.Tensor(random_array(rng, (16, 3, 2)), requires_grad=True)
    y = F.drop_path(x, 0.5)
    dy = random_array(rng, (16, 3, 2))
    y.backward(dy)
    factor = np.where((y.numpy() == 0).all((1, 2), keepdims=True), 0, 2).astype(np.float32)
    assert 0 < factor.sum() < 32
    assert_identical(y.numpy(), x.numpy() * factor, "y")
    assert_identical(x.grad.numpy(), dy * factor, "dx")


def test_evaluation_leaves_nothing_out() -> None:
    x = cnn.Tensor(np.ones((4, 2), np.float32))
    assert nn.StochasticDepth(0.9).eval()(x) is x
    assert nn.StochasticDepth(0.0)(x) is x
    assert F.drop_path(x, 0.9, training=False) is x
    assert repr(nn.StochasticDepth(0.25, "batch")) == "StochasticDepth(p=0.25, mode=batch)"


def test_stochastic_depth_refuses() -> None:
    x = cnn.Tensor(np.ones((4, 2), np.float32))
    for p in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"p must be in \[0, 1\), received"):
            F.drop_path(x, p)
        with pytest.raises(ValueError, match=r"p must lie in \[0, 1\), received"):
            nn.StochasticDepth(p)
    for make in (lambda: F.drop_path(x, 0.5, mode="pixel"), lambda: nn.StochasticDepth(0.5, "pixel")):
        with pytest.raises(ValueError, match="mode must be one of row, batch, received 'pixel'"):
            make()
    with pytest.raises(ValueError, match=r"x must be \(N, ...\) and not empty, received \(0, 3\)"):
        F.drop_path(cnn.Tensor(np.ones((0, 3), np.float32)), 0.5)


def test_blocks_are_left_out_more_often_the_later_they_stand() -> None:
    model = cnn.models.efficientnet_b0(stochastic_depth=0.16)
    found = [m.p for m in model.modules() if isinstance(m, nn.StochasticDepth)]
    np.testing.assert_allclose(found, [0.16 * i / 16 for i in range(16)])


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0"])
def test_training_with_stochastic_depth_repeats_with_the_seed(name: str) -> None:
    model: Any = fill(cnn.models.create(name, num_classes=4, stochastic_depth=0.8))
    x, labels = batch((4, 32, 32, 3), 4)

    def step(seed: int) -> list[np.ndarray]:
        cnn.manual_seed(seed)
        model.zero_grad()
        F.cross_entropy(model(cnn.Tensor(x)), labels).backward()
        return [p.grad.numpy().copy() for p in model.parameters()]

    first, again, other = step(1), step(1), step(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    assert all(np.isfinite(gradient).all() for gradient in first)


# ---- squeeze and excitation


@pytest.mark.parametrize("activations", [(nn.ReLU, nn.Sigmoid), (nn.SiLU, nn.Sigmoid), (nn.ReLU, nn.Hardsigmoid)])
def test_squeeze_and_excitation_by_its_definition(activations: Any, rng: np.random.Generator) -> None:
    module = nn.SqueezeExcitation(6, 2, *activations)
    assert list(module.state_dict()) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    x = random_array(rng, (3, 5, 4, 6))
    w1, b1, w2, b2 = (t.numpy().astype(np.float64) for t in module.state_dict().values())
    inner = x.astype(np.float64).mean((1, 2)) @ w1.reshape(2, 6).T + b1
    inner = inner / (1 + np.exp(-inner)) if activations[0] is nn.SiLU else np.maximum(inner, 0)
    factor = inner @ w2.reshape(6, 2).T + b2
    factor = 1 / (1 + np.exp(-factor)) if activations[1] is nn.Sigmoid else np.clip(factor + 3, 0, 6) / 6
    np.testing.assert_allclose(module(cnn.Tensor(x)).numpy(), x * factor[:, None, None], rtol=1e-5, atol=1e-6)


def test_the_gradient_of_squeeze_and_excitation(rng: np.random.Generator) -> None:
    """Along a random direction, in float64."""
    module = nn.SqueezeExcitation(4, 3, nn.SiLU)
    x, direction, weight = (rng.standard_normal((2, 3, 3, 4)) for _ in range(3))
    with cnn.use_backend("numpy"):
        for parameter in module.parameters():
            parameter.data = parameter.data.astype(np.float64)
        t = cnn.Tensor(x, requires_grad=True)
        F.sum(F.mul(module(t), cnn.Tensor(weight))).backward()
        sides = [(module(cnn.Tensor(x + h * direction)).numpy() * weight).sum() for h in (1e-6, -1e-6)]
    assert (t.grad.numpy() * direction).sum() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-7)


# ---- convolution, norm, activation


def test_conv2d_norm_activation_is_its_three_modules(rng: np.random.Generator) -> None:
    module = fill(Conv2dNormActivation(4, 6, 3, 2, activation=nn.SiLU))
    assert [type(m).__name__ for m in module] == ["Conv2d", "BatchNorm2d", "SiLU"]
    assert list(module.state_dict())[:3] == ["0.weight", "1.weight", "1.bias"]
    x = cnn.Tensor(random_array(rng, (2, 7, 7, 4)))
    residual = cnn.Tensor(random_array(rng, (2, 4, 4, 6)))
    for mode in (True, False):
        module.train(mode)
        conv, norm, activation = module
        state = {name: t.numpy().copy() for name, t in module.state_dict().items()}
        expected = activation(norm(conv(x))).numpy()
        summed = activation(norm(conv(x)) + residual).numpy()
        module.load_state_dict(state)
        assert_close(module(x).numpy(), expected, 1e-5)
        assert_close(module.forward(x, residual).numpy(), summed, 1e-5)


@pytest.mark.parametrize("hooked", ["nothing", "branch", "last", "norm"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_branch_and_its_shortcut(flat: bool, hooked: str, rng: np.random.Generator) -> None:
    """Ending in a module of its own, or in a bare convolution and its norm; a hook on any of them runs."""
    first, last = Conv2dNormActivation(4, 8, 3, activation=nn.ReLU6), Conv2dNormActivation(8, 4, 1, activation=None)
    branch = nn.Sequential(first, *(last if flat else [nn.Identity(), last]))
    fill(branch).eval()
    x = cnn.Tensor(random_array(rng, (2, 5, 5, 4)))
    with cnn.no_grad():
        expected = branch(x).numpy() + x.numpy()
        seen: list[str] = []
        if hooked != "nothing":
            target: Any = {"branch": branch, "last": branch[-1], "norm": branch[-1] if flat else last[1]}[hooked]
            target.register_forward_hook(lambda *_: seen.append(hooked))
        assert_close(with_shortcut(branch, x).numpy(), expected, 1e-5)
    assert seen == ([] if hooked == "nothing" else [hooked])


@pytest.mark.parametrize("name", NETWORKS)
def test_fused_networks_have_no_norm_left_and_the_same_logits(name: str) -> None:
    model = fill(cnn.models.create(name, num_classes=10)).eval()
    x = cnn.Tensor(batch((2, 64, 64, 3), 10)[0])
    with cnn.no_grad():
        expected = model(x).numpy()
        fused = model.fuse()(x).numpy()
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    np.testing.assert_allclose(fused, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
