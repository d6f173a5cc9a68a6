"""autocast: what runs in which dtype, gradients of float32 parameters, casts that are kept, where it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import Backend
from cnnengine.functional import _autocast
from cnnengine.functional._common import autocast_region

from .compare import HALF_UNIT, assert_close, assert_identical
from .harness import random_array

LOW = ("float16", "bfloat16")
autocast = cnn.amp.autocast


@pytest.fixture(params=LOW)
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def low_backend(backend: Backend, dtype: str) -> Backend:
    """Each backend that computes in the dtype"""
    if dtype not in backend.dtypes:
        pytest.skip(f"backend {backend.name} computes in {', '.join(sorted(backend.dtypes))}")
    return backend


def leaf(rng: np.random.Generator, *shape: int, backend: Backend | None = None) -> cnn.Tensor:
    array = random_array(rng, shape)
    return cnn.Tensor(array if backend is None else backend.to_device(array), requires_grad=True)


# ---- what runs in which dtype

x, w, b = ((2, 5, 5, 4), (3, 3, 3, 4), (3,))  # of conv2d, linear and all others
LOWERED: dict[str, Callable[..., cnn.Tensor]] = {
    "conv2d": lambda a: F.conv2d(a(*x), a(*w), a(*b)),
    "conv2d_relu": lambda a: F.conv2d(a(*x), a(*w), activation="relu"),
    "conv2d_norm_act": lambda a: F.conv2d_norm_act(a(*x), a(*w), a(*b), scale=a(*b), shift=a(*b), activation="relu"),
    "conv2d_batch_norm": lambda a: F.conv2d_batch_norm(a(*x), a(*w), a(*b), None, None, a(*b), training=True),
    "linear": lambda a: F.linear(a(2, 4), a(3, 4), a(3)),
    "matmul": lambda a: a(2, 3, 4) @ a(4, 5),
    "matmul_batched": lambda a: F.matmul(a(2, 3, 4), a(2, 4, 5)),
}
WIDENED: dict[str, Callable[..., cnn.Tensor]] = {
    "cross_entropy": lambda a: F.cross_entropy(a(2, 3), np.array([0, 2])),
    "cross_entropy_composed": lambda a: F.cross_entropy(a(2, 3), np.array([0, 2]), weight=a(3), label_smoothing=0.1),
    "softmax": lambda a: F.softmax(a(2, 3)),
    "log_softmax": lambda a: F.log_softmax(a(2, 3)),
    "exp": lambda a: F.exp(a(3)),
    "log": lambda a: F.log(a(3)),
    "pow": lambda a: a(3) ** 2,
    "rpow": lambda a: 2 ** a(3),
    "reciprocal": lambda a: 1 / a(3),
    "sum": lambda a: a(2, 3).sum(1),
    "layer_norm": lambda a: F.layer_norm(a(2, 4), 4, a(4), a(4)),
    "group_norm": lambda a: F.group_norm(a(*x), 2, a(4), a(4)),
}
FOLLOWING: dict[str, Callable[..., cnn.Tensor]] = {
    "relu": lambda a: F.relu(a(3)),
    "gelu": lambda a: F.gelu(a(3)),
    "add": lambda a: a(3) + a(2, 3),
    "mul_by_a_number": lambda a: a(3) * 2,
    "div_by_a_number": lambda a: a(3) / 3,
    "sqrt": lambda a: F.sqrt(a(3)),
    "mean": lambda a: a(2, 3).mean(0),
    "max": lambda a: a(2, 3).max(1),
    "max_pool2d": lambda a: F.max_pool2d(a(*x), 2),
    "avg_pool2d": lambda a: F.avg_pool2d(a(*x), 2),
    "dropout": lambda a: F.dropout(a(2, 3)),
    "concatenate": lambda a: F.concatenate([a(2, 3), a(1, 3)]),
    "instance_norm": lambda a: F.instance_norm(a(*x)),
    "batch_norm": lambda a: F.batch_norm(a(*x), None, None, a(4), a(4), training=True),
}


@pytest.mark.parametrize("operation", [*LOWERED, *WIDENED, *FOLLOWING])
def test_each_operation_runs_in_its_dtype(
    low_backend: Backend, operation: str, dtype: str, rng: np.random.Generator
) -> None:
    """The result is that of the operation outside, on operands that were cast by hand"""
    run = {**LOWERED, **WIDENED, **FOLLOWING}[operation]
    for given in (*LOW, "float32"):
        arrays: list[np.ndarray] = []

        def made(*shape: int, given: str = given, arrays: list[np.ndarray] = arrays) -> cnn.Tensor:
            arrays.append(np.abs(random_array(rng, shape)).astype(given))
            return cnn.Tensor(low_backend.to_device(arrays[-1]))

        cnn.manual_seed(0)
        with autocast(dtype):
            y = run(made)
        expected = dtype if operation in LOWERED else "float32" if operation in WIDENED else given
        assert y.dtype == expected
        by_hand = iter([cnn.Tensor(low_backend.to_device(a.astype(expected))) for a in arrays])
        cnn.manual_seed(0)
        assert_identical(y.numpy(), run(lambda *_, by_hand=by_hand: next(by_hand)).numpy(), f"{operation} of {given}")


def test_two_dtypes_are_brought_to_float32(low_backend: Backend, dtype: str, rng: np.random.Generator) -> None:
    low = leaf(rng, 3, backend=low_backend).astype(dtype)
    wide = leaf(rng, 3, backend=low_backend)
    for run in (
        lambda: low + wide,
        lambda: wide * low,
        lambda: low - wide.data,
        lambda: F.concatenate([low, wide]),
        lambda: F.batch_norm(
            F.reshape(low, (3, 1)), None, None, training=True, residual=F.reshape(wide, (3, 1)), activation="relu"
        ),
    ):
        with autocast(dtype):
            assert run().dtype == np.float32
        with pytest.raises(TypeError, match="nothing is converted silently"):
            run()


def test_float64_is_left_alone(dtype: str, rng: np.random.Generator) -> None:
    a, b = random_array(rng, (2, 3), "float64"), random_array(rng, (4, 3), "float64")
    with cnn.use_backend("numpy"), autocast(dtype):
        assert F.linear(cnn.Tensor(a), cnn.Tensor(b)).dtype == np.float64
        with pytest.raises(TypeError, match="linear: w is float64, x is " + dtype):
            F.linear(cnn.Tensor(a.astype("float32")), cnn.Tensor(b))
        with pytest.raises(TypeError, match="second operand is float64, x is float32"):
            cnn.Tensor(a.astype("float32")) + cnn.Tensor(a)


def test_batch_norm_follows_x_and_its_statistics_stay_float32(
    low_backend: Backend, dtype: str, rng: np.random.Generator
) -> None:
    norm = nn.BatchNorm2d(4)
    for tensor in (*norm.parameters(), *norm.buffers()):
        tensor.data = low_backend.to_device(tensor.numpy())
    given = leaf(rng, 4, 3, 3, 4, backend=low_backend).astype(dtype)
    with autocast(dtype):
        y = norm(given)
    y.backward(cnn.Tensor(low_backend.to_device(random_array(rng, y.shape, dtype))))
    assert y.dtype == dtype
    assert norm.weight.grad.dtype == norm.bias.grad.dtype == np.float32
    assert norm.running_mean.dtype == np.float32
    assert_close(norm.running_mean.numpy(), 0.1 * given.numpy().astype(np.float64).mean((0, 1, 2)), reduction=36)


def test_a_frozen_network_runs_in_the_dtype(low_backend: Backend, dtype: str, rng: np.random.Generator) -> None:
    layer = nn.Conv2d(4, 3, 3)
    for parameter in layer.parameters():
        parameter.data = low_backend.to_device(parameter.numpy())
    images = cnn.Tensor(low_backend.to_device(random_array(rng, x)))
    with autocast(dtype):
        expected = layer(images)
        layer.freeze()
        for _ in range(2):
            assert_identical(layer(images).numpy(), expected.numpy())
    assert layer(images).dtype == np.float32
    prepared = F.conv2d_prepare(x, layer.weight)
    with autocast(dtype):
        assert_identical(F.conv2d(images, prepared, layer.bias).numpy(), expected.numpy())


# ---- gradients

SHAPES = [(4, 3, 3, 1), (4,), (8, 3, 3, 4), (8,), (10, 8 * 2 * 2), (10,)]
ROUNDINGS = 16  # of a number on its way: image, 3 weights, 3 results and their biases; as many back


def network(images: cnn.Tensor, labels: np.ndarray, p: list[cnn.Tensor]) -> cnn.Tensor:
    """Smooth: at ReLU's kink a rounding turns a whole gradient on or off"""
    y = F.conv2d(images, p[0], p[1], stride=2, activation="tanh")
    y = F.conv2d(y, p[2], p[3], stride=2, activation="silu")
    return F.cross_entropy(F.linear(F.flatten(y), p[4], p[5]), labels)


