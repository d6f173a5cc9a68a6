"""MobileNetV2 and the EfficientNets: sizes as published, and each the same network as in plain PyTorch."""

from __future__ import annotations

import io
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.models import compound_scaling, efficientnet, efficientnet_lite, registry, summary

from .harness import LONG
from .torch_networks import batch, checked_errors, errors_against_torch, fill

SIZES = {  # parameters for 1000 classes, side of the image, multiply-adds of convolutions and linear layers
    "mobilenet_v2": (3_504_872, 224, 300_774_272),
    "efficientnet_b0": (5_288_548, 224, 385_814_752),
    "efficientnet_b1": (7_794_184, 240, 686_802_832),
    "efficientnet_b2": (9_109_994, 288, 1_087_529_456),
    "efficientnet_b3": (12_233_232, 300, 1_827_141_392),
    "efficientnet_b4": (19_341_616, 380, 4_393_771_024),
    "efficientnet_b5": (30_389_784, 456, 10_266_384_752),
    "efficientnet_b6": (43_040_704, 528, 19_067_593_536),
    "efficientnet_b7": (66_347_960, 600, 37_745_884_192),
    "efficientnet_lite0": (4_652_008, 224, 385_187_552),
    "efficientnet_lite1": (5_416_680, 240, 600_185_232),
    "efficientnet_lite2": (6_092_072, 260, 859_736_272),
    "efficientnet_lite3": (8_197_096, 280, 1_383_321_872),
    "efficientnet_lite4": (13_006_568, 300, 2_553_034_336),
}
SMALL = ("mobilenet_v2", "efficientnet_b0", "efficientnet_lite0")
TORCHVISION = {  # 1e9 multiply-adds, as its page on models says; B2 there at 288 pixels, elsewhere at 260
    "mobilenet_v2": 0.30,
    "efficientnet_b0": 0.39,
    "efficientnet_b1": 0.69,
    "efficientnet_b2": 1.09,
    "efficientnet_b3": 1.83,
    "efficientnet_b4": 4.39,
    "efficientnet_b5": 10.27,
    "efficientnet_b6": 19.07,
    "efficientnet_b7": 37.75,
}
AUTHORS = {  # 1e6 operations, as the authors of Lite count: 3 more for each value that a convolution gives
    "efficientnet_lite0": 407,
    "efficientnet_lite1": 631,
    "efficientnet_lite2": 899,
    "efficientnet_lite3": 1440,
    "efficientnet_lite4": 2640,
}


class Zeros:
    """In place of the generator of initial weights: they play no part here, and there are many."""

    def standard_normal(self, shape: Any, dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def uniform(self, low: float, high: float, shape: Any) -> np.ndarray:
        return np.zeros(shape)


@pytest.fixture
def _zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.init, "generator", Zeros)


@pytest.mark.usefixtures("_zeros")
@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name: str) -> None:
    parameters, side, multiply_adds = SIZES[name]
    model = cnn.models.create(name)
    table = summary(model, (1, side, side, 3))
    assert table.parameters == parameters
    assert table.macs == multiply_adds
    if name in TORCHVISION:
        assert round(multiply_adds / 1e9, 2) == TORCHVISION[name]
    else:
        convolved = sum(math.prod(row.output) for row in table.rows if row.kind == "Conv2d" and row.output)
        assert (multiply_adds + 3 * convolved) / 1e6 == pytest.approx(AUTHORS[name], rel=5e-3)


def test_image_sizes_and_preprocessing() -> None:
    sides = {name: registry.entry(name).image[0] for name in SIZES}
    assert [sides[f"efficientnet_b{i}"] for i in range(8)] == [224, 240, 260, 300, 380, 456, 528, 600]
    assert [sides[f"efficientnet_lite{i}"] for i in range(5)] == [224, 240, 260, 280, 300]
    for name, side in sides.items():
        preprocessing = registry.entry(name).preprocessing
        assert preprocessing is not None
        assert preprocessing.size == side
        lite = "lite" in name
        assert preprocessing.mean == (127 / 255 if lite else (0.485, 0.456, 0.406))
        assert preprocessing.interpolation == ("bilinear" if name == "mobilenet_v2" else "bicubic")


# ---- compound scaling


def test_the_rule_gives_the_released_networks_as_far_as_they_follow_it() -> None:
    """Width and depth rounded to a tenth: of phi 0, 0.5, 1 and 2; B1 is no wider."""
    released = {0: efficientnet.B0, 0.5: efficientnet.B1, 1: efficientnet.B2, 2: efficientnet.B3}
    for phi, scaling in released.items():
        rule = compound_scaling.compound(phi)
        assert round(rule.depth, 1) == scaling.depth
        assert round(rule.width, 1) == scaling.width
        assert rule.size == pytest.approx(scaling.size, rel=0.015)
    assert compound_scaling.scaled(compound_scaling.compound(0)) == compound_scaling.BASE


