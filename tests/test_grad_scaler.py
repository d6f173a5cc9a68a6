"""GradScaler: the check for infinities and NaN on every backend, steps left out, the scale's course; and optimizers
over 16-bit parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn, optim
from cnnengine.amp import GradScaler
from cnnengine.backends.contract import Backend

from .compare import HALF_UNIT, assert_close, assert_identical
from .harness import random_array

SIZES = [(3, 2, 2, 5), (7,), (1, 1), (9, 130)]
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.1),
}


def parameters(backend: Backend, rng: np.random.Generator, dtype: str = "float32") -> list[nn.Parameter]:
    return [nn.Parameter(backend.to_device(random_array(rng, s, dtype))) for s in SIZES]


def give(optimizer: optim.Optimizer, gradients: list[np.ndarray], backend: Backend) -> None:
    for parameter, gradient in zip(optimizer.parameters, gradients, strict=True):
        parameter.grad = cnn.Tensor(backend.to_device(gradient.copy()))


def everything(optimizer: optim.Optimizer) -> list[Any]:
    """Parameters and the optimizer's state, as bytes"""
    state = optimizer.state_dict()
    arrays = [*(p.numpy() for p in optimizer.parameters), *(a for name in optimizer.keeps for a in state[name])]
    return [None if a is None else a.tobytes() for a in arrays] + [state.get("steps")]


