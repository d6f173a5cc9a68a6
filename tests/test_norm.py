"""Normalisation: every case on every backend against the oracle; the oracle against PyTorch; gradients; modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import Backend, Epilogue

from .cases.norm import CASES, NormCase
from .compare import assert_close, assert_identical
from .gradients import check_gradients
from .harness import oracle, random_array, run_verb, runs

EPSILON = 1e-5


def forward(
    backend: Backend, case: NormCase, arrays: list[np.ndarray | None], activation: str, epsilon: float = EPSILON
) -> list[np.ndarray]:
    """[y, mean, variance]"""
    s = case.shape

    def call(x, gain, offset, residual, y, mean, variance):
        backend.norm_forward(s, x, gain, offset, residual, y, mean, variance, epsilon, activation)

    outputs = [(s.x, "float32"), (s.statistics, "float32"), (s.statistics, "float32")]
    return run_verb(backend, call, arrays, outputs, f"{backend.name} {case}")


def operands(rng: np.random.Generator, case: NormCase) -> list[np.ndarray]:
    """x, gain, offset, residual; every group with a mean and a deviation of its own"""
    s = case.shape
    x = random_array(rng, s.x) * rng.uniform(0.5, 2, (s.N, 1, s.G, 1)) + rng.uniform(-3, 3, (s.N, 1, s.G, 1))
    return [x.astype(np.float32), *(random_array(rng, (s.channels,)) for _ in range(2)), random_array(rng, s.x)]


def rounding(case: NormCase) -> int:
    """Terms of a sum with the rounding that normalising adds to those of the mean"""
    return case.shape.reduction + 64


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("with_affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_backward(
    backend: Backend, case: NormCase, with_affine: bool, activation: str, rng: np.random.Generator
) -> None:
    if not runs(backend, case.tier):
        pytest.skip(f"{case.tier} cases are too large for {backend.name}")
    s, what = case.shape, f"{backend.name} {case}"
    x, gain, offset, residual = operands(rng, case)
    given = [x, gain, offset, residual] if with_affine else [x, None, None, None]
    expected, actual = forward(oracle(), case, given, activation), forward(backend, case, given, activation)
    for name, ours, theirs in zip(("y", "mean", "variance"), actual, expected, strict=True):
        assert_close(ours, theirs, rounding(case), f"{what} {name}")

    y, mean, variance = expected
    dy = random_array(rng, s.x)
    known = [x, given[1], mean, variance, y if activation == "relu" else None, dy]
    outputs = [(s.x, "float32"), ((s.channels,), "float32"), ((s.channels,), "float32"), (s.x, "float32")]

    def backward(which: Backend, wanted: int = 4):
        def call(x, gain, mean, variance, y, dy, *out):
            gradients = [*out, *[None] * (4 - wanted)]
            which.norm_backward(s, x, gain, mean, variance, y, dy, *gradients, EPSILON, activation)

        return run_verb(which, call, known, outputs[:wanted], f"{which.name} {case} backward")

    expected, actual = backward(oracle()), backward(backend)
    # dx is what is left of dz * gain * rstd once its mean and slope are taken away: of few values hardly anything
    whole = expected[3] / np.sqrt(variance.reshape(s.N, 1, s.G, 1) + EPSILON, dtype=np.float64)
    whole = whole if given[1] is None else whole * gain.reshape(s.G, s.D)
    assert_close((actual[0] + whole).astype(np.float32), expected[0] + whole, rounding(case), f"{what} dx")
    for name, ours, theirs in zip(("dgain", "doffset"), actual[1:3], expected[1:3], strict=True):
        assert_close(ours, theirs, s.N * s.L + 64, f"{what} {name}")
    assert_identical(actual[3], expected[3], f"{what} dresidual")
    alone = backward(backend, 1)[0]
    assert_identical(alone, actual[0], f"{what}: dx without the other gradients")


@pytest.mark.parametrize("case", [c for c in CASES if c.tier == "tiny" and c.shape.reduction > 6], ids=str)
def test_only_the_parameters_gradients(backend: Backend, case: NormCase, rng: np.random.Generator) -> None:
    s = case.shape
    x, gain, _, dy = operands(rng, case)
    _, mean, variance = forward(oracle(), case, [x, gain, None, None], "identity")

    def backward(which: Backend):
        def call(x, gain, mean, variance, dy, dgain, doffset):
            gradients = None, dgain, doffset, None
            which.norm_backward(s, x, gain, mean, variance, None, dy, *gradients, EPSILON, "identity")

        outputs = [((s.channels,), "float32")] * 2
        return run_verb(which, call, [x, gain, mean, variance, dy], outputs, f"{which.name} {case}")

    for ours, theirs in zip(backward(backend), backward(oracle()), strict=True):
        assert_close(ours, theirs, s.N * s.L + 64)


@pytest.mark.parametrize("mean", [1e3, 1e4])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_data_far_from_zero(backend: Backend, case: NormCase, mean: float, rng: np.random.Generator) -> None:
    """The variance of values whose mean is 1,000 or 10,000 deviations loses no digits."""
    if not runs(backend, case.tier) or case.shape.reduction < 30:
        pytest.skip("too large for this backend, or too few values")
    x = random_array(rng, case.shape.x) + np.float32(mean)
    given = [x, None, None, None]
    expected, actual = forward(oracle(), case, given, "identity"), forward(backend, case, given, "identity")
    np.testing.assert_allclose(actual[1], expected[1], rtol=2e-7)
    assert_close(actual[2], expected[2], rounding(case), f"{backend.name} {case} variance")
    allowed = mean * 2.0**-24 / np.sqrt(expected[2].min()) + 2e-5  # the rounding of a float32 mean
    np.testing.assert_allclose(actual[0], expected[0], atol=allowed)


def test_an_outlier_where_sums_begin(backend: Backend, rng: np.random.Generator) -> None:
    """A first row that is no sample of the rest: shifting by it alone would cost the variance its digits."""
    case = NormCase("outlier", "small", 1, 1000, 4, 1)
    if not runs(backend, case.tier):
        pytest.skip(f"{case.tier} cases are too large for {backend.name}")
    x = random_array(rng, case.shape.x)
    x[0, 0] = 100
    given = [x, None, None, None]
    expected, actual = forward(oracle(), case, given, "identity"), forward(backend, case, given, "identity")
    np.testing.assert_allclose(actual[2], expected[2], rtol=1e-4)


def test_nan_and_infinity_stay_in_their_group(backend: Backend, rng: np.random.Generator) -> None:
    x = random_array(rng, (2, 4, 3, 3))
    x[0, 1, 1, 0], x[1, 0, 2, 2] = np.nan, np.inf
    y = F.batch_norm(cnn.Tensor(backend.to_device(x)), None, None, training=True, activation="relu").numpy()
    assert np.isnan(y[..., 0]).all()
    assert np.isnan(y[..., 2]).all()
    assert np.isfinite(y[..., 1]).all()


def test_constant_data_gives_the_offset(backend: Backend) -> None:
    x = backend.to_device(np.full((4, 6), 7.25, np.float32))
    bias = backend.to_device(np.arange(6, dtype=np.float32))
    y = F.batch_norm(cnn.Tensor(x), None, None, None, cnn.Tensor(bias), True)
    np.testing.assert_array_equal(y.numpy(), np.tile(np.arange(6, dtype=np.float32), (4, 1)))
    y = F.layer_norm(cnn.Tensor(x), 6, None, cnn.Tensor(bias))
    np.testing.assert_array_equal(y.numpy(), np.tile(np.arange(6, dtype=np.float32), (4, 1)))


# ---- the epilogue as a pass

EPILOGUE_SIZES = {
    "one": ("tiny", (1, 1)),
    "3_channels": ("tiny", (2, 3, 3)),
    "33_channels": ("tiny", (3, 33)),
    "6_channels": ("small", (2, 17, 13, 6)),
    "96_channels": ("small", (5, 7, 96)),
    "beyond_the_caches": ("layer", (40000, 64)),
}


@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("parts", ["", "b", "s", "bs", "t", "bstr", "r", "str"])
@pytest.mark.parametrize("name", EPILOGUE_SIZES)
def test_apply_epilogue(backend: Backend, name: str, parts: str, activation: str, rng: np.random.Generator) -> None:
    """``parts``: bias, scale, shift (t), residual"""
    tier, shape = EPILOGUE_SIZES[name]
    if not runs(backend, tier):
        pytest.skip(f"{tier} cases are too large for {backend.name}")
    x = random_array(rng, shape)
    x[(0,) * len(shape)] = -0.0
    given = [random_array(rng, shape if p == "r" else shape[-1:]) if p in parts else None for p in "bstr"]

    def call(which: Backend):
        return lambda x, *rest: which.apply_epilogue(x, rest[-1], Epilogue(*rest[:-1], activation))

    (expected,) = run_verb(oracle(), call(oracle()), [x, *given], [(shape, "float32")], "oracle")
    (actual,) = run_verb(backend, call(backend), [x, *given], [(shape, "float32")], f"{backend.name} {name}")
    assert_close(actual, expected, 4, f"{backend.name} {name} {parts}")
    if not parts:
        np.testing.assert_array_equal(actual, expected, "an empty epilogue changes nothing but what relu does")
    in_place = backend.to_device(x.copy())
    on_device = [None if a is None else backend.to_device(a) for a in given]
    backend.apply_epilogue(in_place, in_place, Epilogue(*on_device, activation))
    backend.synchronize()
    assert_identical(np.asarray(backend.to_host(in_place)), actual, "y may be x")


# ---- functions against PyTorch and central differences


def make(shape: tuple[int, ...], rng: np.random.Generator, channels: tuple[int, ...]) -> list[np.ndarray]:
    """x, weight, bias, dy in float64"""
    return [rng.standard_normal(s) for s in (shape, channels, channels, shape)]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (6, 5)])
def test_batch_norm_against_pytorch(shape: tuple[int, ...], training: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, weight, bias, dy = make(shape, rng, (5,))
    running = [rng.standard_normal(5), rng.uniform(0.5, 2, 5)]
    to_front = (0, len(shape) - 1, *range(1, len(shape) - 1))

    theirs = [torch.from_numpy(a).requires_grad_() for a in (x.transpose(to_front).copy(), weight, bias)]
    their_running = [torch.from_numpy(a.copy()) for a in running]
    y = torch.nn.functional.batch_norm(theirs[0], *their_running, *theirs[1:], training, 0.3, 1e-3)
    torch.relu(y).backward(torch.from_numpy(dy.transpose(to_front).copy()))
    with cnn.use_backend("numpy"):
        mine = [cnn.Tensor(a, requires_grad=True) for a in (x, weight, bias)]
        my_running = [cnn.Tensor(a.copy()) for a in running]
        z = F.batch_norm(mine[0], *my_running, *mine[1:], training, 0.3, 1e-3, activation="relu")
        z.backward(dy)
    back = np.argsort(to_front)
    np.testing.assert_allclose(z.numpy(), torch.relu(y).detach().numpy().transpose(back), rtol=1e-10, atol=1e-12)
    for ours, other in zip(my_running, their_running, strict=True):
        np.testing.assert_allclose(ours.numpy(), other.numpy(), rtol=1e-12)
    np.testing.assert_allclose(mine[0].grad.numpy(), theirs[0].grad.numpy().transpose(back), rtol=1e-9, atol=1e-10)
    for ours, other in zip(mine[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(ours.grad.numpy(), other.grad.numpy(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["layer", "layer_two_axes", "group", "instance"])
def test_other_norms_against_pytorch(kind: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    functional, shape = torch.nn.functional, (2, 3, 4, 6)
    channels = {"layer_two_axes": (4, 6)}.get(kind, (6,))
    x, weight, bias, dy = make(shape, rng, channels)
    theirs = [torch.from_numpy(a).requires_grad_() for a in (x, weight, bias)]
    if kind.startswith("layer"):
        y = functional.layer_norm(theirs[0], channels, *theirs[1:], 1e-3)
    else:
        front = theirs[0].permute(0, 3, 1, 2)
        if kind == "group":
            y = functional.group_norm(front, 3, *theirs[1:], 1e-3)
        else:
            y = functional.instance_norm(front, None, None, *theirs[1:], eps=1e-3)
        y = y.permute(0, 2, 3, 1)
    y.backward(torch.from_numpy(dy))
    with cnn.use_backend("numpy"):
        mine = [cnn.Tensor(a, requires_grad=True) for a in (x, weight, bias)]
        if kind.startswith("layer"):
            z = F.layer_norm(mine[0], channels, *mine[1:], 1e-3)
        elif kind == "group":
            z = F.group_norm(mine[0], 3, *mine[1:], 1e-3)
        else:
            z = F.instance_norm(mine[0], weight=mine[1], bias=mine[2], eps=1e-3)
        z.backward(dy)
    np.testing.assert_allclose(z.numpy(), y.detach().numpy(), rtol=1e-10, atol=1e-12)
    for ours, other in zip(mine, theirs, strict=True):
        assert ours.grad.shape == tuple(other.grad.shape)
        np.testing.assert_allclose(ours.grad.numpy(), other.grad.numpy(), rtol=1e-9, atol=1e-10)


def test_derivatives(rng: np.random.Generator) -> None:
    x, weight, bias, residual = make((3, 2, 4, 6), rng, (6,))
    running = [cnn.Tensor(rng.standard_normal(6)), cnn.Tensor(rng.uniform(0.5, 2, 6))]
    for training in (True, False):

        def batch(x, w, b, r=None, activation=None, training=training):
            fixed = [cnn.Tensor(t.data.copy()) for t in running]
            return F.batch_norm(x, *fixed, w, b, training, 0.1, 1e-5, activation, r)

        check_gradients(batch, [x, weight, bias], rng)
        check_gradients(batch, [x, weight, bias, residual], rng)
        check_gradients(lambda x, w, b, r, f=batch: f(x, w, b, r, "relu"), [x, weight, bias, residual], rng)
        check_gradients(lambda x, b, f=batch: f(x, None, b), [x, bias], rng)
    check_gradients(lambda x, w, b: F.layer_norm(x, 6, w, b), [x, weight, bias], rng)
    check_gradients(lambda x, b: F.layer_norm(x, (4, 6), None, b), [x, rng.standard_normal((4, 6))], rng)
    check_gradients(lambda x, w, b: F.group_norm(x, 2, w, b), [x, weight, bias], rng)
    check_gradients(lambda x, w: F.instance_norm(x, weight=w), [x, weight], rng)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_fused_is_composed(backend: Backend, training: bool, rng: np.random.Generator) -> None:
    """activation(norm + residual) in one pass: values and gradients of the separate operations."""
    shape = (2, 3, 3, 5)
    arrays = [random_array(rng, s) for s in (shape, (5,), (5,), shape)]
    dy = backend.to_device(random_array(rng, shape))
    running = [np.zeros(5, np.float32), np.ones(5, np.float32)]
    results = []
    for fused in (True, False):
        x, w, b, r = (cnn.Tensor(backend.to_device(a), requires_grad=True) for a in arrays)
        statistics = [cnn.Tensor(backend.to_device(a.copy())) for a in running]
        if fused:
            y = F.batch_norm(x, *statistics, w, b, training, activation="relu", residual=r)
        else:
            y = F.relu(F.batch_norm(x, *statistics, w, b, training) + r)
        y.backward(dy)
        results.append([y.numpy(), *(t.grad.numpy() for t in (x, w, b, r))])
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, 64)


def test_half_precision_keeps_float32_statistics(rng: np.random.Generator) -> None:
    x = (random_array(rng, (64, 4)) * 100 + 300).astype(np.float16)  # squares are past float16's 65504
    with cnn.use_backend("numpy"):
        running = [cnn.Tensor(np.zeros(4, np.float32)), cnn.Tensor(np.ones(4, np.float32))]
        y = F.batch_norm(cnn.Tensor(x), *running, training=True, momentum=1.0)
        assert y.dtype == np.float16
        np.testing.assert_allclose(running[1].numpy(), x.astype(np.float64).var(0, ddof=1), rtol=1e-6)
        again = F.batch_norm(cnn.Tensor(x), *running)
    np.testing.assert_allclose(again.numpy().astype(np.float32), y.numpy().astype(np.float32), atol=0.03)


# ---- modules


def test_batch_norm_module_keeps_pytorchs_statistics(backend: Backend, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for momentum in (0.1, None):
        mine, theirs = (
            nn.BatchNorm2d(3, momentum=momentum).to(backend.device),
            torch.nn.BatchNorm2d(3, momentum=momentum),
        )
        for _ in range(3):
            x = random_array(rng, (2, 3, 4, 3)) * np.float32(2) + np.float32(1)
            y = mine(cnn.Tensor(backend.to_device(x)))
            z = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
        np.testing.assert_allclose(y.numpy(), z.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)
        assert list(mine.state_dict()) == list(theirs.state_dict())
        for name, value in theirs.state_dict().items():
            np.testing.assert_allclose(mine.state_dict()[name].numpy(), value.numpy(), rtol=1e-5, atol=1e-6)
        before = {name: value.numpy().copy() for name, value in mine.state_dict().items()}
        y, z = mine.eval()(cnn.Tensor(backend.to_device(x))), theirs.eval()(torch.from_numpy(x).permute(0, 3, 1, 2))
        np.testing.assert_allclose(y.numpy(), z.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)
        for name, value in mine.state_dict().items():
            assert_identical(value.numpy(), before[name], f"{name} in evaluation")
        mine.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
        assert mine.num_batches_tracked.item() == 3


def test_modules_are_their_functions(rng: np.random.Generator) -> None:
    x = cnn.Tensor(random_array(rng, (2, 3, 4, 6)))
    w, b = (cnn.Tensor(random_array(rng, (6,))) for _ in range(2))
    for module, expected in (
        (nn.LayerNorm(6), F.layer_norm(x, 6, w, b)),
        (nn.GroupNorm(3, 6), F.group_norm(x, 3, w, b)),
        (nn.BatchNorm2d(6, track_running_stats=False).eval(), F.batch_norm(x, None, None, w, b, True)),
    ):
        module.load_state_dict({"weight": w.numpy(), "bias": b.numpy()})
        assert_identical(module(x).numpy(), expected.numpy(), type(module).__name__)
    assert nn.LayerNorm((4, 6), bias=False)(x).shape == x.shape
    assert nn.BatchNorm1d(6, affine=False)(cnn.Tensor(random_array(rng, (5, 6)))).shape == (5, 6)
    assert repr(nn.GroupNorm(3, 6)) == "GroupNorm(3, 6, eps=1e-05, affine=True)"
    assert repr(nn.LayerNorm(6)) == "LayerNorm((6,), eps=1e-05, elementwise_affine=True)"
    assert "momentum=0.1, affine=True, track_running_stats=True" in repr(nn.BatchNorm2d(6))


class Residual(nn.Module):
    """Convolution, norm and ReLU, then a block whose norm adds the skip connection, in one pass each"""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Sequential(nn.GlobalAvgPool2d(), nn.LayerNorm(8), nn.Linear(8, 2))

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        x = self.norm1(self.conv1(x), "relu")
        return self.head(self.norm2(self.conv2(x), "relu", x))


def steps(model: nn.Module, optimizer: Any, x: np.ndarray, labels: np.ndarray, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        loss = F.cross_entropy(model(cnn.Tensor(x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_network_with_norms_trains_and_resumes_with_the_same_bits(rng: np.random.Generator) -> None:
    """Upright and lying stripes; a copy made half way from the state dict continues with the same bits."""
    labels = rng.integers(0, 2, 24)
    stripes = np.sin(np.arange(8) * 2.0)
    x = np.where(labels[:, None, None] == 0, stripes[:, None], stripes[None, :])[..., None]
    x = (x + 0.3 * rng.standard_normal(x.shape)).astype(np.float32)
    cnn.manual_seed(0)
    model = Residual()
    optimizer = cnn.optim.SGD(model.parameters(), lr=0.1)
    first = steps(model, optimizer, x, labels, 10)
    again = Residual()
    again.load_state_dict(model.state_dict())
    last = steps(model, optimizer, x, labels, 10)
    assert steps(again, cnn.optim.SGD(again.parameters(), lr=0.1), x, labels, 10) == last
    assert last[-1] < 0.5 * first[0]
    assert model.norm1.num_batches_tracked.item() == 20
    for name, value in model.state_dict().items():
        assert_identical(again.state_dict()[name].numpy(), value.numpy(), name)
    with cnn.no_grad():
        guess = model.eval()(cnn.Tensor(x)).argmax(1)
    assert (guess == labels).mean() > 0.9


# ---- errors


def test_bad_input_is_named() -> None:
    x = cnn.Tensor(np.zeros((2, 3, 3, 4), np.float32))
    four, three = cnn.Tensor(np.ones(4, np.float32)), cnn.Tensor(np.ones(3, np.float32))
    for call, error, words in (
        (lambda: F.batch_norm(x, None, None), ValueError, "running_mean and running_var are needed"),
        (lambda: F.batch_norm(x, three, four), ValueError, r"running_mean must be \(4,\) float32, received \(3,\)"),
        (lambda: F.batch_norm(x, four, four, three), ValueError, r"weight must have shape \(4,\), received \(3,\)"),
        (lambda: F.batch_norm(x, four, four, residual=four), ValueError, r"residual must have shape \(2, 3, 3, 4\)"),
        (lambda: F.batch_norm(x, four, four, activation="rely"), ValueError, "unknown activation 'rely'"),
        (lambda: F.batch_norm(four, four, four), ValueError, "2 axes or more"),
        (
            lambda: F.batch_norm(cnn.Tensor(np.ones((1, 4), np.float32)), four, four, training=True),
            ValueError,
            r"Expected more than 1 value per channel when training, got input size \(1, 4\)",
        ),
        (lambda: F.batch_norm(x, four, four, four.astype("float64")), TypeError, "weight is float64, x is float32"),
        (lambda: F.batch_norm(cnn.Tensor(np.ones((0, 4), np.float32)), four, four), ValueError, "empty batch"),
        (lambda: F.layer_norm(x, 5), ValueError, r"x must end in normalized_shape \(5,\)"),
        (lambda: F.layer_norm(x, 4, three), ValueError, r"weight must have shape \(4,\)"),
        (lambda: F.group_norm(x, 3), ValueError, "4 channels do not divide into 3 groups"),
        (
            lambda: F.instance_norm(cnn.Tensor(np.ones((3, 1, 1, 4), np.float32))),
            ValueError,
            "Expected more than 1 spatial element",
        ),
        (lambda: nn.BatchNorm2d(4)(four), ValueError, r"expected x \(N, H, W, 4\), received \(4,\)"),
        (lambda: nn.BatchNorm1d(4)(x), ValueError, r"expected x \(N, 4\)"),
        (lambda: nn.BatchNorm2d(0), ValueError, "num_features must be an int of at least 1"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "must be a multiple"),
        (lambda: nn.LayerNorm(0), ValueError, "at least 1"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_a_refused_batch_changes_no_statistics() -> None:
    norm = nn.BatchNorm1d(4)
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(cnn.Tensor(np.ones((1, 4), np.float32)))
    assert norm.num_batches_tracked.item() == 0
    assert (norm.running_mean.numpy() == 0).all()


def test_a_changed_weight_is_noticed() -> None:
    x = cnn.Tensor(np.arange(8, dtype=np.float32).reshape(4, 2), requires_grad=True)
    weight = cnn.Tensor(np.ones(2, np.float32), requires_grad=True)
    y = F.batch_norm(x, None, None, weight, training=True)
    weight.data += 1
    weight.bump_version()
    with pytest.raises(RuntimeError, match=r"backward of Norm: its input 1, shape \(2,\), was changed in place"):
        y.backward(np.ones((4, 2), np.float32))


def test_sizes_are_ints() -> None:
    x = cnn.Tensor(np.ones((2, 6), np.float32))
    assert nn.LayerNorm(np.int64(6))(x).shape == (2, 6)
    with pytest.raises(ValueError, match=r"layer_norm: x must end in normalized_shape \(6.7,\)"):
        F.layer_norm(x, 6.7)
    for make in (lambda: nn.LayerNorm(6.5), lambda: nn.BatchNorm2d(3.5), lambda: nn.GroupNorm(2.0, 6)):
        with pytest.raises(ValueError, match="received"):
            make()