def test_gradient_check(low_backend: Backend, dtype: str, rng: np.random.Generator) -> None:
    """Gradients of float32 parameters through float16 and bfloat16 against float64: each array within ROUNDINGS half
    units of its length, and the slope along a random direction against central differences"""
    images, labels = random_array(rng, (8, 11, 11, 1)), rng.integers(0, 10, 8)
    arrays = [random_array(rng, s) / np.float32(np.sqrt(np.prod(s[1:]))) for s in SHAPES]
    parameters = [cnn.Tensor(low_backend.to_device(a), requires_grad=True) for a in arrays]
    with autocast(dtype):
        loss = network(cnn.Tensor(low_backend.to_device(images)), labels, parameters)
    (loss * 1024).backward()
    received = [p.grad.numpy() / 1024 for p in parameters]
    assert {g.dtype.name for g in received} == {"float32"}

    direction = [rng.standard_normal(s) for s in SHAPES]

    def wide(step: float) -> tuple[cnn.Tensor, list[cnn.Tensor]]:
        moved = [
            cnn.Tensor(a.astype(np.float64) + step * u, requires_grad=True)
            for a, u in zip(arrays, direction, strict=True)
        ]
        return network(cnn.Tensor(images.astype(np.float64)), labels, moved), moved

    with cnn.use_backend("numpy"):
        exact_loss, exact = wide(0.0)
        exact_loss.backward()
        slope = (wide(1e-6)[0].item() - wide(-1e-6)[0].item()) / 2e-6
    allowed = ROUNDINGS * HALF_UNIT[dtype]
    lengths = [np.linalg.norm(p.grad.numpy()) for p in exact]
    errors = [np.linalg.norm(g - p.grad.numpy()) / n for g, p, n in zip(received, exact, lengths, strict=True)]
    assert max(errors) <= allowed
    assert min(errors) > HALF_UNIT[dtype] / 16, "nothing was rounded to the dtype"
    along = sum(float(np.vdot(g, u)) for g, u in zip(received, direction, strict=True))
    size = sum(n * np.linalg.norm(u) for n, u in zip(lengths, direction, strict=True))
    assert abs(along - slope) <= allowed * size


