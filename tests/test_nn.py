"""Modules: registration, state, hooks, initial values, and that each layer is its function."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import Backend

from .compare import assert_close, assert_identical
from .harness import random_array


class Block(nn.Module):
    """A module with a parameter, a buffer, two children and a shared child."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(np.ones(4, np.float32))
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
        self.register_buffer("mean", cnn.Tensor(np.zeros(4, np.float32)))

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        return self.head(F.global_avg_pool2d(self.conv(x) * self.scale - self.mean))


# ---- registration


def test_parameters_buffers_and_modules_are_found_by_name() -> None:
    block = Block()
    names = ["scale", "conv.weight", "conv.bias", "head.1.weight", "head.1.bias"]
    assert [name for name, _ in block.named_parameters()] == names
    assert [p.shape for p in block.parameters()] == [(4,), (4, 3, 3, 3), (4,), (2, 4), (2,)]
    assert [name for name, _ in block.named_buffers()] == ["mean"]
    assert [name for name, _ in block.named_modules()] == ["", "conv", "head", "head.0", "head.1"]
    assert list(block.children()) == [block.conv, block.head]
    assert list(block.state_dict()) == [*names, "mean"]
    assert all(p.requires_grad for p in block.parameters())


def test_a_shared_module_is_found_once() -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert len(list(model.modules())) == 3


def test_assignment_replaces_and_deletion_removes() -> None:
    block = Block()
    block.conv = nn.Conv2d(3, 4, 1)
    assert block.conv.weight.shape == (4, 1, 1, 3)
    block.mean = cnn.Tensor(np.ones(4, np.float32))
    assert block.state_dict()["mean"].numpy().tolist() == [1] * 4
    block.scale = None
    assert "scale" not in block.state_dict()
    del block.head
    assert not hasattr(block, "head")
    with pytest.raises(AttributeError, match="Block has no attribute 'head'"):
        del block.head


def test_wrong_assignments_are_refused() -> None:
    block = Block()
    with pytest.raises(TypeError, match=r"Block\.scale is registered; cannot assign a ndarray to it"):
        block.scale = np.zeros(4)
    with pytest.raises(TypeError, match=r"Block\.conv is registered; cannot assign a int"):
        block.conv = 3

    class Early(nn.Module):
        def __init__(self) -> None:
            self.size = 3

    with pytest.raises(RuntimeError, match=r"Early: call super\(\).__init__\(\) before assigning size"):
        Early()
    with pytest.raises(NotImplementedError, match="Module defines no forward"):
        nn.Module()(1)
    with pytest.raises(TypeError, match="Sequential: expected modules, received function at 1"):
        nn.Sequential(nn.ReLU(), lambda x: x)


def test_sequential_is_a_sequence() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    assert len(model) == 3
    assert isinstance(model[-1], nn.Linear)
    assert [type(m).__name__ for m in model[:2]] == ["ReLU", "Flatten"]
    assert list(nn.Sequential({"a": nn.ReLU(), "b": nn.Linear(1, 1)}).state_dict()) == ["b.weight", "b.bias"]


# ---- weights


def test_state_dict_goes_from_one_model_to_another(rng: np.random.Generator) -> None:
    first, second = Block(), Block()
    first.mean = cnn.Tensor(random_array(rng, (4,)))
    second.load_state_dict(first.state_dict())
    for name, value in second.state_dict().items():
        assert_identical(value.numpy(), first.state_dict()[name].numpy(), name)
    assert not np.shares_memory(first.scale.data, second.scale.data)


def test_state_dict_shares_memory_and_needs_no_gradient() -> None:
    block = Block()
    state = block.state_dict()
    assert np.shares_memory(state["scale"].data, block.scale.data)
    assert not any(value.requires_grad for value in state.values())


def test_load_state_dict_lists_every_fault_and_changes_nothing() -> None:
    block = Block()
    before = {name: value.numpy().copy() for name, value in block.state_dict().items()}
    state: dict[str, Any] = {name: value + 1 for name, value in before.items()}
    state["conv.weight"] = np.zeros((4, 3, 3, 5), np.float32)
    del state["head.1.bias"]
    state["extra"] = np.zeros((2, 7))
    with pytest.raises(ValueError, match="load_state_dict into Block") as caught:
        block.load_state_dict(state)
    text = str(caught.value)
    assert "missing: head.1.bias (2,)" in text
    assert "unexpected: extra (2, 7)" in text
    assert "shape of conv.weight: (4, 3, 3, 3) expected, (4, 3, 3, 5) received" in text
    for name, value in block.state_dict().items():
        assert_identical(value.numpy(), before[name], name)


