"""EfficientNet-Lite0 with its trained weights explains what it sees in a cat, an espresso and a tripod."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import explain, nn

from .harness import LONG
from .photographs import BOXES, CLASSES, normalised, photograph
from .real_weights import lite0_weights

COVERED = 0.75  # of the top quarter of the map, or of the box where that is smaller
PLACES = 8  # random places of a map that it is compared with
METHODS = [name for name in explain.METHODS if name != "attention_rollout"]


@pytest.fixture(scope="module")
def lite0() -> Any:
    model = cnn.models.efficientnet_lite0()
    model.load_state_dict(cnn.load_torch(lite0_weights()))
    return model.eval()


def target(name: str) -> int:
    return list(cnn.data.imagenet_classes()).index(CLASSES[name])


def overlap(heat: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """How much the top quarter of the map and the box share, of the smaller of the two."""
    top = np.zeros(heat.size, bool)
    top[np.argsort(-heat.ravel(), kind="stable")[: heat.size // 4]] = True
    inside = np.zeros(heat.shape, bool)
    inside[box[0] : box[2], box[1] : box[3]] = True
    return float((top.reshape(heat.shape) & inside).sum() / min(top.sum(), inside.sum()))


def test_overlap_by_hand() -> None:
    heat = np.arange(16.0).reshape(4, 4)  # its top quarter is the last row
    assert overlap(heat, (3, 0, 4, 4)) == 1
    assert overlap(heat, (2, 2, 4, 4)) == 0.5
    assert overlap(heat, (3, 1, 4, 2)) == 1
    assert overlap(heat, (0, 0, 2, 4)) == 0


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_plus_plus"])
@pytest.mark.parametrize("name", CLASSES)
def test_the_top_quarter_covers_the_object(lite0: nn.Module, name: str, method: str) -> None:
    heat = explain.explain(lite0, normalised(photograph(name)), method)
    found = overlap(heat, BOXES[name])
    print(f"{method} {name}: {found:.3f}")
    assert found >= COVERED
    places = [overlap(explain.displaced(heat, seed), BOXES[name]) for seed in range(20)]
    assert found > np.mean(places) + 0.1, "a map of any other place would do as well"
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert BOXES[name][0] <= row < BOXES[name][2]
    assert BOXES[name][1] <= column < BOXES[name][3]


def test_the_map_is_of_the_class(lite0: nn.Module) -> None:
    """Another class has another map: of the photographer the tripod, and his coat."""
    x = normalised(photograph("camera"))
    coat = list(cnn.data.imagenet_classes()).index("trench coat")
    tripod, other = (explain.explain(lite0, x, "grad_cam", c) for c in (target("camera"), coat))
    assert explain.rank_correlation(tripod, other) < 0.5


def test_grad_cam_is_class_activation_mapping_here(lite0: Any) -> None:
    """Behind a mean and a linear layer Grad-CAM is CAM but for a factor: Selvaraju et al., section 3.1."""
    x = normalised(photograph("coffee"))
    maps = explain.feature_maps(lite0, x, ["_avg_pooling:in"])["_avg_pooling:in"]
    expected = np.maximum(maps @ lite0._fc.weight.numpy()[target("coffee")], 0) / 49
    np.testing.assert_allclose(explain.grad_cam(lite0, x), expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("name", CLASSES)
def test_grad_cam_passes_the_sanity_check(lite0: nn.Module, name: str) -> None:
    """Without what was learned the map is another one, from the second stop on."""
    x = normalised(photograph(name))
    steps = explain.cascading_randomisation(
        lite0, lambda model: explain.explain(model, x, "grad_cam", target(name)), stops=4
    )
    print(name, [(layer, round(value, 2)) for layer, value in steps])
    assert steps[0].layer == "_fc"
    assert steps[-1].layer == "_conv_stem"
    assert all(abs(step.correlation) < 0.5 for step in steps[1:])


def test_guided_backprop_fails_it_as_published(lite0: nn.Module) -> None:
    """A random last layer changes its map hardly at all, and that of the gradient much."""
    x = normalised(photograph("camera"))
    found = {
        method: explain.cascading_randomisation(
            lite0, lambda model, method=method: explain.explain(model, x, method, target("camera")), stops=2
        )
        for method in ("guided_backprop", "saliency")
    }
    assert found["guided_backprop"][0].correlation > 0.95
    assert found["saliency"][0].correlation < 0.7
    assert abs(found["saliency"][1].correlation) < 0.5


def areas(model: nn.Module, name: str, method: str, places: int, **options: Any) -> tuple[float, float]:
    """Under the deletion curve: of the map, and the mean of the same map at random places."""
    x = normalised(photograph(name))
    heat = explain.explain(model, x, method, target(name), **options)
    maps = [heat, *(explain.displaced(heat, seed) for seed in range(places))]
    own, *others = (explain.area(explain.deletion(model, x, map_, target(name))) for map_ in maps)
    return own, float(np.mean(others))


def test_deletion_of_grad_cam_is_better_than_chance(lite0: nn.Module) -> None:
    own, chance = areas(lite0, "camera", "grad_cam", 1)
    print(f"grad_cam camera: {own:.3f}, displaced {chance:.3f}")
    assert own < 0.5 * chance


@LONG
@pytest.mark.parametrize("method", METHODS)
def test_deletion_of_every_method_is_better_than_chance(lite0: nn.Module, method: str) -> None:
    found = np.array([areas(lite0, name, method, PLACES) for name in CLASSES])
    own, chance = found.mean(0)
    print(f"{method:22} {own:.3f} displaced {chance:.3f}   by photograph {found.round(3).tolist()}")
    assert own < chance


@LONG
@pytest.mark.parametrize("name", CLASSES)
def test_score_cam_covers_the_object(lite0: nn.Module, name: str) -> None:
    heat = explain.explain(lite0, normalised(photograph(name)), "score_cam")
    print(f"score_cam {name}: {overlap(heat, BOXES[name]):.3f}")
    assert overlap(heat, BOXES[name]) >= COVERED


@LONG
@pytest.mark.parametrize("name", CLASSES)
def test_integrated_gradients_are_complete(lite0: nn.Module, name: str) -> None:
    """Within 1 %; nearly all of the change is in the first eighth of the way, which takes that many steps."""
    x = normalised(photograph(name))
    found = explain.integrated_gradients(lite0, x, target(name), steps=2048)
    total, difference = explain.completeness(lite0, x, found, target(name))
    print(f"{name}: attributions add up to {total:.3f}, the logits differ by {difference:.3f}")
    assert abs(total - difference) <= 0.01 * abs(difference)