@pytest.mark.parametrize("dtype", LOW)
def test_a_network_trains_on_the_emulator(dtype: str) -> None:
    """float16 with a scaler, bfloat16 without; parameters stay float32"""
    reason = cnn.backends.available()["emulator"]
    if reason is not None:
        pytest.skip(f"backend emulator is absent: {reason}")
    digits = cnn.data.digits()
    images = np.ascontiguousarray(digits.normalize(digits.train_images[:16])[:, ::2, ::2])
    labels = digits.train_labels[:16]
    cnn.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
    optimizer = cnn.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = cnn.amp.GradScaler(enabled=dtype == "float16")
    losses = []
    with cnn.use_backend("emulator"):
        for _ in range(12):
            with autocast(dtype):
                logits = model(cnn.Tensor(images))
                loss = F.cross_entropy(logits, labels)
            assert logits.dtype == dtype
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            assert scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
    assert {p.dtype.name for p in model.parameters()} == {"float32"}
    assert losses[-1] < 0.2 * losses[0]
    assert losses[-1] < losses[6] < losses[0]


def test_outside_every_bit_is_as_before(backend: Backend, rng: np.random.Generator) -> None:
    images, labels = random_array(rng, (4, 11, 11, 1)), rng.integers(0, 10, 4)
    arrays = [random_array(rng, s) / np.float32(np.sqrt(np.prod(s[1:]))) for s in SHAPES]

    def run() -> list[np.ndarray]:
        parameters = [cnn.Tensor(backend.to_device(a), requires_grad=True) for a in arrays]
        loss = network(cnn.Tensor(backend.to_device(images)), labels, parameters)
        loss.backward()
        return [loss.numpy(), *(p.grad.numpy() for p in parameters)]

    before = run()
    with autocast("float16", enabled=False):
        inside = run()
    if "float16" in backend.dtypes:
        with autocast("float16"):
            low = run()
            with autocast("float16", enabled=False):
                within = run()
        assert low[0].tobytes() != before[0].tobytes()
        for a, b in zip(before, within, strict=True):
            assert_identical(b, a)
    for a, b, c in zip(before, inside, run(), strict=True):
        assert_identical(b, a)
        assert_identical(c, a)


