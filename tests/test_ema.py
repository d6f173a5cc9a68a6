"""The average of weights: its formula, its use in place of the model's own, its state."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
from cnnengine import nn, optim
from cnnengine.backends.contract import Backend

from .compare import assert_close


def _model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def _change(model: nn.Module, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """New weights and statistics; a copy of them in float64."""
    state = model.state_dict()
    model.load_state_dict({name: rng.standard_normal(t.shape) for name, t in state.items()})
    return {name: t.numpy().astype(np.float64) for name, t in model.state_dict().items()}


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_follows_its_formula(backend: Backend, warmup: bool, rng: np.random.Generator) -> None:
    model = _model().to(backend.device)
    expected = _change(model, rng)
    ema = optim.EMA(model, 0.6, warmup=warmup)
    for n in range(5):
        decay = min(0.6, 1 - (1 + n) ** (-2 / 3)) if warmup else 0.6
        assert ema.decay_at(n) == decay
        new = _change(model, rng)
        ema.update()
        expected = {
            name: decay * expected[name] + (1 - decay) * new[name] if new[name].ndim else new[name] for name in new
        }
    assert any("running_mean" in name for name in expected)
    for name, average in ema.state_dict()["averages"].items():
        assert_close(average, expected[name].astype(average.dtype), reduction=16)


def test_the_averages_take_the_models_place_and_give_it_back(rng: np.random.Generator) -> None:
    model = _model().eval()
    ema = optim.EMA(model, 0.5)
    own = _change(model, rng)
    ema.update()
    averages = ema.state_dict()["averages"]
    x = cnn.Tensor(rng.standard_normal((2, 4, 4, 1)).astype(np.float32))
    before = model(x).numpy()
    with ema.applied():
        assert all((t.numpy() == averages[name]).all() for name, t in model.state_dict().items())
        inside = ema.state_dict()["averages"]
        assert all((inside[name] == averages[name]).all() for name in averages)
        assert not np.allclose(model(x).numpy(), before)
        with pytest.raises(RuntimeError, match="the averages are in the model"):
            ema.update()
    assert all((t.numpy() == own[name]).all() for name, t in model.state_dict().items())
    np.testing.assert_array_equal(model(x).numpy(), before)


def test_a_failure_within_gives_the_weights_back(rng: np.random.Generator) -> None:
    model = _model()
    ema = optim.EMA(model, 0.5)
    own = _change(model, rng)
    with pytest.raises(KeyError), ema.applied():
        raise KeyError
    assert all((t.numpy() == own[name]).all() for name, t in model.state_dict().items())


def test_a_restored_average_goes_on_bit_for_bit(rng: np.random.Generator) -> None:
    model = _model()
    ema = optim.EMA(model, 0.9, warmup=True)
    for _ in range(3):
        _change(model, rng)
        ema.update()
    state = ema.state_dict()
    again = optim.EMA(model, 0.9, warmup=True)
    again.load_state_dict(state)
    _change(model, rng)
    for e in (ema, again):
        e.update()
    assert ema.updates == again.updates == 4
    for name, average in ema.state_dict()["averages"].items():
        np.testing.assert_array_equal(again.state_dict()["averages"][name], average)


def test_a_state_that_does_not_fit_changes_nothing(rng: np.random.Generator) -> None:
    model = _model()
    ema = optim.EMA(model, 0.9)
    _change(model, rng)
    state = ema.state_dict()
    for wrong, message in (
        ({"updates": 1}, "the state lacks averages"),
        ({**state, "averages": {**state["averages"], "3.bias": np.zeros(4)}}, r"3.bias is \(3,\) here, \(4,\) in the"),
        ({**state, "averages": {}}, r"0.weight is \(2, 3, 3, 1\) here, None in the state"),
    ):
        with pytest.raises(ValueError, match=message):
            ema.load_state_dict(wrong)
    for name, average in ema.state_dict()["averages"].items():
        np.testing.assert_array_equal(average, state["averages"][name])


def test_what_cannot_be_averaged_is_refused() -> None:
    for decay in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
            optim.EMA(_model(), decay)
    layer = nn.Linear(2, 2)
    layer.weight.data = layer.weight.astype("float16").data
    with pytest.raises(TypeError, match="weight is float16; keep the parameters in float32"):
        optim.EMA(layer)


def test_decay_groups_spare_vectors() -> None:
    model = _model()
    decayed, spared = optim.decay_groups(model, 0.1)
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert [p.ndim for p in spared["params"]] == [1, 1, 1, 1]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    decayed, spared = optim.decay_groups(model, 0.1, without=["3.weight"])
    assert (len(decayed["params"]), len(spared["params"])) == (1, 5)
    (everything,) = optim.decay_groups(nn.Linear(2, 2, bias=False), 0.1)
    assert everything["weight_decay"] == 0.1
    optim.SGD(optim.decay_groups(model, 0.1), lr=0.1)
    with pytest.raises(ValueError, match=r"no parameter.s name ends in embedding; there are 0\.weight"):
        optim.decay_groups(model, 0.1, without=["embedding"])