def test_load_state_dict_is_short_where_much_is_wrong_and_guesses_why() -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(20)))
    state = {f"backbone.{name}": value for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="load_state_dict into Sequential") as caught:
        model.load_state_dict(state)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  missing: 0.weight (3, 3, 3, 3)"
    assert lines[9] == "  ... and 32 more missing (40 in all)"
    assert lines[10] == "  unexpected: backbone.0.weight (3, 3, 3, 3)"
    assert lines[18] == "  ... and 32 more unexpected (40 in all)"
    assert lines[19:] == ["  hint: without 'backbone.' before them, unexpected names are among the missing ones"]
    whole = nn.Sequential({"backbone": model})
    with pytest.raises(ValueError, match=r"hint: with 'backbone\.' before them"):
        whole.load_state_dict(model.state_dict())


def test_load_state_dict_guesses_names_and_orders() -> None:
    model = nn.Sequential({"conv": nn.Conv2d(2, 4, 3), "norm": nn.BatchNorm2d(4)})
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    state["conv.weight"] = state["conv.weight"].transpose(0, 3, 1, 2)
    state["norm.runing_mean"] = state.pop("norm.running_mean")
    with pytest.raises(ValueError, match="load_state_dict into Sequential") as caught:
        model.load_state_dict(state)
    text = str(caught.value)
    assert "hint: norm.running_mean may be what is called norm.runing_mean here" in text
    assert "hint: convolution weights are (K, R, S, C/groups) here; cnn.load_torch turns those of PyTorch" in text


def test_load_state_dict_without_strict_passes_over_names_but_not_shapes() -> None:
    block = Block()
    block.load_state_dict({"scale": [2, 2, 2, 2], "extra": 1}, strict=False)
    assert block.scale.numpy().tolist() == [2] * 4
    with pytest.raises(ValueError, match=r"shape of scale: \(4,\) expected, \(3,\) received"):
        block.load_state_dict({"scale": np.zeros(3)}, strict=False)
    with pytest.raises(TypeError, match="scale is not an array of numbers but str"):
        block.load_state_dict({"scale": "four"}, strict=False)


def test_loading_between_forward_and_backward_is_noticed(rng: np.random.Generator) -> None:
    block = Block()
    y = block(cnn.Tensor(random_array(rng, (2, 5, 5, 3)))).sum()
    block.load_state_dict(block.state_dict())
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


def test_a_deep_copy_has_weights_of_its_own() -> None:
    block = Block()
    other = copy.deepcopy(block)
    other.conv.weight.data[...] = 0
    assert block.conv.weight.numpy().any()
    assert [name for name, _ in other.named_parameters()] == [name for name, _ in block.named_parameters()]
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in other.parameters())


# ---- state


def test_train_and_eval_reach_every_module() -> None:
    block = Block()
    assert block.eval() is block
    assert not any(m.training for m in block.modules())
    assert all(m.training for m in block.train().modules())


def test_zero_grad_forgets_or_fills(rng: np.random.Generator) -> None:
    block = Block()
    block(cnn.Tensor(random_array(rng, (2, 5, 5, 3)))).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in block.parameters())
    block.zero_grad(set_to_none=False)
    assert all(not p.grad.numpy().any() for p in block.parameters())
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())


def test_apply_visits_children_first() -> None:
    seen: list[str] = []
    Block().apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Conv2d", "ReLU", "Linear", "Sequential", "Block"]


def test_to_the_same_device_changes_nothing_and_another_is_named() -> None:
    block = Block()
    data = block.scale.data
    assert block.to("cpu") is block
    assert block.scale.data is data
    with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda', received 'tpu'"):
        block.to("tpu")


def test_repr_shows_the_tree() -> None:
    text = repr(Block())
    assert "(conv): Conv2d(3, 4, kernel_size=(3, 3), stride=1, padding=1)" in text
    assert "    (1): Linear(4, 2, bias=True)" in text
    assert repr(nn.Sequential(nn.MaxPool2d(2), nn.Flatten("CHW"), nn.Dropout(0.25))).count("\n") == 4


# ---- hooks


