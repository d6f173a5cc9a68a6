"""fuse(): the folded network gives what the network gave, in fewer passes, and what cannot be folded stays right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import ACTIVATIONS, Backend
from cnnengine.nn import conv_norm
from cnnengine.nn.conv_norm import activation_kind

from .torch_networks import fill, values


class Block(nn.Module):
    """Two convolutions with norms beside a shortcut, the second with a bias and groups."""

    def __init__(self, activation: str = "relu") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(4, affine=False)
        self.activation = activation

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        y = conv_norm(self.conv1, self.bn1, x, self.activation)
        return conv_norm(self.conv2, self.bn2, y, self.activation, x)

    def conv_norm_pairs(self) -> tuple[tuple[str, str], ...]:
        return ("conv1", "bn1"), ("conv2", "bn2")


def step_by_step(block: Block, x: cnn.Tensor) -> cnn.Tensor:
    activate = getattr(F, block.activation)
    y = activate(block.bn1(block.conv1(x)))
    return activate(F.add(block.bn2(block.conv2(y)), x))


def images(dtype: str, channels: int = 4) -> cnn.Tensor:
    return cnn.Tensor(values("x", (2, 6, 7, channels)).astype(dtype))


def as_dtype(model: nn.Module, dtype: str) -> nn.Module:
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.ndim:  # all but the count of batches
            tensor.data = tensor.data.astype(dtype)
    return model


def close(found: cnn.Tensor, expected: cnn.Tensor, dtype: str) -> None:
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-13 if dtype == "float64" else 2e-6)


ACTIVATION_MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "elu": nn.ELU,
    "identity": nn.Identity,
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_a_sequence_is_folded(kind: str) -> None:
    activation = ACTIVATION_MODULES[kind]()
    assert activation_kind(activation) == kind
    for backend, dtype in (("numpy", "float64"), ("native", "float32")):
        with cnn.use_backend(backend), cnn.no_grad():
            conv = nn.Conv2d(4, 5, 3, bias=False)
            model = fill(nn.Sequential(conv, nn.BatchNorm2d(5), activation, nn.Conv2d(5, 3, 1), nn.BatchNorm2d(3)))
            as_dtype(model.eval(), dtype)
            expected = images(dtype)
            for module in model:
                expected = module(expected)
            close(model(images(dtype)), expected, dtype)
            assert model.fuse() is model
            assert [type(module) for module in model][::2] == [nn.Conv2d, type(activation), nn.Identity]
            assert isinstance(model[1], nn.Identity)
            close(model(images(dtype)), expected, dtype)


def test_an_activation_with_a_slope_of_its_own_is_called_by_itself() -> None:
    assert activation_kind(nn.LeakyReLU(0.2)) is None
    assert activation_kind(nn.ELU(0.5)) is None
    assert activation_kind(nn.Linear(1, 1)) is None
    model = fill(nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.LeakyReLU(0.2))).eval()
    with cnn.no_grad():
        expected = F.leaky_relu(model[1](model[0](images("float32"))), 0.2)
        close(model.fuse()(images("float32")), expected, "float32")


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_a_block_is_folded(backend: Backend, activation: str) -> None:
    block = fill(Block(activation)).to(backend.device)
    x = images("float32").to(backend.device)
    with cnn.no_grad():
        expected = step_by_step(block.eval(), x)
        close(block(x), expected, "float32")
        close(block.fuse()(x), expected, "float32")
    assert isinstance(block.bn1, nn.Identity)
    assert isinstance(block.bn2, nn.Identity)


def test_a_block_is_folded_exactly_in_float64() -> None:
    block = as_dtype(fill(Block()), "float64").eval()
    with cnn.use_backend("numpy"), cnn.no_grad():
        expected = step_by_step(block, images("float64"))
        close(block.fuse()(images("float64")), expected, "float64")


def test_conv_norm_in_training_is_its_modules_one_by_one() -> None:
    found = []
    for run in (Block.__call__, step_by_step):
        block, x = fill(Block()).train(), images("float32")
        x.requires_grad = True
        run(block, x).sum().backward()
        assert x.grad is not None
        found.append([x.grad.numpy(), block.bn2.running_var.numpy(), *(p.grad.numpy() for p in block.parameters())])
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_allclose(mine, expected, atol=2e-5 * np.abs(expected).max() + 1e-5)


def test_one_pass_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the backend: two convolutions with their epilogues, packed weights, and nothing else."""
    block = fill(Block()).eval().fuse()
    with cnn.use_backend("native") as native, cnn.no_grad():
        block(images("float32"))  # packs
        calls = []
        for verb in ("conv2d_forward", "apply_epilogue", "activation_forward", "binary"):
            original = getattr(type(native), verb)

            def spy(self, *arguments, verb=verb, original=original):
                calls.append((verb, arguments))
                return original(self, *arguments)

            monkeypatch.setattr(type(native), verb, spy)
        block(images("float32"))
    assert [verb for verb, _ in calls] == ["conv2d_forward"] * 2
    for (_, arguments), residual in zip(calls, (False, True), strict=True):
        weight, epilogue = arguments[2], arguments[4]
        assert isinstance(weight, cnn.backends.contract.PackedWeight)
        assert epilogue.activation == "relu"
        assert epilogue.bias is not None
        assert (epilogue.residual is not None) == residual


def test_training_mode_is_refused() -> None:
    block = fill(Block())
    with pytest.raises(RuntimeError, match=r"fuse: Block is in training mode.*call eval\(\) first \(5 modules"):
        block.fuse()
    block.eval().bn2.train()
    with pytest.raises(RuntimeError, match="1 modules, the first bn2"):
        block.fuse()
    assert isinstance(block.bn1, nn.BatchNorm2d)


def test_fused_twice_frozen_before_and_thawed() -> None:
    block = fill(Block()).freeze()
    with cnn.no_grad():
        expected = block(images("float32"))
        once = block.fuse()(images("float32"))
        close(once, expected, "float32")
        assert (block.fuse()(images("float32")).numpy() == once.numpy()).all()
    assert set(block.state_dict()) == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
    assert not any(p.requires_grad or p.data.flags.writeable for p in block.parameters())
    block.unfreeze()
    assert all(p.requires_grad and p.data.flags.writeable for p in block.parameters())


def test_what_cannot_be_folded_is_left() -> None:
    shared = nn.Conv2d(4, 4, 1)
    batchwise = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(shared, nn.BatchNorm2d(4), shared, nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), batchwise)
    fill(model).eval()
    watched = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    seen: list[tuple[int, ...]] = []
    watched[0].register_forward_hook(lambda module, inputs, y: seen.append(y.shape))
    fill(watched).eval()
    for network in (model, watched):
        kinds = [type(module) for module in network]
        with cnn.no_grad():
            expected = network(images("float32"))
            close(network.fuse()(images("float32")), expected, "float32")
        assert [type(module) for module in network] == kinds
    assert len(seen) == 2


def test_networks_are_folded_whole() -> None:
    model = fill(cnn.models.resnet20()).eval()
    x = cnn.Tensor(values("x", (2, 32, 32, 3)).astype(np.float32))
    with cnn.no_grad():
        expected = model(x).numpy()
        found = model.fuse()(x).numpy()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    np.testing.assert_allclose(found, expected, atol=5e-6 * np.abs(expected).max())
