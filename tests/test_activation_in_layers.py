"""An activation asked of a convolution or a linear layer, or found behind one in a Sequential: the same bits as the two
operations one after the other, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import ACTIVATION_SAVES, ACTIVATIONS, Backend
from cnnengine.functional.activation import DEFAULT_PARAMETERS, activate

from .compare import assert_close, assert_identical
from .harness import random_array

EXACT = ("identity", "relu", "relu6")  # round nothing


def conv2d(x: cnn.Tensor, w: cnn.Tensor, b: cnn.Tensor, **more: Any) -> cnn.Tensor:
    return F.conv2d(x, w, b, padding=1, **more)


LAYERS: dict[str, tuple[Callable[..., cnn.Tensor], tuple[tuple[int, ...], ...]]] = {
    "conv2d": (conv2d, ((2, 5, 4, 3), (6, 3, 3, 3), (6,))),
    "linear": (F.linear, ((3, 2, 7), (5, 7), (5,))),
    "max_pool2d": (lambda x, **more: F.max_pool2d(x, 3, 2, 1, **more), ((2, 7, 6, 3),)),
}


def results(y: cnn.Tensor, leaves: list[cnn.Tensor], dy: np.ndarray) -> list[np.ndarray]:
    if y.requires_grad:
        y.backward(dy)
    return [y.numpy(), *(leaf.grad.numpy() for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("layer", LAYERS)
def test_layer_with_an_activation(
    backend: Backend, layer: str, kind: str, recorded: bool, rng: np.random.Generator
) -> None:
    call, shapes = LAYERS[layer]
    arrays = [random_array(rng, shape) for shape in shapes]
    parameter = DEFAULT_PARAMETERS.get(kind, 0.0)

    def run(together: bool) -> list[np.ndarray]:
        leaves = [cnn.Tensor(a.copy(), requires_grad=recorded) for a in arrays]
        y = call(*leaves, activation=kind) if together else call(*leaves)
        y = y if together or kind == "identity" else activate(kind, y, parameter)
        return results(y, leaves, np.ones(y.shape, np.float32))

    both = list(zip(run(True), run(False), strict=True))
    assert len(both) == (1 + len(arrays) if recorded else 1)
    for mine, expected in both:
        if kind in EXACT:
            assert_identical(mine, expected)
        else:
            assert_close(mine, expected, reduction=30)


def test_the_parameter_is_passed_on() -> None:
    x = cnn.Tensor(np.full((1, 1, 1, 1), -2.0, np.float32), requires_grad=True)
    w, b = cnn.Tensor(np.ones((1, 1, 1, 1), np.float32)), cnn.Tensor([0.0])
    y = F.conv2d(x, w, b, activation="leaky_relu", activation_parameter=0.25)
    y.backward(1.0)
    assert y.item() == -0.5
    assert x.grad is not None
    assert x.grad.item() == 0.25
    assert F.linear(cnn.Tensor([[-4.0]]), cnn.Tensor([[1.0]]), activation="leaky_relu").item() == np.float32(-0.04)


@pytest.mark.parametrize("operation", LAYERS)
def test_wrong_activations_raise(operation: str) -> None:
    call, shapes = LAYERS[operation]
    operands = [cnn.Tensor(np.ones(shape, np.float32)) for shape in shapes]
    with pytest.raises(ValueError, match=f"{operation}: activation must be one of identity, relu"):
        call(*operands, activation="swish")
    with pytest.raises(ValueError, match="leaky_relu: negative_slope must be a finite number"):
        call(*operands, activation="leaky_relu", activation_parameter=float("inf"))


def test_a_result_that_was_changed_in_place_raises() -> None:
    _, shapes = LAYERS["linear"]
    x, w, b = (cnn.Tensor(np.ones(shape, np.float32), requires_grad=True) for shape in shapes)
    y = F.linear(x, w, b, activation="relu")
    y.data[...] = 0
    y.bump_version()
    with pytest.raises(RuntimeError, match=r"LinearActivation: its result, shape \(3, 2, 5\), was changed in place"):
        y.backward(np.ones(y.shape, np.float32))


# ---- Sequential


def network() -> nn.Sequential:
    cnn.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(16, 7), nn.ReLU6(), nn.Linear(7, 3)
    )


def one_by_one(model: nn.Sequential, x: Any) -> Any:
    for module in model:
        x = module(x)
    return x


@pytest.mark.parametrize("frozen", [False, True], ids=["training", "frozen"])
def test_sequential_gives_the_bits_of_its_modules(backend: Backend, frozen: bool, rng: np.random.Generator) -> None:
    x = random_array(rng, (2, 6, 6, 2))
    found = []
    for run in (lambda model, x: model(x), one_by_one):
        model = network().freeze() if frozen else network()
        leaves = [cnn.Tensor(x.copy(), requires_grad=not frozen), *model.parameters()]
        found.append(results(run(model, leaves[0]), leaves, np.ones((2, 3), np.float32)))
    assert len(found[0]) == (1 if frozen else 10)
    for mine, expected in zip(*found, strict=True):
        assert_identical(mine, expected)


def pooled_network() -> nn.Sequential:
    cnn.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU6(), nn.MaxPool2d(3, 1, 1), nn.ReLU(), nn.Flatten()
    )


def recorded_calls(monkeypatch: pytest.MonkeyPatch, *layers: type[nn.Module]) -> list[tuple[type, str]]:
    """A list that every call of these layers' ``forward`` appends to: the layer and the activation it also does."""
    calls: list[tuple[type, str]] = []
    for layer in layers:

        def forward(self: Any, x: Any, activation: str = "identity", original: Any = layer.forward) -> Any:
            calls.append((type(self), activation))
            return original(self, x, activation)

        monkeypatch.setattr(layer, "forward", forward)
    return calls