def test_hooks_see_inputs_and_output_and_may_replace_them() -> None:
    relu, seen = nn.ReLU(), []
    x = cnn.Tensor([-1.0, 2.0])
    before = relu.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 10,))
    watch = relu.register_forward_hook(lambda module, inputs, output: seen.append((module, inputs[0], output)))
    after = relu.register_forward_hook(lambda module, inputs, output: output * 2)
    assert relu(x).numpy().tolist() == [18, 24]
    module, given, output = seen[0]
    assert (module, given.numpy().tolist(), output.numpy().tolist()) == (relu, [9, 12], [9, 12])
    before.remove()
    assert relu(x).numpy().tolist() == [0, 4]
    after.remove()
    after.remove()
    assert relu(x).numpy().tolist() == [0, 2]
    watch.remove()
    relu(x)
    assert len(seen) == 3


def test_a_hook_lives_as_long_as_its_with_block_and_may_remove_itself() -> None:
    relu, calls = nn.ReLU(), []
    with relu.register_forward_hook(lambda *_: calls.append("with")):
        relu(cnn.Tensor([1.0]))
    once = relu.register_forward_pre_hook(lambda *_: (calls.append("once"), once.remove())[0])
    relu(cnn.Tensor([1.0]))
    relu(cnn.Tensor([1.0]))
    assert calls == ["with", "once"]


# ---- initial values


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda: nn.Conv2d(16, 64, 3), 16 * 9),
        (lambda: nn.Conv2d(16, 64, (5, 3), groups=4), 4 * 15),
        (lambda: nn.Linear(100, 80), 100),
    ],
    ids=["conv2d", "grouped", "linear"],
)
def test_initial_values_are_pytorchs_distribution(make: Callable[[], Any], fan_in: int) -> None:
    """Uniform in +-1/sqrt(fan_in): its standard deviation is the bound / sqrt(3)."""
    cnn.manual_seed(1)
    layer, bound = make(), 1 / math.sqrt(fan_in)
    weight = layer.weight.numpy().ravel()
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert abs(weight.mean()) < 4 * bound / math.sqrt(3 * weight.size)
    assert 0.8 * bound < np.abs(layer.bias.numpy()).max() <= bound
    assert weight.dtype == np.float32


def test_initial_bounds_equal_torchs() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    theirs = torch.nn.Conv2d(7, 300, 3, groups=1)
    ours = nn.Conv2d(7, 300, 3)
    for name in ("weight", "bias"):
        a, b = getattr(theirs, name).detach().numpy(), getattr(ours, name).numpy()
        assert np.abs(a).max() == pytest.approx(np.abs(b).max(), rel=0.02)


def test_the_same_seed_gives_the_same_weights() -> None:
    states = []
    for seed in (3, 3, 4):
        cnn.manual_seed(seed)
        states.append(Block().state_dict()["conv.weight"].numpy())
    assert_identical(states[0], states[1])
    assert (states[0] != states[2]).any()


def test_kaiming_uniform_is_its_formula() -> None:
    weight = nn.init.kaiming_uniform((50, 30), a=0.0).numpy()
    assert 0.99 * math.sqrt(6 / 30) < np.abs(weight).max() <= math.sqrt(6 / 30)


