"""A convolution and the batch norm behind it: the verb against the oracle, the function and the module against their
parts."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends import _kernel_plans as plans
from cnnengine.backends.contract import Backend, Epilogue
from cnnengine.backends.registry import get
from cnnengine.shapes import Conv2dShape, conv2d_shape, norm_shape

from .compare import assert_close, assert_identical
from .every_kernel import planned
from .harness import random_array

EPSILON = 1e-5
SHAPES = {
    "one_tile": conv2d_shape((1, 3, 5, 8), (8, 1, 1, 8)),
    "tiles_and_a_part": conv2d_shape((2, 11, 13, 8), (72, 3, 3, 8), padding=1),  # 286 pixels: four tiles of 64 and 30
    "groups": conv2d_shape((2, 9, 8, 16), (48, 3, 2, 8), (1, 2), 1, groups=2),
    "odd_channels": conv2d_shape((2, 9, 11, 3), (7, 3, 3, 3), padding=1),
    "wide": conv2d_shape((1, 13, 15, 16), (328, 1, 1, 16)),  # columns: a tile of 256 and one of 72
}
WITH_MOMENTS = (
    ("implicit_gemm", "float32"),
    ("implicit_gemm", "float16"),
    ("implicit_gemm_mma", "float16"),
    ("implicit_gemm_mma", "bfloat16"),
    ("implicit_gemm_tf32", "float32"),
)
WGMMA = (
    ("implicit_gemm_wgmma", "float16"),
    ("implicit_gemm_wgmma: WgmmaTile<128, 64, 8>, clusters of 2", "bfloat16"),
    ("implicit_gemm_wgmma: WgmmaTile<128, 256, 4>", "float16"),
)
EMULATED = [
    *((algorithm, dtype, name) for (algorithm, dtype), name in product(WITH_MOMENTS, SHAPES) if name != "wide"),
    *(
        (algorithm, dtype, name)
        for (algorithm, dtype), name in product(WGMMA, ("one_tile", "tiles_and_a_part", "wide"))
    ),
    ("first_layer", "float16", "odd_channels"),
    ("tiled", "float32", "groups"),  # leaves no moments
]


@pytest.fixture
def emulator() -> Backend:
    reason = cnn.backends.available()["emulator"]
    if reason is not None:
        pytest.skip(f"backend emulator is absent: {reason}")
    return get("emulator")


def operands(rng: np.random.Generator, shape: Conv2dShape, dtype: str) -> list[np.ndarray]:
    """x, w, bias, gain, offset, residual"""
    sizes = (shape.x, shape.w, (shape.K,), (shape.K,), (shape.K,), shape.y)
    return [random_array(rng, size).astype(dtype) for size in sizes]


def run(
    backend: Backend, shape: Conv2dShape, algorithm: str | None, arrays: list[np.ndarray], activation: str = "relu"
) -> list[np.ndarray]:
    """[y, z, mean, variance]"""
    x, w, bias, gain, offset, residual = map(backend.to_device, arrays)
    y, z = (backend.empty(shape.y, x.dtype) for _ in range(2))
    mean, variance = (backend.empty((1, shape.K), np.float32) for _ in range(2))
    norm = gain, offset, residual, z, mean, variance, EPSILON, activation
    backend.conv2d_norm_forward(shape, x, w, bias, y, algorithm, *norm)
    return [np.asarray(backend.to_host(a)) for a in (y, z, mean, variance)]


def check(shape: Conv2dShape, arrays: list[np.ndarray], results: list[np.ndarray], what: str) -> None:
    """mean, variance and z are those of y as it was stored, by the oracle in float64."""
    y, z, mean, variance = results
    count = y.size // shape.K
    stored = y.astype(np.float64).reshape(count, shape.K)
    assert_close(mean[0], stored.mean(0), count, f"{what} mean")
    assert_close(variance[0], stored.var(0), count + 64, f"{what} variance")
    gain, offset, residual = (a.astype(np.float64) for a in arrays[3:])
    expected, *statistics = np.empty((1, count, shape.K, 1)), np.empty((1, shape.K)), np.empty((1, shape.K))
    walk = norm_shape(1, count, shape.K, 1)
    given = stored.reshape(walk.x), gain, offset, residual.reshape(walk.x)
    get("numpy").norm_forward(walk, *given, expected, *statistics, EPSILON, "relu")
    assert_close(z, expected.reshape(shape.y), count + 64, f"{what} z")


@pytest.mark.parametrize(("algorithm", "dtype", "name"), EMULATED)
def test_moments_are_those_of_what_is_stored(
    emulator: Backend, algorithm: str, dtype: str, name: str, rng: np.random.Generator
) -> None:
    shape = SHAPES[name]
    arrays = operands(rng, shape, dtype)
    results = run(emulator, shape, algorithm, arrays)
    check(shape, arrays, results, f"{algorithm} {dtype} {name}")
    alone = emulator.empty(shape.y, results[0].dtype)
    emulator.conv2d_forward(shape, *arrays[:2], alone, Epilogue(arrays[2]), algorithm)
    assert_identical(results[0], alone, "y with moments and without")


@pytest.mark.parametrize("name", ["tiles_and_a_part", "odd_channels"])
def test_many_tiles_are_joined_by_two_kernels(emulator: Backend, name: str, rng: np.random.Generator) -> None:
    shape = SHAPES[name]
    arrays = operands(rng, shape, "float32")
    with planned(plans, "FEW_TILES", 1, is_function=False):
        check(shape, arrays, run(emulator, shape, "implicit_gemm", arrays), name)


@pytest.mark.parametrize(
    ("algorithm", "dtype"), [("implicit_gemm", "float32"), ("implicit_gemm_mma", "bfloat16"), WGMMA[0]]
)
def test_moments_far_from_zero(emulator: Backend, algorithm: str, dtype: str, rng: np.random.Generator) -> None:
    """A mean of 1,000 deviations costs the variance no digits but those that the dtype of y loses."""
    shape = SHAPES["tiles_and_a_part"]
    arrays = operands(rng, shape, dtype)
    arrays[2] = (arrays[2] + 8000).astype(dtype)
    y, _, mean, variance = run(emulator, shape, algorithm, arrays)
    stored = y.astype(np.float64).reshape(-1, shape.K)
    np.testing.assert_allclose(mean[0], stored.mean(0), rtol=3e-7)
    np.testing.assert_allclose(variance[0], stored.var(0), rtol=1e-4)


def test_a_nan_stays_in_its_channel(emulator: Backend, rng: np.random.Generator) -> None:
    shape = SHAPES["one_tile"]
    arrays = operands(rng, shape, "float16")
    arrays[2][3] = np.nan
    _, z, mean, variance = run(emulator, shape, "implicit_gemm_mma", arrays)
    for values in (z.reshape(-1, 8).sum(0), mean[0], variance[0]):
        np.testing.assert_array_equal(np.isnan(values), np.arange(8) == 3)


# ---- the function on every backend


GEOMETRY: dict[str, Any] = {"stride": (1, 2), "padding": 1}


def tensors(backend: Backend, rng: np.random.Generator) -> list[cnn.Tensor]:
    """x, w, b, weight, bias, residual"""
    sizes = ((2, 5, 6, 4), (8, 3, 3, 4), (8,), (8,), (8,), (2, 5, 3, 8))
    return [cnn.Tensor(backend.to_device(random_array(rng, size)), requires_grad=True) for size in sizes]


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "bare"])
def test_it_is_its_composition(backend: Backend, whole: bool, activation: str | None, rng: np.random.Generator) -> None:
    x, w, b, weight, bias, residual = tensors(backend, rng)
    extra = (weight, bias) if whole else (None, None)
    given = (x, w, b if whole else None)
    inputs = (x, w, b, weight, bias, residual) if whole else (x, w)
    dy = backend.to_device(random_array(rng, (2, 5, 3, 8)))
    found = []
    for composed in (False, True):
        running = [cnn.Tensor(backend.to_device(np.full(8, value, np.float32))) for value in (0.5, 2.0)]
        end = (True, 0.3, EPSILON, activation, residual if whole else None)
        if composed:
            z = F.batch_norm(F.conv2d(*given, **GEOMETRY), *running, *extra, *end)
        else:
            z = F.conv2d_batch_norm(*given, *running, *extra, *end, **GEOMETRY)
        z.backward(dy)
        found.append([z.numpy(), *(r.numpy() for r in running), *(t.grad.numpy() for t in inputs)])
        for t in inputs:
            t.grad = None
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_evaluation_is_its_composition(backend: Backend, rng: np.random.Generator) -> None:
    x, w, b, weight, bias, residual = tensors(backend, rng)
    running = [cnn.Tensor(backend.to_device(np.full(8, value, np.float32))) for value in (0.5, 2.0)]
    end = (weight, bias, False, 0.1, EPSILON, "relu", residual)
    z = F.conv2d_batch_norm(x, w, b, *running, *end, **GEOMETRY)
    expected = F.batch_norm(F.conv2d(x, w, b, **GEOMETRY), *running, *end)
    assert_identical(z.numpy(), expected.numpy())


def test_nothing_is_recorded_without_gradients(backend: Backend, rng: np.random.Generator) -> None:
    x, w, *_ = tensors(backend, rng)
    with cnn.no_grad():
        assert F.conv2d_batch_norm(x, w, None, None, None, training=True).node is None
    frozen = F.conv2d_prepare(x.shape, w)
    z = F.conv2d_batch_norm(x, frozen, None, None, None, training=True)
    z.backward(backend.to_device(np.ones(z.shape, np.float32)))
    assert w.grad is None
    assert x.grad is not None


def test_bad_input_is_named() -> None:
    x, w = cnn.Tensor(np.zeros((1, 3, 3, 4), np.float32)), cnn.Tensor(np.zeros((2, 3, 3, 4), np.float32))
    two, three = cnn.Tensor(np.ones(2, np.float32)), cnn.Tensor(np.ones(3, np.float32))
    for call, message in (
        (lambda: F.conv2d_batch_norm(x, w, None, two, two, training=True), "more than 1 value per channel"),
        (lambda: F.conv2d_batch_norm(x, w, three, None, None, training=True), r"b must be \(2,\)"),
        (lambda: F.conv2d_batch_norm(x, w, None, three, two, training=True), r"running_mean must be \(2,\) float32"),
        (lambda: F.conv2d_batch_norm(x, w, None, two, two, three, training=True), r"weight must have shape \(2,\)"),
        (
            lambda: F.conv2d_batch_norm(x, w, None, None, None, training=True, residual=two),
            r"residual must have shape \(1, 1, 1, 2\)",
        ),
        (
            lambda: F.conv2d_batch_norm(x, w, None, None, None, training=True, padding=1, activation="rely"),
            "unknown activation 'rely'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ---- the module


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_module_behind_a_convolution(backend: Backend, training: bool, rng: np.random.Generator) -> None:
    conv, norms = nn.Conv2d(4, 8, 3, padding=1), [nn.BatchNorm2d(8).train(training) for _ in range(2)]
    x = cnn.Tensor(random_array(rng, (2, 5, 6, 4)))
    residual = cnn.Tensor(random_array(rng, (2, 5, 6, 8)))
    for module in (conv, *norms):
        module.to(backend.device)
    x, residual = x.to(backend.device), residual.to(backend.device)
    together, apart = norms[0](x, "relu", residual, conv), norms[1](conv(x), "relu", residual)
    np.testing.assert_allclose(together.numpy(), apart.numpy(), rtol=1e-5, atol=1e-5)
    for name, value in norms[1].state_dict().items():
        np.testing.assert_allclose(norms[0].state_dict()[name].numpy(), value.numpy(), rtol=1e-5, atol=1e-6)


def test_a_hook_of_the_convolution_is_called(rng: np.random.Generator) -> None:
    conv, norm, seen = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), []
    conv.register_forward_hook(lambda module, inputs, y: seen.append(y.shape))
    norm(cnn.Tensor(random_array(rng, (1, 5, 5, 1))), None, None, conv)
    assert seen == [(1, 3, 3, 2)]


def test_a_convolution_of_other_channels_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"expected x \(N, H, W, 3\), received \(1, 3, 3, 2\)"):
        nn.BatchNorm2d(3)(cnn.Tensor(random_array(rng, (1, 5, 5, 1))), None, None, nn.Conv2d(1, 2, 3))


def test_autocast_casts_the_parts(emulator: Backend, rng: np.random.Generator) -> None:
    """The convolution in float16; the norm, too, but where the residual is float32."""
    with cnn.use_backend("emulator"):
        x, w, b, weight, bias, residual = tensors(emulator, rng)
        running = [cnn.Tensor(np.full(8, value, np.float32)) for value in (0.0, 1.0)]
        for skip, dtype in ((None, "float16"), (residual.astype("float16"), "float16"), (residual, "float32")):
            with cnn.amp.autocast("float16"):
                parts = (weight, bias, True, 0.0, EPSILON, "relu", skip)
                z = F.conv2d_batch_norm(x, w, b, *running, *parts, **GEOMETRY)
                composed = F.batch_norm(F.conv2d(x, w, b, **GEOMETRY), *running, *parts)
            assert z.dtype == composed.dtype == dtype
            np.testing.assert_allclose(
                z.numpy().astype(np.float32), composed.numpy().astype(np.float32), rtol=2e-3, atol=2e-3
            )
