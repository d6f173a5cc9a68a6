"""The networks: sizes and work as published, values and gradients as the same networks in PyTorch."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.nn import init

from .harness import LONG
from .torch_networks import batch, check_against_torch, fill, run_ours

# parameters and multiply-adds for one image of the size it is made for. AlexNet, VGG and ResNet: torchvision's table of
# classification weights, whose GFLOPS are multiply-adds (0.71; 7.61, 11.31, 15.47, 19.63; 1.81, 3.66, 4.09, 7.80,
# 11.51). AlexNet of 2012: the layer sizes of the paper's section 3.5, 60 million parameters in its abstract. LeNet-1:
# "9760 independent parameters" and 64,660 connections, 1000 of them biases. CIFAR: 0.27 M and 0.85 M in table 6.
PUBLISHED = {
    "lenet1": (9_760, 63_660),
    "lenet5": (61_706, 416_520),
    "alexnet": (61_100_840, 714_188_480),
    "alexnet_2012": (60_965_224, 724_406_816),
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg11_bn": (132_868_840, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg13_bn": (133_053_736, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg19_bn": (143_678_248, 19_632_062_464),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnet20": (269_722, 40_551_040),
    "resnet56": (853_018, 125_485_696),
}


class Zeros:
    """In place of a random generator"""

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def standard_normal(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_the_published_size_and_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "generator", Zeros)  # nobody looks at the values
    model = cnn.models.create(name)
    table = cnn.models.summary(model, (1, *cnn.models.registry.entry(name).image))
    assert (table.parameters, table.macs) == PUBLISHED[name]
    assert sum(row.parameters for row in table.rows) == table.parameters


# ---- beside PyTorch: name -> (height and width, images, options, the reference)

Reference = Callable[[], Any]


def _alexnet() -> Any:
    from .torch_models.alexnet import AlexNet

    return AlexNet(10)


def _alexnet_2012() -> Any:
    from .torch_models.alexnet import AlexNet2012

    return AlexNet2012(10)


def _lenet1() -> Any:
    from .torch_models.lenet1 import LeNet1

    return LeNet1()


def _vgg(name: str) -> Reference:
    def make() -> Any:
        from .torch_models.vgg import VGG

        return VGG(name, 10)

    return make


def _resnet(name: str) -> Reference:
    def make() -> Any:
        from .torch_models.resnet import ResNet

        return ResNet(name, 10)

    return make


def _cifar(blocks: int) -> Reference:
    def make() -> Any:
        from .torch_models.resnet import CifarResNet

        return CifarResNet(blocks)

    return make


NO_DROPOUT = {"dropout": 0.0}
NETWORKS: dict[str, tuple[int, int, dict[str, Any], Reference]] = {
    "lenet1": (16, 4, {}, _lenet1),
    "alexnet": (63, 2, NO_DROPOUT, _alexnet),
    "alexnet_2012": (227, 2, NO_DROPOUT, _alexnet_2012),
    **{
        name: (32, 4 if name.endswith("_bn") else 2, NO_DROPOUT, _vgg(name))
        for name in PUBLISHED
        if name.startswith("vgg")
    },
    "resnet18": (64, 2, {}, _resnet("resnet18")),
    "resnet34": (64, 2, {}, _resnet("resnet34")),
    "resnet50": (64, 2, {}, _resnet("resnet50")),
    "resnet101": (64, 4, {}, _resnet("resnet101")),
    "resnet152": (64, 4, {}, _resnet("resnet152")),
    "resnet20": (32, 2, {}, _cifar(3)),
    "resnet56": (32, 4, {}, _cifar(9)),
}
QUICK = ("lenet1", "resnet18", "resnet20")


def _built(name: str) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    size, count, options, _ = NETWORKS[name]
    model = fill(cnn.models.create(name, num_classes=10, **options))
    channels = cnn.models.registry.entry(name).image[2]
    return model, *batch((count, size, size, channels), 10)


# The sum of a native convolution's up to 4608 terms rounds twice as much as PyTorch's in NCHW, which is what runs here,
# and half as much as PyTorch's in channels_last; where a batch norm takes away the mean of inputs that are nearly
# constant, which these have, that is what is left.
ROUNDED = pytest.mark.xfail(
    reason="gradients: 2.0 to 2.4 times PyTorch's error, by the rounding of long sums", strict=True
)
ABOVE = ("vgg11_bn", "vgg16_bn", "vgg19_bn")


def _marked(name: str) -> Any:
    marks = [LONG] * (name not in QUICK) + [ROUNDED] * (name in ABOVE)
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [_marked(name) for name in NETWORKS])
def test_errors_are_at_most_twice_pytorchs(name: str) -> None:
    """Without Winograd, whose rounding is larger, within the bound of docs/kernels/conv2d.md. The weights go over by
    name: the names are torchvision's."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    model, x, labels = _built(name)
    with cnn.allow_winograd(False), cnn.use_backend("native"):
        errors = check_against_torch(model, NETWORKS[name][3](), x, labels)
    print(name, ", ".join(f"{part} {ours:.1e} (PyTorch {theirs:.1e})" for part, (ours, theirs) in errors.items()))