def test_pooling_goes_before_an_activation_bit_for_bit(backend: Backend, rng: np.random.Generator) -> None:
    """Also with ties, a NaN and infinities among the values, values past 6 and windows of negative ones."""
    x = random_array(rng, (2, 10, 12, 2)) * 8
    x[0, :4, :4] = -np.abs(x[0, :4, :4])
    x[0, 8, 8, 0], x[1, 0, 0, 1], x[1, 9, 11, 0] = np.nan, np.inf, -np.inf
    x[1, 3:6, 3:6] = 1.0
    for make in (pooled_network, lambda: nn.Sequential(*list(pooled_network())[1:])):
        found = []
        for run in (lambda model, x: model(x), one_by_one):
            model = make()
            leaves = [cnn.Tensor(x.copy(), requires_grad=True), *model.parameters()]
            y = run(model, leaves[0])
            found.append(results(y, leaves, np.arange(y.size, dtype=np.float32).reshape(y.shape) - 50))
        for mine, expected in zip(*found, strict=True):
            assert_identical(mine, expected)


def test_pooling_goes_before_an_activation_where_gradients_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, nn.Conv2d, nn.MaxPool2d)
    x = cnn.Tensor(np.ones((2, 10, 12, 2), np.float32))
    model = pooled_network()
    model(x)
    assert calls == [(nn.Conv2d, "identity"), (nn.MaxPool2d, "relu"), (nn.MaxPool2d, "relu6")]
    calls.clear()
    with cnn.no_grad():
        model(x)
    assert calls == [(nn.Conv2d, "relu"), (nn.MaxPool2d, "identity"), (nn.MaxPool2d, "identity")]
    calls.clear()
    with model[2].register_forward_hook(lambda module, inputs, y: None):
        model(x)
    assert calls == [(nn.Conv2d, "relu"), (nn.MaxPool2d, "identity"), (nn.MaxPool2d, "relu6")]
    calls.clear()
    setattr(model, "2", nn.MaxPool2d(2, 1))
    assert model(x).shape == (2, 7 * 9 * 5)
    assert calls[1] == (nn.MaxPool2d, "relu"), "a module that takes another's place"


def test_sequential_computes_layers_and_their_activations_together(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, nn.Conv2d, nn.Linear)
    x = cnn.Tensor(np.ones((2, 6, 6, 2), np.float32))
    model = network()
    model(x)
    together = [(nn.Conv2d, "relu"), (nn.Conv2d, "identity"), (nn.Linear, "relu6"), (nn.Linear, "identity")]
    assert calls == together
    for watched in (0, 1):
        calls.clear()
        seen: list[Any] = []
        with model[watched].register_forward_hook(lambda module, inputs, y, seen=seen: seen.append(y.numpy().min())):
            model(x)
        assert calls == [(nn.Conv2d, "identity"), *together[1:]], "a hook sees its module's own result"
        assert (seen[0] < 0) == (watched == 0)
    calls.clear()
    model[1].forward = lambda x: x  # type: ignore[method-assign]
    model(x)
    assert calls[0] == (nn.Conv2d, "identity"), "a forward of the instance's own is called"


def test_every_activation_that_saves_its_result_is_recorded_in_one_node() -> None:
    _, shapes = LAYERS["linear"]
    operands = [cnn.Tensor(np.ones(shape, np.float32), requires_grad=True) for shape in shapes]
    for kind, saves in ACTIVATION_SAVES.items():
        node = F.linear(*operands, activation=kind).node
        expected = "Linear" if kind == "identity" else "LinearActivation" if saves == "y" else "ActivationOfInput"
        assert type(node).__name__ == expected