@pytest.mark.usefixtures("_zeros")
def test_a_step_of_the_rule_doubles_the_arithmetic() -> None:
    counts = []
    for phi in (0.0, 1.0, 2.0):
        scaling = compound_scaling.compound(phi)
        model = efficientnet.EfficientNet(scaling, 1000, 0, 0)
        counts.append(summary(model, (1, scaling.size, scaling.size, 3)).macs)
    assert 1.8 < counts[1] / counts[0] < 2.6
    assert 1.8 < counts[2] / counts[1] < 2.6


@pytest.mark.parametrize(("base", "width", "channels"), [(32, 1.1, 32), (32, 1.2, 40), (16, 1.2, 24), (3, 1, 8)])
def test_channels_are_multiples_of_eight_that_lose_a_tenth_at_most(base: int, width: float, channels: int) -> None:
    assert compound_scaling.channels(base, width) == channels


def test_lite_scales_neither_its_stem_nor_its_head() -> None:
    model = efficientnet_lite.efficientnet_lite4()
    assert model._conv_stem.out_channels == 32
    assert model._conv_head.out_channels == 1280
    assert [sum(b._project_conv.out_channels == c for b in model._blocks) for c in (24, 448)] == [1, 1]


# ---- beside PyTorch

LOGITS = {  # of plain PyTorch in float64, evaluation, weights by ``fill``
    "mobilenet_v2": (0.0669363, 2.3272927, 0.408512, 0.7138987),
    "efficientnet_b0": (0.646419, 0.7279467, 0.1539486, 0.6908491),
    "efficientnet_b5": (1.3279664, 2.73338, -0.0093743, 1.2381595),
    "efficientnet_lite0": (-0.4978084, 1.5015753, -0.5986398, 0.1914564),
    "efficientnet_lite3": (0.5138631, 1.2929385, -0.8825591, 0.2092851),
}


@pytest.mark.parametrize("name", LOGITS)
def test_logits_that_pytorch_gave(name: str) -> None:
    model = fill(cnn.models.create(name, num_classes=4)).eval()
    with cnn.no_grad():
        logits = model(cnn.Tensor(batch((1, 32, 32, 3), 4)[0])).numpy()
    np.testing.assert_allclose(logits[0], LOGITS[name], rtol=0, atol=5e-6)


def reference(name: str, num_classes: int) -> Any:
    pytest.importorskip("torch", reason="torch is not installed")
    from .torch_models import mobile

    if name == "mobilenet_v2":
        return mobile.MobileNetV2(num_classes)
    return (mobile.EfficientNetLite if "lite" in name else mobile.EfficientNet)(name, num_classes)


def check(name: str, draws: int) -> None:
    """Root mean squares over so many batches of two images: the error of one is a matter of luck."""
    options = {} if name == "mobilenet_v2" else {"stochastic_depth": 0.0}
    ours, theirs = fill(cnn.models.create(name, num_classes=10, dropout=0.0, **options)), reference(name, 10)
    found = [errors_against_torch(ours, theirs, *batch((2, 64, 64, 3), 10, str(draw))) for draw in range(draws)]
    errors = {part: tuple(np.sqrt(np.mean([np.square(e[part]) for e in found], axis=0))) for part in found[0]}
    checked_errors(errors)
    print(name, {part: f"{mine:.1e} {theirs:.1e}" for part, (mine, theirs) in errors.items()})


@pytest.mark.parametrize("name", SMALL)
def test_same_as_in_pytorch(name: str) -> None:
    check(name, 3)


@LONG
def test_efficientnet_b0_learns_64_images_by_heart(shared: Path) -> None:
    """Eight training images of each of eight classes of CIFAR-10 (JPEG), all right in evaluation behind 60 steps. The
    norms' running statistics follow quickly, since there is but one batch."""
    stored = np.load(shared / "data" / "cifar10_jpeg_c.npz")
    jpeg, offsets = stored["jpeg_train"], stored["offset_train"]
    chosen = [int(i) for c in range(8) for i in np.flatnonzero(stored["label_train"] == c)[:8]]
    pictures = [Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes())) for i in chosen]
    labels = stored["label_train"][chosen].astype(np.int64)
    cnn.manual_seed(0)
    norm = partial(nn.BatchNorm2d, momentum=0.5)
    model = efficientnet.EfficientNet(efficientnet.B0, 8, dropout=0.0, stochastic_depth=0.0, norm=norm)
    optimizer = cnn.optim.Adam(model.parameters(), lr=1e-3)
    x = F.normalize_images(np.stack([np.asarray(picture) for picture in pictures]), 0.47, 0.25)
    for step in range(60):
        optimizer.lr = cnn.optim.cosine(1e-3, step, 60)
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with cnn.no_grad():
        logits = model.eval()(x)
    print(f"loss {loss.item():.2e} in training, {F.cross_entropy(logits, labels).item():.2e} in evaluation")
    assert (logits.numpy().argmax(1) == labels).all()


@LONG
@pytest.mark.parametrize("name", [n for n in SIZES if n not in SMALL])
def test_large_ones_same_as_in_pytorch(name: str) -> None:
    check(name, 4)
