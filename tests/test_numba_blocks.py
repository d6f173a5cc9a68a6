"""The block size is a parameter of every kernel: results do not depend on it where products are added in the order of a
reduction, and only in their last bits where a tree of threads adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnengine.backends import get
from cnnengine.backends.contract import IDENTITY, Epilogue
from cnnengine.shapes import (
    broadcast_shape,
    conv2d_shape,
    gemm_shape,
    norm_shape,
    pool2d_shape,
    reduce_shape,
)

from . import numba_simulator
from .conftest import CHOSEN, REASONS


@pytest.fixture
def launch() -> Any:
    if "numba" not in CHOSEN or REASONS["numba"] is not None:
        pytest.skip(f"backend numba is not tested: {REASONS['numba'] or 'not in CNNENGINE_TEST_BACKENDS'}")
    backend = get("numba")
    if backend.device != "cpu":
        pytest.skip("a GPU is present: the kernels do not run in the simulator")
    return backend.launch


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def results(call: Callable[..., None], blocks: tuple[Any, ...], *outputs: tuple[int, ...]) -> list[list[np.ndarray]]:
    """For each block size, the outputs of ``call(*outputs, block=...)``; they start as NaN."""
    found = []
    for block in blocks:
        made = [np.full(shape, np.nan, np.float32) for shape in outputs]
        call(*made, block=block)
        found.append(made)
    return found


def assert_same(found: list[list[np.ndarray]], rtol: float = 0.0) -> None:
    for first, *others in zip(*found, strict=True):
        assert not np.isnan(first).any()
        for other in others:
            np.testing.assert_allclose(other, first, rtol=rtol, atol=rtol)


def test_elementwise(launch: Any, rng: np.random.Generator) -> None:
    from cnnengine.kernels import activation, binary, dropout, normalize_images, optimizer_step

    x, row = random(rng, 7, 9), random(rng, 9)
    state, pixels = np.array([5, 9], np.uint64), rng.integers(0, 256, (7, 9)).astype(np.uint8)
    shape = broadcast_shape("add", x.shape, row.shape)[1]
    calls: list[Callable[..., None]] = [
        lambda y, block: activation.forward(launch, "silu", x, y, 0.0, block),
        lambda y, block: activation.backward(launch, "silu", x, x, y, 0.0, block),
        lambda y, block: binary.unary(launch, "exp", x, y, block),
        lambda y, block: binary.binary(launch, "add", shape, x, row, y, block),
        lambda y, block: dropout.dropout(launch, x, y, 2**31, 2.0, state, block),
        lambda y, block: normalize_images.normalize(launch, pixels, row, row, y, block),
    ]
    for call in calls:
        assert_same(results(call, (8, 3, 32), (7, 9)))
    for kind, count, hyper in (("sgd", 1, 5), ("adam", 2, 10)):
        found = []
        for block in (8, 5):
            p, states = x.copy(), [np.ones_like(x) for _ in range(count)]
            optimizer_step.step(launch, kind, [p], [x], states, np.linspace(0.1, 0.9, hyper, dtype=np.float32), block)
            found.append([p, *states])
        assert_same(found)


def test_pooling(launch: Any, rng: np.random.Generator) -> None:
    from cnnengine.kernels import pool2d

    shape = pool2d_shape("max_pool2d", (2, 5, 5, 3), 2)
    x, dy, index = random(rng, *shape.x), random(rng, *shape.y), np.zeros(shape.y, shape.index_dtype)
    pool2d.forward(launch, "max", shape, x, np.empty(shape.y, np.float32), index)
    for kind, given in (("max", index), ("avg", None)):
        forward = results(
            lambda y, block, kind=kind: pool2d.forward(launch, kind, shape, x, y, None, block), (8, 5), shape.y
        )
        backward = results(
            lambda dx, block, kind=kind, given=given: pool2d.backward(launch, kind, shape, dy, given, dx, block),
            (8, 5),
            shape.x,
        )
        assert_same(forward)
        assert_same(backward)


def test_trees(launch: Any, rng: np.random.Generator) -> None:
    """Who adds what depends on the block."""
    from cnnengine.kernels import norm, reduce, softmax_cross_entropy

    x, gain = random(rng, 50, 6), random(rng, 6)
    labels = rng.integers(0, 6, 50)
    total = results(lambda y, block: reduce.reduce(launch, "sum", reduce_shape(1, 50, 6), x, y, block), (8, 2), (6,))
    np.testing.assert_allclose(total[1][0], x.astype(np.float64).sum(0), rtol=1e-5, atol=1e-5)
    assert_same(total, 1e-5)
    assert_same(
        results(lambda *y, block: softmax_cross_entropy.forward(launch, x, labels, *y, block), (4, 8), (50,), (50, 6)),
        1e-5,
    )
    probability = np.abs(x)
    assert_same(
        results(
            lambda dx, block: softmax_cross_entropy.backward(
                launch, probability, labels, labels * np.float32(1), dx, block
            ),
            (8, 3),
            (50, 6),
        )
    )
    for shape in (norm_shape(1, 50, 6, 1), norm_shape(50, 1, 1, 6)):  # statistics over columns, and over rows
        known = shape, x, gain, gain, None
        forward = results(
            lambda y, mean, variance, block, known=known: norm.forward(
                launch, *known, y, mean, variance, 1e-5, "relu", block
            ),
            (8, 4),
            x.shape,
            shape.statistics,
            shape.statistics,
        )
        assert_same(forward, 1e-5)
        y, mean, variance = forward[0]
        backward = results(
            lambda *outputs, block, shape=shape, saved=(mean, variance, y): norm.backward(
                launch, shape, x, gain, *saved, x, *outputs, 1e-5, "relu", block
            ),
            (8, 4),
            x.shape,
            (6,),
            (6,),
            x.shape,
        )
        assert_same(backward, 1e-4)
    epilogue = Epilogue(bias=gain, activation="relu")
    assert_same(results(lambda y, block: norm.apply_epilogue(launch, x, y, epilogue, block), (8, 4), x.shape))
    for block in (12, 16, 0):
        with pytest.raises(ValueError, match=f"expected a power of two of at most 8 threads, received {block}"):
            reduce.reduce(launch, "sum", reduce_shape(1, 50, 6), x, np.empty(6, np.float32), block)


def test_tiles(launch: Any, rng: np.random.Generator) -> None:
    from cnnengine.kernels import conv2d, gemm
    from cnnengine.kernels.mma_tile import TILE as MMA_TILE
    from cnnengine.kernels.mma_tile import mma_tile
    from cnnengine.kernels.simt_tile import TILE as SIMT_TILE
    from cnnengine.kernels.simt_tile import simt_tile
    from cnnengine.kernels.tile import TILE, square_tile

    g = gemm_shape(1, 21, 18, 11, False, False, False, False)
    a, b = random(rng, 21, 11), random(rng, 11, 18)
    tiles = (TILE, square_tile(16, 8, 4))
    assert_same(results(lambda c, block: gemm.gemm(launch, g, a, b, c, IDENTITY, block), tiles, (21, 18)))

    shape = conv2d_shape((1, 7, 6, 4), (18, 3, 2, 4), 2, 1)
    x, w, dy = random(rng, *shape.x), random(rng, *shape.w), random(rng, *shape.y)
    rungs: dict[str, tuple[Any, ...]] = {
        "direct": (8, 3),
        "tiled": tiles,
        "implicit_gemm": (SIMT_TILE, simt_tile(32, 32, 8, 2, 1), simt_tile(16, 32, 4, 1, 1)),
    }
    if not numba_simulator.why_not():
        rungs["implicit_gemm_tf32"] = (MMA_TILE, mma_tile(32, 32, 8, 2, 1), mma_tile(32, 16, 16, 1, 1))
    for rung, sizes in rungs.items():
        forward = results(
            lambda y, block, rung=rung: conv2d.forward(launch, shape, x, w, y, IDENTITY, rung, block), sizes, shape.y
        )
        backward = results(
            lambda dx, block, rung=rung: conv2d.backward_input(launch, shape, dy, w, dx, rung, block), sizes, shape.x
        )
        weight = results(
            lambda dw, block, rung=rung: conv2d.backward_weight(launch, shape, x, dy, dw, rung, block), sizes, shape.w
        )
        assert_same(forward)
        assert_same(backward)
        assert_same(weight, 1e-5)  # split as the tiles fall
    with pytest.raises(ValueError, match="the threads do not load the tile equally often"):
        square_tile(12, 8, 4)
    with pytest.raises(ValueError, match="warps of 2 x 4 threads do not cover the tile exactly"):
        simt_tile(16, 20, 4, 1, 1)
    with pytest.raises(ValueError, match="fragments of 16 x 8, two side by side, do not cover the tile"):
        mma_tile(16, 8, 8, 1, 1)


def test_depthwise(launch: Any, rng: np.random.Generator) -> None:
    from cnnengine.kernels import conv2d

    shape = conv2d_shape((2, 7, 9, 5), (10, 3, 3, 1), 2, 1, 1, 5)
    x, w, dy = random(rng, *shape.x), random(rng, *shape.w), random(rng, *shape.y)
    sizes = (8, 2)
    verb = "depthwise"
    assert_same(results(lambda y, block: conv2d.forward(launch, shape, x, w, y, IDENTITY, verb, block), sizes, shape.y))
    assert_same(results(lambda dx, block: conv2d.backward_input(launch, shape, dy, w, dx, verb, block), sizes, shape.x))
    weight = results(lambda dw, block: conv2d.backward_weight(launch, shape, x, dy, dw, verb, block), sizes, shape.w)
    assert_same(weight, 1e-5)
