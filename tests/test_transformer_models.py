"""ViT, CoAtNet-0 and MobileViT-S: what they are made of, against PyTorch in float64, and that they learn."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.nn.init import fan_in

from .harness import LONG, random_array

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


LOGITS = {  # of one image, by the reference in float64
    "vit_tiny": [1.3259966, -0.6256076, 0.9345236, 1.1695459],
    "coatnet_0": [-0.2464604, 0.9751528, 0.1109205, -1.0275235],
    "coatnet_0_rw": [-0.0603981, -2.5315286, -0.6943809, 0.0202908],
    "mobilevit_s": [0.083121, -0.0937331, -0.2080394, -0.1184517],
}


def numbered(name: str) -> tuple[nn.Module, np.ndarray]:
    """The small network with weights, and an image, that NumPy draws the same everywhere"""
    options, size = SMALL[name]
    network = cnn.models.create(name, num_classes=4, **options).eval()
    rng = np.random.default_rng(1)
    for _, tensor in sorted(network.state_dict().items()):
        tensor.data[...] = rng.standard_normal(tensor.shape) / np.sqrt(fan_in(tensor.shape))
    scatter(network, rng)
    return network, random_array(rng, (1, size, size, 3))


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_references(name: str) -> None:
    """What needs no PyTorch; test_the_references_logits says that the numbers are its"""
    network, image = numbered(name)
    with cnn.no_grad():
        logits = network(cnn.Tensor(image)).numpy()[0]
    np.testing.assert_allclose(logits, LOGITS[name], rtol=0, atol=2e-5 * np.abs(LOGITS[name]).max())


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


@pytest.mark.parametrize("name", SMALL)
def test_the_references_logits(torch: Any, name: str) -> None:
    network, image = numbered(name)
    theirs = reference(name)(num_classes=4, **SMALL[name][0]).double().eval()
    state = {key: torch.from_numpy(tensor.numpy().copy()) for key, tensor in network.state_dict().items()}
    theirs.load_state_dict({key: t.permute(0, 3, 1, 2) if t.ndim == 4 else t for key, t in state.items()})
    with torch.no_grad():
        logits = theirs(torch.from_numpy(image.transpose(0, 3, 1, 2).astype(np.float64))).numpy()[0]
    np.testing.assert_allclose(LOGITS[name], logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_against_pytorch(torch: Any, name: str, training: bool) -> None:
    check_against_pytorch(torch, name, *SMALL[name], training, 4, 3 if training and name == "mobilevit_s" else 1)


@LONG
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks_against_pytorch(torch: Any, name: str, training: bool) -> None:
    check_against_pytorch(torch, name, *WHOLE[name], training, 4, 1)


def photographs(shared: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """64 images of CIFAR-10, made larger, and their labels"""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    path = shared / "data/cifar10_jpeg_c.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the real data beside this checkout")
    with np.load(path) as archive:
        jpeg, offset, labels = (archive[f"{name}_train"] for name in ("jpeg", "offset", "label"))
    chosen = np.random.default_rng(0).choice(len(labels), 64, replace=False)
    pixels = [np.asarray(image.open(io.BytesIO(jpeg[offset[i] : offset[i + 1]].tobytes()))) for i in chosen]
    x = (np.stack(pixels).astype(np.float32) / 255 - 0.47) / 0.25
    return F.interpolate(cnn.Tensor(x), size, mode="bilinear").numpy(), labels[chosen].astype(np.int64)


@LONG
@pytest.mark.parametrize("name", ["vit_tiny", "coatnet_0", "mobilevit_s"])
def test_64_photographs_are_learned_by_heart(name: str, shared: Path) -> None:
    """100 % of them in evaluation mode, within 60 epochs of two batches"""
    x, labels = photographs(shared, 64)
    cnn.manual_seed(0)
    options = {} if name == "mobilevit_s" else {"image_size": 64}
    network = cnn.models.create(name, num_classes=10, **options)
    optimizer = cnn.optim.AdamW(network.parameters(), lr=5e-4, weight_decay=0.0)
    order, started = np.random.default_rng(0), time.perf_counter()
    epoch = right = 0
    while right < 64 and epoch < 60:
        epoch += 1
        network.train()
        for rows in order.permutation(64).reshape(2, 32):
            optimizer.zero_grad()
            F.cross_entropy(network(cnn.Tensor(x[rows])), labels[rows]).backward()
            optimizer.step()
        with cnn.no_grad():
            right = int((network.eval()(cnn.Tensor(x)).argmax(1) == labels).sum())
    print(f"{name}: {right} of 64 after {epoch} epochs, {time.perf_counter() - started:.1f} s")
    assert right == 64


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="image_size must be a multiple of 16, received 100"):
        cnn.models.create("vit_tiny", image_size=100)
    with pytest.raises(ValueError, match="image_size must be a multiple of 32, received 16"):
        cnn.models.create("coatnet_0", image_size=16)
    for name in ("vit_tiny", "coatnet_0"):
        network = cnn.models.create(name, **SMALL[name][0] | {"image_size": 64})
        with pytest.raises(ValueError, match=r"expected images \(N, 64, 64, 3\), received \(1, 3, 64, 64\)"):
            network(cnn.Tensor(np.zeros((1, 3, 64, 64), np.float32)))


def test_a_hook_sees_what_an_activation_is_given(rng: np.random.Generator) -> None:
    """A linear layer and its activation are one pass, unless somebody wants the layer's own result"""
    network = cnn.models.create("vit_tiny", image_size=32, depth=1).eval()
    image = cnn.Tensor(random_array(rng, (1, 32, 32, 3)))
    alone, seen = network(image).numpy(), []
    network.blocks[0].mlp.fc1.register_forward_hook(lambda *call: seen.append(call[2].numpy()))
    np.testing.assert_allclose(network(image).numpy(), alone, rtol=1e-5, atol=1e-5)
    assert (seen[0] < -0.5).any()  # which no gelu gives


def test_branches_are_left_out_in_training(rng: np.random.Generator) -> None:
    cnn.manual_seed(1)
    network = cnn.models.create("vit_tiny", image_size=32, depth=4, drop_path_rate=0.9, drop_rate=0.1)
    image = cnn.Tensor(random_array(rng, (2, 32, 32, 3)))
    assert (network(image).numpy() != network(image).numpy()).any()
    network.eval()
    np.testing.assert_array_equal(network(image).numpy(), network(image).numpy())