# ---- the check


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_with_a_planted_infinity_changes_nothing(
    backend: Backend, kind: str, dtype: str, rng: np.random.Generator
) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"backend {backend.name} computes in {', '.join(sorted(backend.dtypes))}")
    optimizer = OPTIMIZERS[kind](parameters(backend, rng, dtype))
    scaler = GradScaler(1024.0)
    for history in range(2):  # before the states exist, and after
        before = everything(optimizer)
        versions = [p.version[0] for p in optimizer.parameters]
        for i, size in enumerate(SIZES):
            for position in (0, int(np.prod(size)) // 2, -1):
                for planted in (np.inf, -np.inf, np.nan):
                    gradients = [random_array(rng, s, dtype) for s in SIZES]
                    gradients[i].reshape(-1)[position] = planted
                    give(optimizer, gradients, backend)
                    assert not scaler.step(optimizer), f"{planted} at {position} of gradient {i}"
                    scale = scaler.get_scale()
                    scaler.update()
                    assert scaler.get_scale() == max(scale / 2, 2.0**-126)
        assert everything(optimizer) == before
        assert [p.version[0] for p in optimizer.parameters] == versions
        scaler.load_state_dict(GradScaler(1024.0).state_dict())
        give(optimizer, [random_array(rng, s, dtype) for s in SIZES], backend)
        assert scaler.step(optimizer)
        scaler.update()
        assert everything(optimizer) != before, history


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_largest_and_smallest_numbers_are_finite(backend: Backend, dtype: str) -> None:
    """A sum of them would overflow; signed zeros and denormal numbers are numbers"""
    if dtype not in backend.dtypes:
        pytest.skip(f"backend {backend.name} computes in {', '.join(sorted(backend.dtypes))}")
    largest = {"float32": 2.0**127 * (2 - 2.0**-23), "float16": 65504.0, "bfloat16": 2.0**127 * (2 - 2.0**-7)}[dtype]
    for value in (largest, -largest, -0.0, 2.0**-24 if dtype == "float16" else 2.0**-130):
        p = nn.Parameter(backend.to_device(np.zeros(5000, dtype)))
        p.grad = cnn.Tensor(backend.to_device(np.full(5000, value).astype(dtype)))
        scaler = GradScaler()
        assert scaler.step(optim.SGD([p], lr=0.0))
        assert not np.isnan(p.numpy().astype(np.float32)).any()


def test_a_scale_below_1_may_overflow(backend: Backend) -> None:
    """The gradient is finite, what it stands for is not"""
    p = nn.Parameter(backend.to_device(np.zeros(3, np.float32)))
    optimizer, scaler = optim.SGD([p], lr=1.0), GradScaler(2.0**-4)
    for value, made in ((1e38, False), (1e37, True)):
        p.grad = cnn.Tensor(backend.to_device(np.array([0.0, value, 1.0], np.float32)))
        assert scaler.step(optimizer) is made
        scaler.update()
        scaler.load_state_dict(GradScaler(2.0**-4).state_dict())
    assert p.numpy().tolist() == [0, np.float32(-1e37) * 16, -16]


# ---- scaled steps


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("by_hand", [False, True], ids=["in_the_step", "unscale_"])
def test_scaled_steps_are_unscaled_ones_bit_for_bit(
    backend: Backend, kind: str, by_hand: bool, rng: np.random.Generator
) -> None:
    """A power of 2 rounds nothing. Adam would not notice a missing division in p, but in its moments"""
    arrays, gradients = [random_array(rng, s) for s in SIZES], [[random_array(rng, s) for s in SIZES] for _ in range(3)]
    plain, scaled = (OPTIMIZERS[kind]([nn.Parameter(backend.to_device(a.copy())) for a in arrays]) for _ in range(2))
    scaler = GradScaler(2.0**10)
    for step in gradients:
        give(plain, step, backend)
        plain.step()
        give(scaled, [g * np.float32(2**10) for g in step], backend)
        if by_hand:
            grads = [p.grad for p in scaled.parameters]
            scaler.unscale_(scaled)
            for parameter, grad, g in zip(scaled.parameters, grads, step, strict=True):
                assert parameter.grad is grad
                assert_identical(grad.numpy(), g)
        assert scaler.step(scaled)
        scaler.update()
    assert everything(scaled) == everything(plain)


def test_a_loss_is_scaled_in_float32(backend: Backend) -> None:
    scaler = GradScaler(2.0**20)
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        if dtype not in backend.dtypes:
            continue
        loss = cnn.Tensor(backend.to_device(np.full((), 3.0, dtype)), requires_grad=True)
        scaled = scaler.scale(loss)
        assert scaled.item() == 3 * 2.0**20
        assert scaled.dtype == ("float64" if dtype == "float64" else "float32")
        scaled.backward()
        assert loss.grad.dtype == dtype
        assert loss.grad.item() == (np.inf if dtype == "float16" else 2.0**20)


def test_the_scale_stays_in_one_device_array(backend: Backend) -> None:
    """As a learning rate does, and the tape notices a change"""
    scaler, p = GradScaler(8.0), nn.Parameter(backend.to_device(np.ones((), np.float32)))
    optimizer = optim.SGD([p], lr=0.0)
    scaler.scale(p * 1.0).backward()
    (array,) = [t.data for t in scaler._on.values()]
    pending = scaler.scale(p * 1.0)
    p.grad = cnn.Tensor(backend.to_device(np.full((), np.inf, np.float32)))
    scaler.step(optimizer)
    scaler.update()
    (after,) = [t.data for t in scaler._on.values()]
    assert after is array
    assert scaler.scale(p * 1.0).item() == scaler.get_scale() == 4
    with pytest.raises(RuntimeError, match="was changed in place"):
        pending.backward()


def test_a_scale_that_is_too_large_finds_its_way_down(rng: np.random.Generator) -> None:
    """The network's float16 gradients overflow by themselves"""
    layer, images, labels = nn.Linear(4, 3), cnn.Tensor(random_array(rng, (8, 4))), rng.integers(0, 3, 8)
    optimizer, scaler = optim.Adam(layer.parameters(), lr=0.1), GradScaler(2.0**30)
    made = []
    with cnn.use_backend("numpy"):
        for _ in range(24):
            before = everything(optimizer)
            optimizer.zero_grad()
            with cnn.amp.autocast("float16"):
                loss = F.cross_entropy(layer(images), labels)
            scaler.scale(loss).backward()
            made.append(scaler.step(optimizer))
            assert (everything(optimizer) == before) is not made[-1]
            scaler.update()
    skipped = made.index(True)
    assert 8 <= skipped <= 16
    assert all(made[skipped:])
    assert scaler.get_scale() == 2.0 ** (30 - skipped)
    assert optimizer.state_dict()["steps"] == [24 - skipped] * 2


def test_the_course_is_pytorchs(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    settings = {"init_scale": 48.0, "growth_factor": 3.0, "backoff_factor": 0.25, "growth_interval": 3}
    start = random_array(rng, (5,))
    ours, theirs = nn.Parameter(start.copy()), torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer, reference = optim.SGD([ours], lr=0.5, momentum=0.5), torch.optim.SGD([theirs], lr=0.5, momentum=0.5)
    scaler, their_scaler = GradScaler(**settings), torch.amp.GradScaler("cpu", **settings)
    for step in range(40):
        gradient = random_array(rng, (5,)) * np.float32(50)
        if rng.random() < 0.2:
            gradient[rng.integers(5)] = [np.inf, -np.inf, np.nan][step % 3]
        ours.grad, theirs.grad = cnn.Tensor(gradient.copy()), torch.from_numpy(gradient.copy())
        their_scaler.scale(torch.zeros(()))  # it makes its scale when it is first used
        if step % 2:
            scaler.unscale_(optimizer)
            their_scaler.unscale_(reference)
        scaler.step(optimizer)
        their_scaler.step(reference)
        scaler.update()
        their_scaler.update()
        assert scaler.get_scale() == their_scaler.get_scale()
        assert_close(ours.numpy(), theirs.detach().numpy(), reduction=64)
        assert scaler.state_dict() == their_scaler.state_dict()


def test_several_optimizers_share_a_scale(rng: np.random.Generator) -> None:
    first, second = nn.Parameter(np.ones(3, np.float32)), nn.Parameter(np.ones(3, np.float32))
    optimizers, scaler = [optim.SGD([p], lr=1.0) for p in (first, second)], GradScaler(4.0)
    first.grad, second.grad = cnn.Tensor(np.full(3, np.nan, np.float32)), cnn.Tensor(np.full(3, 4.0, np.float32))
    assert [scaler.step(o) for o in optimizers] == [False, True]
    scaler.update()
    assert (first.numpy().tolist(), second.numpy().tolist()) == ([1, 1, 1], [0, 0, 0])
    assert scaler.get_scale() == 2


def test_the_scale_stays_within_float32() -> None:
    p = nn.Parameter([1.0])
    optimizer = optim.SGD([p], lr=0.0)
    for start, value, end in ((2.0**127, 1.0, 2.0**127), (2.0**-126, np.inf, 2.0**-126)):
        scaler = GradScaler(start, growth_interval=1)
        p.grad = cnn.Tensor([value])
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == end


def test_switched_off_it_does_nothing(rng: np.random.Generator) -> None:
    p = nn.Parameter([1.0])
    optimizer, scaler, loss = optim.SGD([p], lr=1.0), GradScaler(enabled=False), cnn.Tensor([1.0])
    assert scaler.scale(loss) is loss
    p.grad = cnn.Tensor([np.inf])
    scaler.unscale_(optimizer)
    assert scaler.step(optimizer)
    scaler.update()
    assert p.item() == -np.inf
    assert (scaler.get_scale(), scaler.state_dict()) == (1.0, {})
    scaler.load_state_dict({})


def test_a_restored_scaler_goes_on() -> None:
    p = nn.Parameter([1.0])
    optimizer, scaler = optim.SGD([p], lr=0.0), GradScaler(16.0, 4.0, 0.5, 3)
    restored = GradScaler()
    assert restored.scale(p * 1.0).item() == 2**16
    for step in range(4):
        if step == 2:
            restored.load_state_dict(scaler.state_dict())
            assert restored.scale(p * 1.0).item() == 16
        for one in (scaler, restored)[: 1 + (step >= 2)]:
            p.grad = cnn.Tensor([1.0])
            one.step(optimizer)
            one.update()
    assert scaler.get_scale() == restored.get_scale() == 64
    before = restored.state_dict()
    assert before == scaler.state_dict()
    for wrong, message in (
        (
            {},
            "the state lacks scale, growth_factor, backoff_factor, growth_interval, _growth_tracker; that of a scaler",
        ),
        ({**before, "scale": -1.0}, "init_scale must be in"),
        ({**before, "_growth_tracker": -1}, "_growth_tracker must be an int, 0 or above, received -1"),
    ):
        with pytest.raises(ValueError, match=message):
            restored.load_state_dict(wrong)
        assert restored.state_dict() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_scale": 0.0}, "init_scale must be in"),
        ({"init_scale": float("nan")}, "init_scale must be in"),
        ({"init_scale": float("inf")}, "init_scale must be in .* received inf"),
        ({"growth_factor": 1.0}, "growth_factor must be above 1 and finite, received 1.0"),
        ({"backoff_factor": 1.0}, "backoff_factor must be between 0 and 1"),
        ({"growth_interval": 0}, "growth_interval must be an int above 0, received 0"),
        ({"growth_interval": 1.5}, "growth_interval must be an int above 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradScaler(**settings)


def test_the_order_of_calls_is_watched() -> None:
    p = nn.Parameter([1.0])
    optimizer, scaler = optim.SGD([p], lr=0.0), GradScaler()
    for call in (scaler.unscale_, scaler.step):
        with pytest.raises(RuntimeError, match=r"no parameter has a gradient; scale\(loss\).backward\(\) comes first"):
            call(optimizer)
    with pytest.raises(RuntimeError, match=r"update: no gradients were checked since the last update\(\)"):
        scaler.update()
    for _ in range(2):
        p.grad = cnn.Tensor([1.0])
        scaler.unscale_(optimizer)
        with pytest.raises(RuntimeError, match="unscale_: called twice for this optimizer"):
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        for name in ("unscale_", "step"):
            with pytest.raises(RuntimeError, match=rf"{name}: step\(\) was called for this optimizer since the last"):
                getattr(scaler, name)(optimizer)
        scaler.update()


# ---- 16-bit parameters


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_16_bit_parameters_have_float32_states(
    backend: Backend, kind: str, dtype: str, rng: np.random.Generator
) -> None:
    """Against the same steps of float32 parameters, of which each is rounded to the dtype"""
    if dtype not in backend.dtypes:
        pytest.skip(f"backend {backend.name} computes in {', '.join(sorted(backend.dtypes))}")
    low = OPTIMIZERS[kind](parameters(backend, rng, dtype))
    wide = OPTIMIZERS[kind]([nn.Parameter(backend.to_device(p.numpy().astype(np.float32))) for p in low.parameters])
    scaler = GradScaler(2.0**6)
    for step in range(6):
        gradients = [random_array(rng, s, dtype) for s in SIZES]
        give(low, [g * g.dtype.type(2**6) for g in gradients], backend)
        give(wide, [g.astype(np.float32) for g in gradients], backend)
        assert scaler.step(low)  # divides in float32
        scaler.update()
        wide.step()
        for p, q in zip(low.parameters, wide.parameters, strict=True):
            assert p.dtype == dtype
            assert np.allclose(p.numpy().astype(np.float64), q.numpy(), rtol=0, atol=4 * HALF_UNIT[dtype])
            q.data = backend.to_device(p.numpy().astype(np.float32))
        if step == 3:
            before = everything(low)
            low.load_state_dict(low.state_dict())
            assert everything(low) == before
    after = low.state_dict()
    for name in low.keeps:
        for mine, theirs in zip(after[name], wide.state_dict()[name], strict=True):
            assert mine.dtype == np.float32
            assert_close(mine, theirs, reduction=64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_factors_that_the_dtype_does_not_hold(dtype: str) -> None:
    """3 has no inverse in bfloat16, and 2**20 is infinite in float16: both are applied in float32"""
    for scale in (3.0, 2.0**-20):
        p = nn.Parameter(np.zeros(3, dtype))
        values = np.array([0.0, 300.0, -600.0]) * scale
        with cnn.use_backend("numpy"):
            for by_hand in (False, True) if dtype == "bfloat16" else (False,):
                p.data[...] = 0
                p.grad = cnn.Tensor(values.astype(p.dtype))
                optimizer, scaler = optim.SGD([p], lr=1.0), GradScaler(scale)
                if by_hand:
                    scaler.unscale_(optimizer)
                assert scaler.step(optimizer)
                expected = 0 - values.astype(p.dtype).astype(np.float64) / scale
                assert_identical(p.numpy(), expected.astype(p.dtype))


def test_float16_gradients_are_not_unscaled_in_place() -> None:
    p = nn.Parameter(np.ones(3, np.float16))
    p.grad = cnn.Tensor(np.ones(3, np.float16))
    optimizer, scaler = optim.SGD([p], lr=1.0), GradScaler()
    with pytest.raises(ValueError, match=r"unscale_: gradients are float16.* leave it to step\(\)"):
        scaler.unscale_(optimizer)
    assert p.grad.numpy().tolist() == [1, 1, 1]
    with cnn.use_backend("numpy"):
        assert scaler.step(optimizer)
