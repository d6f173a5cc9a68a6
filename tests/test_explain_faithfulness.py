"""Deletion, insertion and randomised weights: by hand on networks whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import explain, nn
from cnnengine.explain.faithfulness import blurred, ranks

from .test_explain import features, image


@pytest.fixture(autouse=True)
def _float64() -> Any:
    with cnn.use_backend("numpy"):
        yield


# ---- curves


def network() -> nn.Sequential:
    """Two classes at odds 3 ^ (x0 + x1) of four pixels"""
    return features([[np.log(3), np.log(3), 0, 0], [0, 0, 0, 0]])


def test_deletion_by_hand() -> None:
    x, heat = image([[1, 1], [1, 1]]), np.array([[3.0, 1], [2, 0]])
    # the order is pixels 0, 2, 1, 3: odds 9, 3, 3, 1, 1
    curve = explain.deletion(network(), x, heat, 0, region=1)
    np.testing.assert_allclose(curve, [0.9, 0.75, 0.75, 0.5, 0.5])
    assert explain.area(curve) == pytest.approx((0.45 + 0.75 + 0.75 + 0.5 + 0.25) / 4)
    np.testing.assert_allclose(
        explain.deletion(network(), x, heat, 1, region=1, value=2), [0.1, 1 / 28, 1 / 28, 1 / 82, 1 / 82]
    )


def test_insertion_by_hand() -> None:
    # the parts of so small an image are its pixels: blurred it is the same
    x, heat = image([[1, 1], [1, 1]]), np.array([[3.0, 1], [2, 0]])
    np.testing.assert_allclose(explain.insertion(network(), x, heat, 0, region=1), [0.9] * 5)
    x = np.zeros((1, 40, 40, 1))
    x[0, ::2] = 1  # stripes, all gone when blurred
    model = features(
        (np.where(np.arange(40) % 2, -1, 1)[:, None] * np.full((40, 40), 0.1)).reshape(1, 1600).repeat(2, 0)
        * [[1], [0]]
    )
    heat = np.zeros((40, 40))
    heat[:20] = 1
    first, second = (explain.insertion(model, x, map_, 0, region=20) for map_ in (heat, -heat))
    assert first[0] == pytest.approx(0.5, abs=0.02)
    assert first[-1] > 0.999
    np.testing.assert_allclose(first[[0, -1]], second[[0, -1]])
    assert len(first) == 5


def test_the_right_order_is_the_best() -> None:
    x = image(np.ones((2, 2)))
    areas = {
        order: explain.area(explain.deletion(network(), x, np.array(order, float).reshape(2, 2), 0, region=1))
        for order in ((3, 2, 1, 0), (0, 1, 2, 3), (3, 0, 1, 2))
    }
    assert areas[3, 2, 1, 0] < areas[3, 0, 1, 2] < areas[0, 1, 2, 3]


def test_regions() -> None:
    heat = np.array([[1.0, 1, 5], [1, 1, 3], [9, 9, 8]])
    # means 1, 4 / 9, 8
    assert ranks(heat, 2).tolist() == [[3, 3, 2], [3, 3, 2], [0, 0, 1]]
    assert ranks(np.zeros((2, 2)), 1).tolist() == [[0, 1], [2, 3]]


def test_blurred_keeps_the_mean(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 60, 80, 3)).astype(np.float32)
    smooth = blurred(x)
    assert smooth.dtype == np.float32
    assert smooth.shape == x.shape
    assert smooth.std() < 0.3 * x.std()
    np.testing.assert_allclose(smooth.mean((1, 2)), x.mean((1, 2)), atol=0.01)


def test_displaced_keeps_the_values(rng: np.random.Generator) -> None:
    heat = rng.random((7, 9))
    moved = [explain.displaced(heat, seed) for seed in range(3)]
    for other in moved:
        np.testing.assert_array_equal(np.sort(other.ravel()), np.sort(heat.ravel()))
    assert not np.array_equal(moved[0], moved[1])
    np.testing.assert_array_equal(explain.displaced(heat, 2), moved[2])


def test_maps_that_are_refused() -> None:
    x = image(np.ones((2, 2)))
    with pytest.raises(
        ValueError, match=r"deletion: heat must be finite and \(2, 2\) as the image is, received \(2, 3\)"
    ):
        explain.deletion(network(), x, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="insertion: heat must be finite"):
        explain.insertion(network(), x, np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="region must be at least 1, received 0"):
        explain.deletion(network(), x, np.zeros((2, 2)), region=0)


# ---- randomised weights


def test_rank_correlation_by_hand() -> None:
    a = np.array([1.0, 2, 3, 4])
    assert explain.rank_correlation(a, a**3) == pytest.approx(1)
    assert explain.rank_correlation(a, -a) == pytest.approx(-1)
    # ranks 1 2 3 4 and 2 1 4 3: 1 - 6 * 4 / (4 * 15)
    assert explain.rank_correlation(a, np.array([20.0, 10, 40, 30])) == pytest.approx(0.6)
    # equal ones share a rank: 1.5 1.5 3 4; covariance 4.5, variances 5 and 4.5
    assert explain.rank_correlation(a, np.array([7.0, 7, 8, 9])) == pytest.approx(4.5 / np.sqrt(5 * 4.5))
    assert explain.rank_correlation(a, np.ones(4)) == 0
    with pytest.raises(ValueError, match=r"equal shapes, received \(4,\) and \(3,\)"):
        explain.rank_correlation(a, a[:3])


def lenet() -> tuple[nn.Module, np.ndarray]:
    cnn.manual_seed(0)
    return cnn.models.lenet5(), np.random.default_rng(0).random((1, 28, 28, 1)).astype(np.float32)


def test_layers_are_randomised_from_the_last_to_the_first() -> None:
    model, x = lenet()
    before = {name: np.array(value.numpy()) for name, value in model.state_dict().items()}
    changed: list[list[str]] = []

    def look(network: nn.Module) -> np.ndarray:
        assert network is model
        now = network.state_dict()
        changed.append([name for name, value in before.items() if not np.array_equal(now[name].numpy(), value)])
        for name, value in before.items():
            np.testing.assert_array_equal(np.sort(now[name].numpy().ravel()), np.sort(value.ravel()))
        return explain.saliency(network, x, 3)

    steps = explain.cascading_randomisation(model, look)
    order = ["linear3", "linear2", "linear1", "conv2", "conv1"]
    assert [step.layer for step in steps] == order
    assert changed[0] == []
    for i in range(1, 6):
        assert set(changed[i]) == {f"{name}.{part}" for name in order[:i] for part in ("weight", "bias")}
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    assert abs(steps[-1].correlation) < 0.2


def test_what_ignores_the_network_does_not_pass() -> None:
    """Edges of the image are the published example of a map that looks right and explains nothing."""
    model, x = lenet()
    steps = explain.cascading_randomisation(model, lambda network: np.abs(np.diff(x[0, :, :, 0])))
    assert [step.correlation for step in steps] == pytest.approx([1.0] * 5)


@pytest.mark.parametrize(
    ("stops", "expected"), [(1, ["conv1"]), (2, ["linear3", "conv1"]), (3, ["linear3", "linear1", "conv1"])]
)
def test_stops(stops: int, expected: list[str]) -> None:
    model, x = lenet()
    steps = explain.cascading_randomisation(model, lambda network: explain.saliency(network, x, 0), stops=stops)
    assert [step.layer for step in steps] == expected


def test_weights_come_back_when_an_explanation_fails() -> None:
    model, _ = lenet()
    before = model.conv1.weight.numpy().copy()
    calls = []

    def fails(network: nn.Module) -> np.ndarray:
        calls.append(network)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return np.zeros(3)

    with pytest.raises(KeyboardInterrupt):
        explain.cascading_randomisation(model, fails)
    np.testing.assert_array_equal(model.conv1.weight.numpy(), before)


def test_networks_that_cannot_be_randomised() -> None:
    model, x = lenet()
    model.freeze()
    with pytest.raises(ValueError, match=r"conv1\.weight is frozen: call unfreeze\(\) first"):
        explain.cascading_randomisation(model, lambda network: x)
    with pytest.raises(ValueError, match="no parameters"):
        explain.cascading_randomisation(nn.ReLU(), lambda network: x)
