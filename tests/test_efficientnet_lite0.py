"""EfficientNet-Lite0 with its trained weights: the reference's logits on eight photographs, and its activations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends.registry import unavailable
from cnnengine.models import registry

from .real_weights import lite0_weights

CHELSEA = 3  # the cat, among the photographs


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "golden" / "effnet_lite0_small.npz"))


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    return cnn.load_torch(lite0_weights())


def network(state: dict[str, np.ndarray]) -> Any:
    model = cnn.models.efficientnet_lite0()
    model.load_state_dict(state)
    return model.eval()


def prepared(images: np.ndarray) -> cnn.Tensor:
    preprocessing = registry.entry("efficientnet_lite0").preprocessing
    assert preprocessing is not None
    return F.normalize_images(images, preprocessing.mean, preprocessing.std)


@pytest.mark.parametrize("fused", [False, True], ids=["as loaded", "fused"])
def test_logits_are_the_reference_s(golden: dict[str, np.ndarray], state: dict[str, np.ndarray], fused: bool) -> None:
    model = network(state)
    with cnn.no_grad():
        logits = (model.fuse() if fused else model)(prepared(golden["input_u8"])).numpy()
    assert np.abs(logits - golden["logits"]).max() <= 1e-4
    assert np.abs(logits - golden["logits_f64"]).max() <= 1e-4
    assert (logits.argmax(1) == golden["logits"].argmax(1)).all()


def test_the_oracle_agrees(golden: dict[str, np.ndarray], state: dict[str, np.ndarray]) -> None:
    with cnn.use_backend("numpy"), cnn.no_grad():
        logits = network(state)(prepared(golden["input_u8"][:1])).numpy()
    assert np.abs(logits - golden["logits_f64"][:1]).max() <= 1e-4


def test_activations_are_the_reference_s(golden: dict[str, np.ndarray], state: dict[str, np.ndarray]) -> None:
    """Shape, mean, standard deviation and largest magnitude behind each block, for the cat."""
    model, caught = network(state), {}
    for i, block in enumerate(model._blocks):
        block.register_forward_hook(lambda _, inputs, output, i=i: caught.update({i: output.numpy()}))
    with cnn.no_grad():
        model(prepared(golden["input_u8"][CHELSEA : CHELSEA + 1]))
    taps = json.loads(str(golden["tap_stats"]))
    assert len(caught) == 16
    for i, y in caught.items():
        (channels, height, width), mean, std, largest = taps[f"tap/block{i:02}"]
        assert y.shape == (1, height, width, channels)
        found = y.mean(dtype=np.float64), y.std(dtype=np.float64), np.abs(y).max()
        np.testing.assert_allclose(found, (mean, std, largest), rtol=1e-4, atol=1e-5, err_msg=f"block {i}")


@pytest.mark.skipif(unavailable("emulator") is not None, reason=f"no emulator: {unavailable('emulator')}")
def test_float16_kernels_of_the_gpu_agree(golden: dict[str, np.ndarray], state: dict[str, np.ndarray]) -> None:
    """The whole network on a part of the cat, emulated: each block and the logits within 2e-2 of float32's, as a share
    of their largest value."""
    x = prepared(golden["input_u8"][CHELSEA : CHELSEA + 1, 80:144, 80:144]).numpy()

    def run() -> dict[str, np.ndarray]:
        model, caught = network(state).fuse(), {}
        for i, block in enumerate(model._blocks):
            block.register_forward_hook(lambda _, inputs, output, i=i: caught.update({f"block {i}": output.numpy()}))
        with cnn.no_grad():
            logits = model(cnn.Tensor(x)).numpy()
        return {**caught, "logits": logits}

    expected = run()
    with cnn.use_backend("emulator"), cnn.amp.autocast("float16"):
        found = run()
    assert found["block 0"].dtype == np.float16
    for name, y in expected.items():
        assert np.abs(found[name].astype(np.float32) - y).max() <= 2e-2 * np.abs(y).max(), name
    assert found["logits"].argmax() == expected["logits"].argmax()