# ---- layers


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, cnn.Tensor], cnn.Tensor]]] = {
    "conv2d": (
        lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=(1, 2), groups=2),
        lambda m, x: F.conv2d(x, m.weight, m.bias, stride=2, padding=1, dilation=(1, 2), groups=2),
    ),
    "conv2d without bias": (lambda: nn.Conv2d(4, 3, 1, bias=False), lambda m, x: F.conv2d(x, m.weight)),
    "max_pool2d": (
        lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        lambda m, x: F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
    ),
    "avg_pool2d": (
        lambda: nn.AvgPool2d((2, 3), padding=1, count_include_pad=False, divisor_override=5),
        lambda m, x: F.avg_pool2d(x, (2, 3), padding=1, count_include_pad=False, divisor_override=5),
    ),
    "adaptive": (lambda: nn.AdaptiveAvgPool2d((2, 3)), lambda m, x: F.adaptive_avg_pool2d(x, (2, 3))),
    "adaptive max": (lambda: nn.AdaptiveMaxPool2d((2, 3)), lambda m, x: F.adaptive_max_pool2d(x, (2, 3))),
    "global max": (lambda: nn.GlobalMaxPool2d(), lambda m, x: F.global_max_pool2d(x)),
    "global": (lambda: nn.GlobalAvgPool2d(), lambda m, x: F.global_avg_pool2d(x)),
    "relu": (lambda: nn.ReLU(), lambda m, x: F.relu(x)),
    "linear": (lambda: nn.Linear(4, 3), lambda m, x: F.linear(x, m.weight, m.bias)),
    "flatten": (lambda: nn.Flatten(), lambda m, x: x.reshape(2, -1)),
    "flatten CHW": (lambda: nn.Flatten("CHW"), lambda m, x: x.permute(0, 3, 1, 2).reshape(2, -1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_function(backend: Backend, name: str, rng: np.random.Generator) -> None:
    make, function = LAYERS[name]
    layer = make().to(backend.device)
    x = cnn.Tensor(backend.to_device(random_array(rng, (2, 5, 6, 4))))
    assert_identical(layer(x).numpy(), function(layer, x).numpy(), name)


def test_flatten_chw_equals_pytorchs_order(rng: np.random.Generator) -> None:
    x = random_array(rng, (2, 3, 4, 5))
    expected = x.transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_array_equal(nn.Flatten("CHW")(cnn.Tensor(x)).numpy(), expected)
    np.testing.assert_array_equal(nn.Flatten()(cnn.Tensor(x)).numpy(), x.reshape(2, -1))


def test_dropout_drops_while_training_only() -> None:
    layer, x = nn.Dropout(0.25), cnn.Tensor(np.ones((100, 100), np.float32))
    y = layer(x).numpy()
    assert 0.23 < (y == 0).mean() < 0.27
    assert set(np.unique(y)) == {np.float32(0), np.float32(4 / 3)}
    assert layer.eval()(x) is x


def test_cross_entropy_loss_is_its_function(rng: np.random.Generator) -> None:
    logits, labels = cnn.Tensor(random_array(rng, (5, 3))), np.array([0, 2, 1, 1, 0])
    for reduction in ("mean", "sum", "none"):
        expected = F.cross_entropy(logits, labels, reduction=reduction).numpy()
        assert_identical(nn.CrossEntropyLoss(reduction)(logits, labels).numpy(), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "multiples of groups, all at least 1, received 3, 4 and 2"),
        (lambda: nn.Conv2d(0, 4, 3), "received 0, 4 and 1"),
        (lambda: nn.Conv2d(3, 4, 0), "kernel_size must be one or two numbers of at least 1, received 0"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "kernel_size must be one or two numbers"),
        (lambda: nn.Linear(0, 3), "must be at least 1, received 0 and 3"),
        (lambda: nn.Dropout(1.0), r"p must lie in \[0, 1\), received 1.0"),
        (lambda: nn.Dropout(float("nan")), "p must lie in"),
        (lambda: nn.Flatten("WHC"), "order must be one of HWC, CHW, received 'WHC'"),
        (lambda: nn.CrossEntropyLoss("median"), "reduction must be mean, sum or none, received 'median'"),
    ],
)
def test_layers_refuse_what_cannot_be(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---- freezing


def test_a_frozen_model_gives_the_same_answers_from_packed_weights(backend: Backend, rng: np.random.Generator) -> None:
    block = Block().to(backend.device)
    inputs = [backend.to_device(random_array(rng, shape)) for shape in ((2, 5, 5, 3), (3, 5, 5, 3), (1, 4, 6, 3))]
    before = [block.eval()(cnn.Tensor(x)).numpy() for x in inputs]
    assert block.freeze() is block
    for x, expected in zip(inputs, before, strict=True):
        assert_close(block(cnn.Tensor(x)).numpy(), expected, reduction=27)
    assert len(block.conv._packed) == 2  # by (H, W), whatever N is


def test_a_frozen_model_cannot_change_until_it_is_unfrozen() -> None:
    block = Block()
    block.scale.requires_grad = False
    block.freeze()
    assert not any(p.requires_grad for p in block.parameters())
    with pytest.raises(ValueError, match="read-only"):
        block.conv.weight.data[0] = 0
    with pytest.raises(ValueError, match=r"conv.weight is frozen: call unfreeze\(\) first"):
        block.load_state_dict(block.state_dict())
    block.freeze().unfreeze()
    assert [name for name, p in block.named_parameters() if not p.requires_grad] == ["scale"]
    block.load_state_dict(block.state_dict())
    assert block.conv._packed is None


def test_a_frozen_convolution_still_says_what_is_wrong() -> None:
    conv = nn.Conv2d(3, 4, 3).freeze()
    with pytest.raises(ValueError, match="conv2d"):
        conv(cnn.Tensor(np.zeros((5, 5, 3), np.float32)))
    with pytest.raises(TypeError, match="float64"):
        conv(cnn.Tensor(np.zeros((1, 5, 5, 3), np.float64)))
