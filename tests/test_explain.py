"""cnnengine.explain against answers computed by hand, in float64 on the definition's backend; and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import explain, nn
from cnnengine.explain.occlusion import starts


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with cnn.use_backend("numpy"):
        yield


def layer(module: Any, weight: Any, bias: Any) -> Any:
    """The layer with these parameters, in float64."""
    for parameter, values in ((module.weight, weight), (module.bias, bias)):
        parameter.data = np.array(values, np.float64).reshape(parameter.shape)
    return module


def image(values: Any) -> np.ndarray:
    """One image of one channel, (1, H, W, 1)"""
    return np.array(values, np.float64)[None, :, :, None]


X = image([[1, 2], [3, 4]])


def pooled() -> nn.Sequential:
    """Two maps, x and 3 - x behind ReLU, their means, two classes."""
    return nn.Sequential(
        {
            "conv": layer(nn.Conv2d(1, 2, 1), [1, -1], [0, 3]),
            "relu": nn.ReLU(),
            "pool": nn.GlobalAvgPool2d(),
            "fc": layer(nn.Linear(2, 2), [[2, -1], [0, 4]], [1, 0]),
        }
    )


def features(weight: Any, *behind: nn.Module) -> nn.Sequential:
    """x flat, a linear layer without bias, and what follows."""
    outputs, inputs = np.shape(weight)
    return nn.Sequential(nn.Flatten(), layer(nn.Linear(inputs, outputs), weight, np.zeros(outputs)), *behind)


class Square(nn.Module):
    """(w x)^2 of each class"""

    def __init__(self, weight: Any) -> None:
        super().__init__()
        self.linear = features(weight)

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        y: cnn.Tensor = self.linear(x)
        return y * y


# ---- class activation maps: x is the first map, [[2, 1], [0, 0]] the second


def test_grad_cam_by_hand() -> None:
    # d logit 0 by the maps is 2 / 4 and -1 / 4 everywhere, d logit 1 is 0 and 1
    np.testing.assert_allclose(explain.grad_cam(pooled(), X, 0), [[0, 0.75], [1.5, 2]])
    np.testing.assert_allclose(explain.grad_cam(pooled(), X, 1), [[2, 1], [0, 0]])


def test_grad_cam_plus_plus_by_hand() -> None:
    # the first map: 1/4 / (2/4 + 10/8) = 1/7 at each place, times the gradient 1/2, at four places: 2/7; none of the
    # second, whose gradient is negative
    expected = np.array([[1, 2], [3, 4]]) * 2 / 7
    np.testing.assert_allclose(explain.grad_cam_plus_plus(pooled(), X, 0), expected)


def test_score_cam_by_hand() -> None:
    # x times (x - 1) / 3 is 0, 2/3, 2, 4: means 5/3 and 19/12, logit 2.75; x times half the second map: logit -0.5
    first = 1 / (1 + np.exp(-3.25))
    expected = first * np.array([[1, 2], [3, 4]]) + (1 - first) * np.array([[2, 1], [0, 0]])
    np.testing.assert_allclose(explain.score_cam(pooled(), X, 0), expected)
    np.testing.assert_allclose(explain.score_cam(pooled(), X, 0, channels=1), [[1, 2], [3, 4]])


def test_a_map_of_another_layer() -> None:
    # the convolution's maps x and 3 - x; where the second is not above 0 ReLU hands on nothing: its mean is -1/8
    expected = 0.5 * np.array([[1, 2], [3, 4]]) - 0.125 * np.array([[2, 1], [0, -1]])
    np.testing.assert_allclose(explain.grad_cam(pooled(), X, 0, "conv"), expected)
    np.testing.assert_array_equal(explain.grad_cam(pooled(), X, 0, "pool:in"), explain.grad_cam(pooled(), X, 0, "relu"))


def test_the_default_class_is_the_likeliest() -> None:
    # the logits are 2 * 2.5 - 0.75 + 1 = 5.25 and 3
    np.testing.assert_array_equal(explain.grad_cam(pooled(), X), explain.grad_cam(pooled(), X, 0))


# ---- gradients


def test_saliency_and_smooth_grad_of_a_linear_network_are_its_weights() -> None:
    weight = [[1.0, -2, 3, 0.5], [0, 0, 1, 0]]
    expected = np.array(weight[0]).reshape(2, 2, 1)
    np.testing.assert_array_equal(explain.saliency(features(weight), X, 0), expected)
    np.testing.assert_allclose(explain.smooth_grad(features(weight), X, 0, samples=21), expected)
    np.testing.assert_array_equal(explain.heat(explain.saliency(features(weight), X, 0)), [[1, 2], [3, 0.5]])


def test_smooth_grad_is_the_mean_gradient_of_noisy_images() -> None:
    network = Square([[3.0, 1.0]])
    x = image([[1, 2]])
    np.testing.assert_allclose(explain.smooth_grad(network, x, 0, noise=0), explain.saliency(network, x, 0))
    noise = 0.3 * np.random.default_rng(5).standard_normal((7, 1, 2, 1))  # the range of x is 1
    expected = (2 * ((x + noise) * [[[3], [1]]]).sum((1, 2, 3)).mean() * np.array([3, 1])).reshape(1, 2, 1)
    np.testing.assert_allclose(explain.smooth_grad(network, x, 0, samples=7, noise=0.3, seed=5), expected)


def test_guided_backprop_by_hand() -> None:
    # hidden 3, -1, 1; their gradients 2, 5, -3, of which ReLU hands on 2 and -3, guided 2 alone
    network = features([[1, 1], [1, -1], [-1, 1]], nn.ReLU(), layer(nn.Linear(3, 1), [[2, 5, -3]], [0]))
    x = image([[1, 2]])
    assert explain.saliency(network, x).ravel().tolist() == [5, -1]
    assert explain.guided_backprop(network, x).ravel().tolist() == [2, 2]
    assert explain.saliency(network, x).ravel().tolist() == [5, -1]


@pytest.mark.parametrize("kind", ["relu", "relu6"])
def test_every_way_to_a_rectifier_is_guided(kind: str, rng: np.random.Generator) -> None:
    """In a pass of its own, behind a convolution, a linear layer and a batch norm of either kind: all alike."""
    x, w = (cnn.Tensor(rng.normal(0, 2, shape)) for shape in ((2, 4, 4, 3), (5, 1, 1, 3)))
    matrix = cnn.Tensor(w.numpy().reshape(5, 3))
    mean, var = cnn.Tensor(np.zeros(3)), cnn.Tensor(np.ones(3) - 1e-5)
    dy = rng.standard_normal((2, 4, 4, 5))

    def gradient(run: Any, dy: np.ndarray) -> np.ndarray:
        leaf = cnn.Tensor(x.data, requires_grad=True)
        with F.guided_relu() as scope:
            run(leaf).backward(dy)
        assert scope.rectifiers == 1
        assert leaf.grad is not None
        return leaf.grad.numpy()

    act = getattr(F, kind)
    expected = gradient(lambda x: act(F.conv2d(x, w)), dy)
    y = F.conv2d(x, w).numpy()
    passing = np.maximum(dy, 0) * (y > 0) * ((y < 6) | (kind == "relu"))
    np.testing.assert_allclose(expected, passing @ matrix.numpy())
    np.testing.assert_allclose(gradient(lambda x: F.conv2d(x, w, activation=kind), dy), expected)
    np.testing.assert_allclose(gradient(lambda x: F.linear(x, matrix, activation=kind), dy), expected)
    dy = dy[..., :3]
    for training in (False, True):
        args = (None, None, True) if training else (None, None, False)
        together = gradient(lambda x, args=args: F.batch_norm(x, mean, var, *args, 0.0, 1e-5, kind), dy)
        apart = gradient(lambda x, args=args: act(F.batch_norm(x, mean, var, *args, 0.0)), dy)
        np.testing.assert_allclose(together, apart, atol=1e-12)


def test_guided_backprop_needs_rectifiers() -> None:
    with pytest.raises(cnn.Unsupported, match="no ReLU or ReLU6"):
        explain.guided_backprop(features([[1.0, 2], [3, 4]], nn.SiLU()), image([[1, 2]]))


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_integrated_gradients_by_hand(steps: int) -> None:
    # (3 a + b)^2 at (1, 2): 25. On the way from 0 the gradient's mean is 2 * 2.5 * (3, 1), times (1, 2); midpoints give
    # the integral of what is linear exactly
    network, x, start = Square([[3.0, 1.0]]), image([[1, 2]]), image([[1, 0]])
    found = explain.integrated_gradients(network, x, steps=steps)
    np.testing.assert_allclose(found.ravel(), [15, 10])
    np.testing.assert_allclose(explain.completeness(network, x, found), (25, 25))
    found = explain.integrated_gradients(network, x, baseline=start, steps=steps)
    np.testing.assert_allclose(found.ravel(), [0, 16], atol=1e-12)
    np.testing.assert_allclose(explain.completeness(network, x, found, baseline=start), (16, 25 - 9))


def test_integrated_gradients_are_complete(rng: np.random.Generator) -> None:
    """LeNet-5, whose scores are piecewise linear on the way: with 200 steps within 1 % of the difference."""
    cnn.manual_seed(3)
    network, x = cnn.models.lenet5(), rng.random((1, 28, 28, 1)).astype(np.float32)
    with cnn.no_grad():
        logits = [network(cnn.Tensor(at)).numpy()[0] for at in (x, np.zeros_like(x))]
    target = int(np.abs(logits[0] - logits[1]).argmax())
    found = explain.integrated_gradients(network, x, target, steps=200)
    total, difference = explain.completeness(network, x, found, target)
    assert difference == pytest.approx(logits[0][target] - logits[1][target])
    assert abs(total - difference) <= 0.01 * abs(difference)
    one = explain.integrated_gradients(network, x, target, steps=1)
    total, _ = explain.completeness(network, x, one, target)
    assert abs(total - difference) > 0.01 * abs(difference), "the tolerance would let one step pass"


# ---- occlusion


def test_occlusion_by_hand() -> None:
    # the logit is the sum of 1 2 3 / 40 50 60; windows of 1 x 2 at columns 0 and 1 take away 3, 5 / 90, 110
    network = features([[1.0, 1, 1, 10, 10, 10]])
    x = image([[1, 2, 3], [4, 5, 6]])
    found = explain.occlusion(network, x, 0, window=(1, 2), stride=1, score="logit")
    np.testing.assert_allclose(found, [[3, 4, 5], [90, 100, 110]])
    found = explain.occlusion(network, x, 0, window=1, stride=1, value=1, score="logit")
    np.testing.assert_allclose(found, [[0, 1, 2], [30, 40, 50]])


def test_occlusion_of_a_probability() -> None:
    network = features([[np.log(3), 0], [0, 0]])  # 3 : 1 with the first pixel, 1 : 1 without
    found = explain.occlusion(network, image([[1, 1]]), window=1)
    np.testing.assert_allclose(found, [[0.25, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("size", "window", "stride", "expected"), [(10, 4, 3, [0, 3, 6]), (10, 4, 4, [0, 4, 6]), (3, 3, 9, [0])]
)
def test_windows_reach_the_border(size: int, window: int, stride: int, expected: list[int]) -> None:
    assert starts(size, window, stride) == expected


# ---- layers


def test_feature_maps_and_filters() -> None:
    found = explain.feature_maps(pooled(), X, ["conv", "relu", "pool:in", "pool", "fc"])
    np.testing.assert_array_equal(found["conv"][..., 1], [[2, 1], [0, -1]])
    np.testing.assert_array_equal(found["relu"][..., 1], [[2, 1], [0, 0]])
    np.testing.assert_array_equal(found["pool:in"], found["relu"])
    assert found["pool"].tolist() == [2.5, 0.75]
    assert found["fc"].tolist() == [5.25, 3]
    assert explain.filters(pooled()).ravel().tolist() == [1, -1]


def test_places_and_stages_of_lenet() -> None:
    network, x = cnn.models.lenet5(), np.zeros((1, 28, 28, 1), np.float32)
    assert [place.name for place in explain.places(network, x)] == [
        "conv1",
        "relu1",
        "pool1",
        "conv2",
        "relu2",
        "pool2",
    ]
    assert explain.places(network, x)[3].shape == (10, 10, 16)
    assert explain.stages(network, x) == ["relu1", "pool1", "relu2", "pool2"]
    assert explain.last_maps(network, x) == "relu2"


def test_what_a_function_makes_is_named_by_its_reader() -> None:
    network, x = cnn.models.efficientnet_lite0(10), np.zeros((1, 64, 64, 3), np.float32)
    with cnn.use_backend("native") if cnn.backends.available()["native"] is None else cnn.use_backend("numpy"):
        assert explain.last_maps(network, x) == "_avg_pooling:in"
        assert explain.stages(network, x)[-1] == "_avg_pooling:in"
        assert explain.stages(network, x, of_modules=True)[-1] == "_bn1"
        maps = explain.feature_maps(network, x, ["_avg_pooling:in", "_bn1"])
    np.testing.assert_array_equal(maps["_avg_pooling:in"], np.clip(maps["_bn1"], 0, 6))


def test_a_network_is_left_as_it_was() -> None:
    network = pooled().train()
    network.relu.eval()
    explain.grad_cam(network, X)
    explain.integrated_gradients(network, X)
    with pytest.raises(ValueError, match="target"):
        explain.saliency(network, X, 7)
    assert [module.training for module in network.modules()] == [True, True, False, True, True]
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for parameter in network.parameters():
        assert parameter.requires_grad
        assert parameter.grad is None


def test_a_fused_network_is_explained_alike() -> None:
    cnn.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(4, 3)
    ).eval()
    x = np.random.default_rng(0).random((1, 6, 6, 3)).astype(np.float32)
    before = [explain.explain(network, x, method, 1) for method in ("grad_cam", "guided_backprop", "occlusion")]
    network.fuse()
    for method, expected in zip(("grad_cam", "guided_backprop", "occlusion"), before, strict=True):
        np.testing.assert_allclose(explain.explain(network, x, method, 1), expected, rtol=1e-4, atol=1e-6)


# ---- activation maximisation


def test_activation_maximisation_finds_the_filter() -> None:
    """A filter that wants the left bright and the right dark: its best image is brighter left of every edge."""
    network = nn.Sequential({"conv": layer(nn.Conv2d(1, 2, (1, 2)), [1, -1, -1, 1], [0, 0])})
    first, second = explain.activation_maximisation(network, "conv", [0, 1], (8, 8, 1), steps=30, jitter=0, seed=1)
    assert first.shape == (8, 8, 1)
    assert 0 <= first.min() <= first.max() <= 1
    answer = [float((picture[:, :-1] - picture[:, 1:]).mean()) for picture in (first, second)]
    assert answer[0] > 0.1
    assert answer[1] < -0.1


def test_activation_maximisation_beats_chance(rng: np.random.Generator) -> None:
    """A class of an untrained LeNet-5: more than any of 100 random images, of its own start among them."""
    cnn.manual_seed(1)
    network = cnn.models.lenet5()
    start, best = (
        explain.activation_maximisation(network, "linear3", [7], (28, 28, 1), steps=steps, seed=2)[0]
        for steps in (1, 40)
    )
    images = np.stack([best, start, *rng.random((99, 28, 28, 1))]).astype(np.float32)
    with cnn.no_grad():
        scores = network(cnn.Tensor((images - 0.5) / np.float32(0.5))).numpy()[:, 7]
    assert scores[0] > scores[1:].max()


# ---- what is refused


@pytest.mark.parametrize("method", [name for name in explain.METHODS if name != "attention_rollout"])
def test_what_every_method_refuses(method: str) -> None:
    network = pooled()
    with pytest.raises(ValueError, match=r"one image \(1, H, W, C\), received \(2, 2, 2, 1\)"):
        explain.explain(network, np.concatenate([X, X]), method)
    with pytest.raises(TypeError, match="floats, received uint8"):
        explain.explain(network, X.astype(np.uint8), method)
    for target in (2, -1, 1.0):
        with pytest.raises(ValueError, match=rf"{method}: target must be a class from 0 to 1, received {target}"):
            explain.explain(network, X, method, target)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"{method}: expected a network with scores \(N, classes\)"):
        explain.explain(nn.Sequential(network.conv, network.relu), X, method)


def test_unknown_names_are_answered_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"no layer 'rleu'; did you mean relu\? There are conv, relu, pool, fc$"):
        explain.grad_cam(pooled(), X, layer="rleu")
    with pytest.raises(ValueError, match=r"no convolution of this network; there are conv$"):
        explain.filters(pooled(), "fc")
    with pytest.raises(ValueError, match="no method 'magic'; there are occlusion, saliency, "):
        explain.explain(pooled(), X, "magic")
    with pytest.raises(ValueError, match=r"There are _conv_stem, .*_blocks\.15, .*_fc, and 110 below these$"):
        explain.layers.find(cnn.models.efficientnet_lite0(10), "x")


def test_layers_that_do_not_serve() -> None:
    with pytest.raises(ValueError, match=r"fc makes no feature maps \(P, Q, K\) of an image, but \(2,\)"):
        explain.grad_cam(pooled(), X, layer="fc")
    with pytest.raises(ValueError, match="no feature maps"):
        explain.grad_cam(features([[1.0, 2, 3, 4]]), X)
    with pytest.raises(ValueError, match="conv has units 0 to 1, received"):
        explain.activation_maximisation(pooled(), "conv", [2], (2, 2, 1))
    unused = pooled()
    unused.spare = nn.ReLU()
    unused.forward = lambda x: unused.fc(unused.pool(unused.relu(unused.conv(x))))
    for call in (explain.grad_cam, lambda *args, layer: explain.feature_maps(*args[:2], [layer])):
        with pytest.raises(ValueError, match="did not call spare"):
            call(unused, X, 0, layer="spare")


def test_options_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="window of 3 x 3 is larger than the image, 2 x 2"):
        explain.occlusion(pooled(), X, window=3)
    with pytest.raises(ValueError, match="score must be 'probability' or 'logit', received 'loss'"):
        explain.occlusion(pooled(), X, score="loss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be at least 1"):
        explain.integrated_gradients(pooled(), X, steps=0)
    with pytest.raises(ValueError, match=r"baseline must be \(1, 2, 2, 1\) as x is, received \(1, 1, 2, 1\)"):
        explain.integrated_gradients(pooled(), X, baseline=X[:, :1])
    with pytest.raises(ValueError, match="samples >= 1 and noise >= 0, received 4 and -1"):
        explain.smooth_grad(pooled(), X, samples=4, noise=-1)
    with pytest.raises(ValueError, match="channels must be at least 1"):
        explain.score_cam(pooled(), X, channels=0)