def test_a_backend_without_the_dtype_says_so(backend: Backend, dtype: str, rng: np.random.Generator) -> None:
    if dtype in backend.dtypes:
        pytest.skip(f"backend {backend.name} computes in {dtype}")
    a, layer = leaf(rng, 2, 4, backend=backend), nn.Conv2d(4, 3, 3)
    message = (
        f"linear: autocast computes it in {dtype}, but backend '{backend.name}' computes in float32; use"
        r" cnn.use_backend\(\"(emulator|cuda)\"\).*, or autocast\(enabled=False\)"
    )
    with autocast(dtype), pytest.raises(cnn.Unsupported, match=message):
        F.linear(a, a)
    if backend.device == "cpu":
        layer.freeze()
        with autocast(dtype), pytest.raises(cnn.Unsupported, match=r"conv2d: autocast computes it in"):
            layer(cnn.Tensor(random_array(rng, x)))
    with autocast(dtype):
        assert F.softmax(a).dtype == np.float32  # runs in float32 anyway
    assert autocast_region() is None


# ---- casts that are kept


@pytest.fixture
def casts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what autocast casts"""
    seen: list[tuple[int, ...]] = []
    original = _autocast.cast

    def counting(t: cnn.Tensor, dtype: object) -> cnn.Tensor:
        seen.append(t.shape)
        return original(t, dtype)

    monkeypatch.setattr(_autocast, "cast", counting)
    return seen


def test_a_parameter_is_cast_once_in_the_outermost_block(
    casts: list[tuple[int, ...]], dtype: str, rng: np.random.Generator
) -> None:
    weight, given = leaf(rng, 3, 4), cnn.Tensor(random_array(rng, (2, 4)))
    with cnn.use_backend("numpy"):
        for _ in range(2):
            casts.clear()
            with autocast(dtype):
                F.linear(given, weight)
                with autocast(dtype), cnn.no_grad():
                    F.linear(given, weight)
                y = F.linear(given, weight)
                region = autocast_region()
                assert region is not None
                assert [t for t, _ in region.casts] == [weight]
            assert casts.count((3, 4)) == 1
            assert casts.count((2, 4)) == 3  # no leaf that requires a gradient
            assert region.casts == {}
            y.sum().backward()
        assert weight.grad.dtype == np.float32


def test_a_changed_parameter_is_cast_again(casts: list[tuple[int, ...]], dtype: str, rng: np.random.Generator) -> None:
    layer, given = nn.Linear(4, 3, bias=False), cnn.Tensor(random_array(rng, (2, 4)))
    optimizer = cnn.optim.SGD(layer.parameters(), lr=0.5)
    state = {"weight": random_array(rng, (3, 4))}

    def replace() -> None:
        layer.weight.data = random_array(rng, (3, 4))

    with cnn.use_backend("numpy"), autocast(dtype):
        layer(given).sum().backward()
        for change in (optimizer.step, lambda: layer.load_state_dict(state), replace):
            casts.clear()
            change()
            y = layer(given)
            assert casts.count((3, 4)) == 1
            with autocast(enabled=False):
                assert_identical(y.numpy(), F.linear(given.astype(dtype), layer.weight.astype(dtype)).numpy())


def test_two_dtypes_have_casts_of_their_own(rng: np.random.Generator) -> None:
    weight = leaf(rng, 3, 4)
    with cnn.use_backend("numpy"), autocast("float16"):
        assert F.matmul(weight, weight.T).dtype == np.float16
        with autocast("bfloat16"):
            assert F.matmul(weight, weight.T).dtype == ml_dtypes.bfloat16
        assert F.matmul(weight, weight.T).dtype == np.float16


def test_each_loss_of_a_block_has_a_backward_pass(dtype: str, rng: np.random.Generator) -> None:
    """A graph is freed as it is walked: the cast that two of them share must not be"""
    weight, first, second = (
        leaf(rng, 3, 4),
        cnn.Tensor(random_array(rng, (2, 4))),
        cnn.Tensor(random_array(rng, (5, 4))),
    )
    with cnn.use_backend("numpy"):
        separate = []
        for given in (first, second):
            with autocast(dtype):
                y = F.linear(given, weight).sum()
            y.backward()
            separate.append(weight.grad.numpy())
            weight.grad = None
        expected = separate[0] + separate[1]
        with autocast(dtype):  # both forward, both backward
            losses = [F.linear(given, weight).sum() for given in (first, second)]
        for loss in losses:
            loss.backward()
        assert_identical(weight.grad.numpy(), expected)
        weight.grad = None
        with autocast(dtype):  # one after the other, in the block
            for given in (first, second):
                F.linear(given, weight).sum().backward()
        assert_identical(weight.grad.numpy(), expected)


def test_a_step_before_the_backward_pass_leaves_its_gradient(dtype: str, rng: np.random.Generator) -> None:
    """It reads the casts, which hold what the forward pass used"""
    layer, given = nn.Linear(4, 3), cnn.Tensor(random_array(rng, (2, 4)), requires_grad=True)
    with cnn.use_backend("numpy"):
        with autocast(dtype):
            losses = [layer(given).sum() for _ in range(2)]
        losses[0].backward()
        expected, given.grad = given.grad.numpy(), None
        cnn.optim.SGD(layer.parameters(), lr=1.0).step()
        losses[1].backward()
    assert_identical(given.grad.numpy(), expected)


def test_a_cast_without_a_gradient_does_not_hide_one_with(dtype: str, rng: np.random.Generator) -> None:
    weight, given = leaf(rng, 3, 4), cnn.Tensor(random_array(rng, (2, 4)))
    with cnn.use_backend("numpy"), autocast(dtype):
        with cnn.no_grad():
            assert not F.linear(given, weight).requires_grad
        F.linear(given, weight).sum().backward()
    assert weight.grad is not None


# ---- where it begins and ends


def current() -> str | None:
    region = autocast_region()
    return None if region is None else region.dtype.name


def test_blocks_nest() -> None:
    outer = autocast(ml_dtypes.bfloat16)
    with outer:
        with autocast(np.float16):
            assert current() == "float16"
            with autocast(enabled=False):
                assert current() is None
                with outer:  # the same object again
                    assert current() == "bfloat16"
            assert current() == "float16"
        assert current() == "bfloat16"
        with pytest.raises(ZeroDivisionError), autocast("float16"):
            raise ZeroDivisionError
        assert current() == "bfloat16"
    assert current() is None


def test_as_a_decorator() -> None:
    @autocast("bfloat16")
    def depth(n: int) -> list[str | None]:
        return [current(), *(depth(n - 1) if n else [])]

    assert depth(2) == ["bfloat16"] * 3
    assert current() is None


def test_threads_have_their_own() -> None:
    """One object in two threads whose blocks overlap"""
    shared, barrier = autocast("float16"), threading.Barrier(2)

    def inside(first: bool) -> list[str | None]:
        seen = [current()]
        if not first:
            barrier.wait()
        with shared:
            if first:
                barrier.wait()
            seen.append(current())
            barrier.wait()
        return [*seen, current()]

    with autocast("bfloat16"), ThreadPoolExecutor(2) as pool:
        assert list(pool.map(inside, [True, False])) == [[None, "float16", None]] * 2
        assert current() == "bfloat16"


@pytest.mark.parametrize("wrong", ["float32", "tf32", np.float64, None, 3])
def test_other_dtypes_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="autocast: dtype must be 'float16' or 'bfloat16', received"):
        autocast(wrong)
