"""ViT, CoAtNet-0 and MobileViT-S: what they are made of, against PyTorch in float64, and that they learn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.nn.init import fan_in

from .harness import random_array

LONG = pytest.mark.skipif(os.environ.get("CNNENGINE_LONG") != "1", reason="minutes: set CNNENGINE_LONG=1")
PARAMETERS = {
    "vit_tiny": 5_717_416,
    "vit_small": 22_050_664,
    "vit_base": 86_567_656,
    "coatnet_0": 25_036_820,
    "coatnet_0_rw": 27_435_562,
    "mobilevit_s": 5_578_632,
}


def parameters(name: str, **options: Any) -> int:
    return sum(p.size for p in cnn.models.create(name, **options).parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    if not name.startswith("vit"):
        assert parameters(name) == PARAMETERS[name]
        return
    one, two = parameters(name, depth=1), parameters(name, depth=2)  # the others of the 12 blocks are alike
    assert one + 11 * (two - one) == PARAMETERS[name]


class Counter:
    """Multiply-adds of convolutions and linear layers, and of attention's two products, in one call of a network"""

    def __init__(self, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layers = self.attention = 0
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(self.count)
        attend = F.multi_head_attention

        def counted(qkv: cnn.Tensor, heads: int, *arguments: Any, **options: Any) -> cnn.Tensor:
            N, L, features = qkv.shape
            self.attention += 2 * N * L * L * (features // 3)
            return attend(qkv, heads, *arguments, **options)

        monkeypatch.setattr(F, "multi_head_attention", counted)

    def count(self, module: nn.Module, _: Any, output: cnn.Tensor) -> None:
        self.layers += output.size * fan_in(module.weight.shape)


@pytest.mark.parametrize(
    ("name", "size", "layers", "attention"),
    [
        ("vit_tiny", 224, 1_074_851_328, 178_831_872),  # published: 1.1 G without attention's products, 1.26 G with
        pytest.param("vit_small", 224, 4_241_218_560, 357_663_744, marks=LONG),  # 4.3 G, 4.61 G
        pytest.param("vit_base", 224, 16_848_500_736, 715_327_488, marks=LONG),  # 16.9 G, 17.58 G
        pytest.param("coatnet_0", 224, 4_391_614_464, 154_893_312, marks=LONG),  # the paper: 4.2 G
        pytest.param("coatnet_0_rw", 224, 4_208_996_352, 197_304_576, marks=LONG),  # with: 4.4 G
        pytest.param("mobilevit_s", 256, 1_823_196_160, 177_635_328, marks=LONG),  # with: 2.0 G
    ],
)
def test_multiply_adds(name: str, size: int, layers: int, attention: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = cnn.models.create(name).eval()
    counter = Counter(network, monkeypatch)
    with cnn.no_grad():
        network(cnn.Tensor(np.zeros((1, size, size, 3), np.float32)))
    assert (counter.layers, counter.attention) == (layers, attention)


SMALL: dict[str, tuple[dict[str, Any], int]] = {  # options, image size
    "vit_tiny": ({"image_size": 48, "depth": 2}, 48),
    "coatnet_0": ({"image_size": 64, "depths": (1, 1, 2, 1)}, 64),
    "coatnet_0_rw": ({"image_size": 64, "depths": (1, 1, 2, 1)}, 64),
    "mobilevit_s": ({}, 80),  # 10 x 10, 5 x 5 and 3 x 3 pixels in the transformers: resized in two of them
}
WHOLE: dict[str, tuple[dict[str, Any], int]] = {
    **{name: ({}, 224) for name in ("vit_tiny", "vit_small", "vit_base", "coatnet_0", "coatnet_0_rw")},
    "mobilevit_s": ({}, 256),
}


def reference(name: str) -> Callable[..., Any]:
    """The network in plain PyTorch"""
    from .torch_models import coatnet, mobilevit, vit

    if name.startswith("vit"):
        dim, heads = {"vit_tiny": (192, 3), "vit_small": (384, 6), "vit_base": (768, 12)}[name]
        return lambda **options: vit.VisionTransformer(dim, heads, **options)
    return mobilevit.MobileViT if name == "mobilevit_s" else lambda **o: coatnet.CoAtNet(name.endswith("rw"), **o)


def scatter(network: nn.Module, rng: np.random.Generator) -> None:
    """Parameters that start as 0 or 1 and running statistics get values that show whether they are used."""
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if name.endswith("num_batches_tracked"):
            continue
        if tensor.ndim == 1 or "token" in name or "embed" in name or "table" in name:
            spread = 0.1 * rng.standard_normal(tensor.shape).astype(np.float32)
            ones = name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1)
            tensor.data[...] = np.abs(1 + spread) if ones else spread


@pytest.fixture
def torch() -> Iterator[Any]:
    """PyTorch on one thread, which small networks are quicker on"""
    module = pytest.importorskip("torch", reason="PyTorch is not installed")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


def channels_last(array: Any) -> Any:
    """PyTorch's weights and gradients as ours"""
    return array.permute(0, 2, 3, 1) if array.ndim == 4 else array


Run = tuple[np.ndarray, dict[str, np.ndarray]]  # logits, and the gradients of all parameters


def run_pytorch(torch: Any, make: Any, state: Any, images: np.ndarray, labels: np.ndarray, training: bool) -> list[Run]:
    """In float64 and in float32"""
    runs = []
    for dtype in (torch.float64, torch.float32):
        network = make()
        network.load_state_dict(state)
        network.to(dtype).train(training)
        logits = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(dtype))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
        gradients = {key: channels_last(p.grad.double()).numpy() for key, p in network.named_parameters()}
        runs.append((logits.detach().double().numpy(), gradients))
    return runs


def check_against_pytorch(torch: Any, name: str, options: dict[str, Any], size: int, training: bool, batch: int,
                          draws: int) -> None:  # fmt: skip
    """The float32 errors of logits and of all gradients against float64, ours at most twice PyTorch's: root mean
    squares over some draws of weights and images, since batch norm of few pixels makes single ones vary."""
    ours_and_theirs = np.zeros((draws, 2, 2))  # ours and theirs, logits and gradients
    for seed in range(draws):
        cnn.manual_seed(seed)
        rng = np.random.default_rng(seed)
        network = cnn.models.create(name, num_classes=10, **options).train(training)
        scatter(network, rng)
        state = {key: torch.from_numpy(t.numpy().copy()) for key, t in network.state_dict().items()}
        state = {key: t.permute(0, 3, 1, 2).contiguous() if t.ndim == 4 else t for key, t in state.items()}
        images, labels = random_array(rng, (batch, size, size, 3)), rng.integers(0, 10, batch)
        make = partial(reference(name), num_classes=10, **options)
        truth, theirs = run_pytorch(torch, make, state, images, labels, training)
        logits = network(cnn.Tensor(images))
        F.cross_entropy(logits, labels).backward()
        ours = (logits.numpy(), {key: p.grad.numpy() for key, p in network.named_parameters()})
        assert ours[1].keys() == truth[1].keys()
        apart = [{key: np.linalg.norm(run[1][key] - g) for key, g in truth[1].items()} for run in (ours, theirs)]
        for key, gradient in truth[1].items():  # some are 0 but for rounding: a bias that batch norm takes away again
            allowed = 10 * apart[1][key] + 1e-5 * np.linalg.norm(gradient)
            assert apart[0][key] <= allowed, f"{key}: {apart[0][key]:.3g} of {allowed:.3g}"
        for i, run in enumerate((ours, theirs)):
            ours_and_theirs[seed, i] = np.linalg.norm(run[0] - truth[0]), np.linalg.norm(list(apart[i].values()))
    (logits, gradients), (their_logits, their_gradients) = np.sqrt(np.square(ours_and_theirs).mean(0))
    print(f"{name}, training {training}: {logits / their_logits:.2f}, {gradients / their_gradients:.2f}")
    assert logits <= 2 * their_logits, f"logits: {logits:.3g}, PyTorch {their_logits:.3g}"
    assert gradients <= 2 * their_gradients, f"gradients: {gradients:.3g}, PyTorch {their_gradients:.3g}"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_against_pytorch(torch: Any, name: str, training: bool) -> None:
    check_against_pytorch(torch, name, *SMALL[name], training, 4, 3 if training and name == "mobilevit_s" else 1)


@LONG
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks_against_pytorch(torch: Any, name: str, training: bool) -> None:
    check_against_pytorch(torch, name, *WHOLE[name], training, 4, 1)
