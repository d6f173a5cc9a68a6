"""Winograd's convolution: its stated accuracy, the switch that forbids it, prepared weights, threads, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from bench.accuracy import convolved
from cnnengine import nn
from cnnengine.backends.contract import CONV2D_VERBS
from cnnengine.backends.native import workspace_of
from cnnengine.data import digits
from cnnengine.shapes import Conv2dShape, conv2d_shape

from .harness import oracle

_native = pytest.importorskip("cnnengine._native", reason="the native extension is not built")
BACKEND = cnn.backends.get("native")
# Rounding errors, times those of implicit_gemm: (root mean square, largest); docs/semantics.md states them
BOUNDS = {"winograd": (2.0, 2.0), "winograd_6x6": (12.0, 18.0)}
SPARSE_BOUND = (3.0, 4.0)  # 2.99 and 3.9 were measured over many random shapes
SHAPES = {
    "64": conv2d_shape((2, 21, 20, 64), (64, 3, 3, 64), 1, 1),
    "96_to_72": conv2d_shape((2, 18, 17, 96), (72, 3, 3, 96)),
    "128_padding_2": conv2d_shape((2, 14, 14, 128), (128, 3, 3, 128), 1, 2),
    "256": conv2d_shape((2, 14, 14, 256), (256, 3, 3, 256), 1, 1),
    "512": conv2d_shape((4, 7, 7, 512), (512, 3, 3, 512), 1, 1),
    "5x5_64_to_192": conv2d_shape((1, 27, 27, 64), (192, 5, 5, 64), 1, 2),
    "5x5_96_to_72": conv2d_shape((2, 18, 17, 96), (72, 5, 5, 96)),
    "5x5_192": conv2d_shape((2, 13, 14, 192), (192, 5, 5, 192), 1, 2),
    "5x5_256": conv2d_shape((1, 14, 14, 256), (256, 5, 5, 256), 1, 2),
}


def verbs_with(algorithm: str) -> list[str]:
    return [verb for verb in CONV2D_VERBS if algorithm in BACKEND.algorithms[verb]]


RUNS = [(algorithm, verb) for algorithm in BOUNDS for verb in verbs_with(algorithm)]
COMPUTED = [
    pytest.param(s, algorithm, verb, id=f"{name}-{algorithm}-{verb}")
    for name, s in SHAPES.items()
    for algorithm, verb in RUNS
    if _native.conv2d_can(CONV2D_VERBS.index(verb), s.packed, algorithm)
]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    threads, isa = cnn.get_num_threads(), _native.isa()
    with cnn.allow_winograd(True):
        yield
    cnn.set_num_threads(threads)
    _native.set_isa(isa)


def random(s: Conv2dShape, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(getattr(s, name), dtype=np.float32) for name in ("x", "w", "y")}


def check_accuracy(
    verb: str, s: Conv2dShape, arrays: dict[str, np.ndarray], algorithm: str, bounds: tuple[float, float] | None = None
) -> None:
    exact = convolved(oracle(), verb, s, {name: a.astype(np.float64) for name, a in arrays.items()}, None, np.float64)
    plain, ours = (convolved(BACKEND, verb, s, arrays, name) - exact for name in ("implicit_gemm", algorithm))
    rms, largest = bounds or BOUNDS[algorithm]
    assert np.sqrt(np.mean(ours**2)) <= rms * np.sqrt(np.mean(plain**2))
    assert np.abs(ours).max() <= largest * np.abs(plain).max()


@pytest.mark.parametrize(("shape", "algorithm", "verb"), COMPUTED)
def test_accuracy_on_random_data(shape: Conv2dShape, algorithm: str, verb: str) -> None:
    check_accuracy(verb, shape, random(shape), algorithm)


def test_filters_of_one_size_alone() -> None:
    """forward and backward_input, unlike the gradients of weights"""
    for kernel, algorithms in (((3, 3), list(BOUNDS)), ((5, 5), ["winograd"]), ((3, 5), []), ((4, 4), [])):
        s = conv2d_shape((2, 9, 9, 64), (64, *kernel, 64))
        for verb in (0, 1):
            assert [name for name in BOUNDS if _native.conv2d_can(verb, s.packed, name)] == algorithms
    for options in ((2, 2), (1, 2, 2), (1, 2, 1, 2)):  # stride, padding, dilation, groups
        s = conv2d_shape((2, 17, 17, 64), (64, 5, 5, 32 if len(options) == 4 else 64), *options)
        assert not _native.conv2d_can(0, s.packed, "winograd")


@pytest.mark.parametrize("kernel", [4, 5, 7])
def test_accuracy_of_the_gradients_of_larger_filters(kernel: int) -> None:
    s = conv2d_shape((2, 21, 20, 64), (64, kernel, kernel, 64), 1, 2)
    check_accuracy("conv2d_backward_weight", s, random(s), "winograd")


@pytest.fixture(scope="module")
def trained() -> list[tuple[Conv2dShape, dict[str, np.ndarray]]]:
    """Shapes, activations, weights and gradients of the 3x3 layers of a small network that has learned the digits."""
    data = digits()
    order = np.random.default_rng(0).permutation(len(data.train_labels))[:512]
    pictures, labels = data.normalize(data.train_images[order]), data.train_labels[order]
    cnn.manual_seed(0)
    layers = [nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 96, 3, padding=1)]
    head = nn.Linear(96 * 9, 10)
    parameters = [p for layer in (*layers, head) for p in layer.parameters()]
    optimizer = cnn.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for step in range(40):
        batch = slice(step % 8 * 64, step % 8 * 64 + 64)
        x, kept = cnn.Tensor(pictures[batch]), []
        for layer in layers:
            inputs = x
            y = layer(inputs)
            kept.append((inputs, y))
            x = F.max_pool2d(F.relu(y), 2)
        loss = F.cross_entropy(head(x.reshape((64, -1))), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.5, "the network has not learned"
    result = []
    for layer, (inputs, y) in list(zip(layers, kept, strict=True))[1:]:
        s = conv2d_shape(inputs.shape, layer.weight.shape, 1, 1)
        gradient = np.random.default_rng(1).standard_normal(y.shape, dtype=np.float32)
        result.append((s, {"x": inputs.numpy(), "w": layer.weight.numpy(), "y": gradient}))
    return result


@pytest.mark.parametrize(("algorithm", "verb"), RUNS)
def test_accuracy_in_a_trained_network(trained, algorithm: str, verb: str) -> None:
    for s, arrays in trained:
        check_accuracy(verb, s, arrays, algorithm)


@pytest.mark.parametrize("verb", [verb for verb in verbs_with("winograd") if verb != "conv2d_forward"])
def test_accuracy_with_sparse_gradients(trained, verb: str) -> None:
    """Three quarters zeros: the plain sum has few terms then, and the transforms round as before"""
    for s, arrays in trained:
        kept = np.random.default_rng(2).random(s.y) < 0.25
        check_accuracy(verb, s, {**arrays, "y": arrays["y"] * kept}, "winograd", SPARSE_BOUND)


@pytest.mark.parametrize(("algorithm", "verb"), RUNS)
@pytest.mark.parametrize("isa", _native.isas())
def test_results_do_not_depend_on_the_number_of_threads(algorithm: str, verb: str, isa: str) -> None:
    """Many tiles and few, whose work items are cut differently, and differently for many threads"""
    _native.set_isa(isa)
    for s in (
        conv2d_shape((4, 27, 26, 40), (70, 3, 3, 40), 1, 1),
        conv2d_shape((1, 7, 9, 130), (150, 3, 3, 130), 1, 1),
        conv2d_shape((4, 27, 26, 40), (70, 5, 5, 40), 1, 2),
        conv2d_shape((1, 7, 9, 130), (150, 5, 5, 130), 1, 2),
    ):
        if not _native.conv2d_can(CONV2D_VERBS.index(verb), s.packed, algorithm):
            continue
        arrays, results = random(s), []
        for threads in (1, 2, 5):
            cnn.set_num_threads(threads)
            results.append(convolved(BACKEND, verb, s, arrays, algorithm).tobytes())
        assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(("algorithm", "kernel"), [("winograd", 3), ("winograd", 5), ("winograd_6x6", 3)])
@pytest.mark.parametrize("n", [1, 5])
def test_prepared_weight(algorithm: str, kernel: int, n: int) -> None:
    s = conv2d_shape((1, 15, 14, 40), (70, kernel, kernel, 40), 1, 1)
    arrays = random(s)
    with cnn.use_backend("native"):
        packed = F.conv2d_prepare(s.x, cnn.Tensor(arrays["w"]), padding=1, algorithm=algorithm)
        assert packed.algorithm == algorithm
        x = cnn.Tensor(np.repeat(arrays["x"], n, axis=0))
        plain = F.conv2d(x, cnn.Tensor(arrays["w"]), padding=1, algorithm=algorithm)
        np.testing.assert_array_equal(F.conv2d(x, packed, padding=1).numpy(), plain.numpy())


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize(
    "shape",
    [
        conv2d_shape((8, 56, 56, 64), (64, 3, 3, 64), 1, 1),
        conv2d_shape((8, 7, 7, 512), (512, 3, 3, 512), 1, 1),
        conv2d_shape((1, 7, 7, 512), (512, 3, 3, 512), 1, 1),
        conv2d_shape((2, 13, 13, 384), (256, 3, 3, 384), 1, 1),
        conv2d_shape((16, 27, 27, 64), (192, 5, 5, 64), 1, 2),
        conv2d_shape((1, 7, 7, 256), (256, 5, 5, 256), 1, 2),
    ],
    ids=str,
)
def test_workspace_is_smaller_than_input_and_output(shape: Conv2dShape, threads: int) -> None:
    cnn.set_num_threads(threads)
    arrays = random(shape)
    for verb in verbs_with("winograd"):
        activations, weights = workspace_of(lambda verb=verb: convolved(BACKEND, verb, shape, arrays, "winograd"))
        assert 0 < activations <= arrays["x"].nbytes + arrays["y"].nbytes, verb
        assert weights > 0


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize(
    ("n", "h", "w", "padding"),
    [(1, 3, 3, 0), (1, 1, 1, 1), (2, 1, 5, 3), (3, 4, 7, 2), (5, 7, 7, 1), (7, 8, 5, 0), (9, 2, 3, 1), (70, 5, 4, 1)],
)
def test_tiles_of_weight_gradients_cross_images(n: int, h: int, w: int, padding: int, isa: str) -> None:
    """Mosaics that the batch fills and does not fill, with and without zeros between the images"""
    _native.set_isa(isa)
    s = conv2d_shape((n, h, w, 5), (19, 3, 3, 5), 1, padding)
    check_weight_gradients(s)
    check_weight_gradients(conv2d_shape((n, h + 3, w + 2, 5), (19, 4, 5, 5), 1, padding))
    check_weight_gradients(replace(s, P=s.P + 1, Q=s.Q + 2))  # more padding after the image than before it


def check_weight_gradients(s: Conv2dShape) -> None:
    arrays = random(s)
    wide = {name: a.astype(np.float64) for name, a in arrays.items()}
    exact = convolved(oracle(), "conv2d_backward_weight", s, wide, None, np.float64)
    ours = convolved(BACKEND, "conv2d_backward_weight", s, arrays, "winograd")
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5 * np.sqrt(s.N * s.P * s.Q))


def chosen(s: Conv2dShape, verb: str = "conv2d_forward") -> str:
    return str(_native.conv2d_chosen(CONV2D_VERBS.index(verb), s.packed))


@pytest.mark.skipif(_native.isa() != "avx512", reason="chosen where it was measured")
def test_it_is_chosen_where_products_outweigh_transforms() -> None:
    assert chosen(conv2d_shape((8, 56, 56, 64), (64, 3, 3, 64), 1, 1)) == "winograd"
    assert chosen(conv2d_shape((8, 7, 7, 512), (512, 3, 3, 512), 1, 1)) == "winograd"
    assert chosen(conv2d_shape((8, 56, 56, 3), (64, 3, 3, 3), 1, 1)) == "implicit_gemm"
    assert chosen(conv2d_shape((1, 4, 4, 512), (512, 3, 3, 512), 1, 1)) == "implicit_gemm"
    assert chosen(conv2d_shape((8, 56, 56, 64), (64, 3, 3, 64), 2, 1)) == "implicit_gemm"
    for verb in ("conv2d_forward", "conv2d_backward_input"):
        assert chosen(conv2d_shape((16, 27, 27, 64), (192, 5, 5, 64), 1, 2), verb) == "winograd"
        assert chosen(conv2d_shape((16, 27, 27, 32), (32, 5, 5, 32), 1, 2), verb) == "implicit_gemm"
        assert chosen(conv2d_shape((1, 7, 7, 256), (256, 5, 5, 256), 1, 2), verb) == "implicit_gemm"
    weight = "conv2d_backward_weight"
    assert chosen(conv2d_shape((8, 56, 56, 64), (64, 3, 3, 64), 1, 1), weight) == "winograd"
    assert chosen(conv2d_shape((8, 7, 7, 512), (512, 3, 3, 512), 1, 1), weight) == "winograd"
    assert chosen(conv2d_shape((8, 56, 56, 3), (64, 3, 3, 3), 1, 1), weight) == "implicit_gemm"
    assert chosen(conv2d_shape((16, 27, 27, 64), (192, 5, 5, 64), 1, 2), weight) == "winograd"
    assert chosen(conv2d_shape((1, 7, 7, 512), (512, 3, 3, 512), 1, 1), weight) == "implicit_gemm"
    assert chosen(conv2d_shape((8, 56, 56, 64), (64, 3, 3, 64), 2, 1), weight) == "implicit_gemm"


def test_one_switch_forbids_it() -> None:
    shapes = [conv2d_shape((8, 56, 56, 64), (64, k, k, 64), 1, k // 2) for k in (3, 5)]
    x, w = cnn.Tensor(np.ones((1, 8, 8, 4), np.float32)), cnn.Tensor(np.ones((4, 3, 3, 4), np.float32))
    assert cnn.winograd_allowed()
    with cnn.use_backend("native"):
        packed = F.conv2d_prepare(x.shape, w, algorithm="winograd")
        with cnn.allow_winograd(False):
            assert not cnn.winograd_allowed()
            assert all(chosen(s, verb) == "implicit_gemm" for s in shapes for verb in CONV2D_VERBS)
            words = r"algorithm 'winograd(_6x6)?' is forbidden by cnn.allow_winograd\(False\)"
            for algorithm in BOUNDS:
                with pytest.raises(ValueError, match=words):
                    F.conv2d(x, w, algorithm=algorithm)
            with pytest.raises(ValueError, match=words):
                F.conv2d(x, packed)
            with cnn.algorithms(conv2d_forward="winograd"), pytest.raises(ValueError, match=words):
                F.conv2d(x, w)
        assert cnn.winograd_allowed()
        np.testing.assert_allclose(F.conv2d(x, packed).numpy(), 36, rtol=1e-5)
    cnn.allow_winograd(False)
    assert not cnn.winograd_allowed()
    cnn.allow_winograd()
    assert cnn.winograd_allowed()


def test_a_frozen_layer_follows_the_switch() -> None:
    layer = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    x = cnn.Tensor(np.random.default_rng(0).standard_normal((8, 28, 28, 64), dtype=np.float32))
    layer.freeze()
    with cnn.use_backend("native"):
        layer(x)
        with cnn.allow_winograd(False):
            forbidden = layer(x).numpy()
            plain = F.conv2d(x, layer.weight, padding=1, algorithm="implicit_gemm").numpy()
    np.testing.assert_array_equal(forbidden, plain)


@pytest.mark.parametrize(("value", "allowed"), [("0", "False"), ("1", "True")])
def test_environment(value: str, allowed: str) -> None:
    code = "import cnnengine as cnn; print(cnn.winograd_allowed())"
    environment = {**os.environ, "CNNENGINE_WINOGRAD": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == allowed, done.stderr
