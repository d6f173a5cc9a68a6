"""LeNet-5 with weights that PyTorch trained: the reference logits, on every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import data
from cnnengine.backends.contract import Backend

GOLDEN_KEYS = {"c1": "conv1", "c2": "conv2", "f1": "linear1", "f2": "linear2", "f3": "linear3"}
IMAGES = {"native": 1000, "numpy": 1000, "emulator": 16, "numba": 1}  # as many as an interpreter can bear


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    path = shared / "golden" / "lenet5_mnist_torch.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the folder of reference outputs")
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def images(shared: Path) -> np.ndarray:
    if not (shared / "data" / "MNIST").is_dir():
        pytest.skip("MNIST is not in the folder of real data")
    return data.mnist(shared / "data").test_images[:1000]


def _torch_state(golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The golden weights under our names, convolutions turned to (K, R, S, C)."""
    foreign = {name: value for name, value in golden.items() if name.endswith((".weight", ".bias"))}
    renamed = {}
    for name, value in foreign.items():
        layer, kind = name.split(".")
        renamed[f"{GOLDEN_KEYS[layer]}.{kind}"] = value
    return cnn.load_torch(renamed)


def test_it_has_the_papers_sizes() -> None:
    model = cnn.models.lenet5()
    assert sum(p.size for p in model.parameters()) == 61_706
    shapes = {name: p.shape for name, p in model.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "conv1.weight": (6, 5, 5, 1),
        "conv2.weight": (16, 5, 5, 6),
        "linear1.weight": (120, 400),
        "linear2.weight": (84, 120),
        "linear3.weight": (10, 84),
    }
    assert cnn.models.lenet5(num_classes=3).linear3.weight.shape == (3, 84)


def test_golden_weights_give_the_reference_logits(
    backend: Backend, golden: dict[str, np.ndarray], images: np.ndarray
) -> None:
    model = cnn.models.lenet5(flatten="CHW")  # the first linear layer was trained behind (C, H, W)
    model.load_state_dict(_torch_state(golden))
    model.to(backend.device).freeze()
    count = 1000 if backend.device == "cuda" else IMAGES[backend.name]
    x = data.normalize(images[:count], float(golden["mean"]), float(golden["std"]))
    with cnn.no_grad():
        logits = model(cnn.Tensor(x).to(backend.device)).numpy()
    expected = golden["test_logits_first1000"][:count]
    assert logits.shape == expected.shape
    worst = np.abs(logits - expected).max()
    assert worst <= 1e-4, f"{backend.name}: logits differ by up to {worst:.2e} from the reference"


def test_golden_weights_classify_as_well_as_the_reference(golden: dict[str, np.ndarray], images: np.ndarray) -> None:
    """Columns of the first linear layer permuted to (H, W, C) give the default model the same answers."""
    state = _torch_state(golden)
    state["linear1.weight"] = state["linear1.weight"].reshape(120, 16, 5, 5).transpose(0, 2, 3, 1).reshape(120, 400)
    model = cnn.models.lenet5()
    model.load_state_dict(state)
    with cnn.no_grad():
        logits = model(cnn.Tensor(data.normalize(images, 0.1307, 0.3081))).numpy()
    np.testing.assert_allclose(logits, golden["test_logits_first1000"], atol=1e-4)


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="linear"):
        cnn.models.lenet5()(cnn.Tensor(np.zeros((1, 32, 32, 1), np.float32)))