# ---- without PyTorch: what its float64 said once. name -> loss in training, the first three logits of the first image
# in evaluation, the norm of all gradients

RECORDED: dict[str, tuple[float, tuple[float, float, float], float]] = {
    "lenet1": (3.19087006, (0.238313433, 0.944417865, 2.23874507), 13.6115397),
    "resnet18": (8.85537098, (-3.80679892, -2.32032714, 1.61064594), 52.5532791),
    "resnet20": (11.414468, (-11.700722, -2.20407732, -7.64035822), 25.6555526),
}


@pytest.mark.parametrize("name", RECORDED)
def test_it_gives_what_pytorch_gave(name: str) -> None:
    model, x, labels = _built(name)
    run = run_ours(model, x, labels)
    loss, logits, norm = RECORDED[name]
    shifted = run.logits - run.logits.max(1, keepdims=True)
    chosen = shifted[np.arange(len(labels)), labels]
    assert float(np.mean(np.log(np.exp(shifted).sum(1)) - chosen)) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(run.evaluated[0, :3], logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())
    found = np.sqrt(sum(np.square(gradient, dtype=np.float64).sum() for gradient in run.gradients.values()))
    assert float(found) == pytest.approx(norm, rel=1e-5)


# ---- options, initial values


def test_options() -> None:
    assert cnn.models.resnet18(num_classes=7).fc.weight.shape == (7, 512)
    model = cnn.models.resnet18(num_classes=2, zero_init_residual=True)
    assert not model.layer1[0].bn2.weight.numpy().any()
    assert model.layer1[0].bn1.weight.numpy().all()
    with pytest.raises(ValueError, match="there is no model 'resnet19'; there are alexnet"):
        cnn.models.create("resnet19")


def test_initial_values_are_the_papers() -> None:
    cnn.manual_seed(0)
    weight = cnn.models.resnet20().layer3[1].conv1.weight.numpy()  # (64, 3, 3, 64)
    assert weight.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    assert abs(weight.mean()) < 0.002
    assert init.kaiming_normal((50, 3, 3, 20)).numpy().std() == pytest.approx(np.sqrt(2 / 180), rel=0.03)
    assert init.kaiming_normal((50, 3, 3, 20), "fan_out").numpy().std() == pytest.approx(np.sqrt(2 / 450), rel=0.03)
    with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out', received 'fan'"):
        init.kaiming_normal((2, 2), "fan")


@LONG
def test_alexnet_overfits_64_photographs(shared: Path) -> None:
    """Real images of CIFAR-10, four times as large, learned by heart to 100 %."""
    images, labels = _photographs(shared, 64)
    cnn.manual_seed(0)
    model = cnn.models.alexnet(num_classes=10)
    optimizer = cnn.optim.Adam(model.parameters(), lr=3e-4)
    for step in range(200):
        optimizer.zero_grad()
        loss = F.cross_entropy(model.train()(cnn.Tensor(images)), labels)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            with cnn.no_grad():
                right = int((model.eval()(cnn.Tensor(images)).argmax(1) == labels).sum())
            if right == 64:
                print(f"AlexNet knows 64 photographs by heart after {step + 1} steps")
                return
    pytest.fail(f"after 200 steps the loss is {loss.item():.3f}")


def _photographs(shared: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's images, each pixel four by four times: (count, 128, 128, 3) normalised to about [-2, 2], and labels"""
    path = shared / "data" / "cifar10_jpeg_c.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the folder of real data")
    with np.load(path) as file:
        jpeg, offset, label = file["jpeg_train"], file["offset_train"], file["label_train"]
    chosen = np.linspace(0, len(label) - 1, count).astype(int)  # they are sorted by class
    images = [np.asarray(Image.open(io.BytesIO(jpeg[offset[i] : offset[i + 1]]))) for i in chosen]
    large = np.stack(images).repeat(4, 1).repeat(4, 2)
    return ((large / 255 - 0.47) / 0.25).astype(np.float32), label[chosen].astype(np.int64)
