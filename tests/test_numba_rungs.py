"""The convolution rungs of kernels/ in the simulator, for what the case lists leave open: several block sizes each, and
the depthwise geometries whose strips, phases and staged rows differ."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from cnnengine.backends import get
from cnnengine.backends.contract import Epilogue
from cnnengine.errors import Unsupported
from cnnengine.shapes import Conv2dShape, conv2d_shape

from .conftest import CHOSEN, REASONS
from .harness import oracle


@pytest.fixture
def launch() -> Any:
    if "numba" not in CHOSEN or REASONS["numba"] is not None:
        pytest.skip(f"backend numba is not tested: {REASONS['numba'] or 'not in CNNENGINE_TEST_BACKENDS'}")
    backend: Any = get("numba")
    if backend.device != "cpu":
        pytest.skip("a GPU is present: the kernels do not run in the simulator")
    return backend.launch


def agree(launch: Any, shape: Conv2dShape, rung: Any, rng: np.random.Generator, **block: Any) -> None:
    """The rung's three passes, with every part of the epilogue, against the float64 oracle."""
    x, w, dy, residual = (rng.standard_normal(s).astype(np.float32) for s in (shape.x, shape.w, shape.y, shape.y))
    bias, scale, shift = (rng.standard_normal(shape.K).astype(np.float32) for _ in range(3))
    epilogue = Epilogue(bias, scale, shift, residual, "relu")
    passes: list[tuple[tuple[int, ...], Callable[[Any], None], Callable[[Any], None]]] = [
        (
            shape.y,
            lambda out: rung.forward(launch, shape, x, w, out, epilogue, **block),
            lambda out: oracle().conv2d_forward(shape, x, w, out, epilogue, None),
        ),
        (
            shape.x,
            lambda out: rung.backward_input(launch, shape, dy, w, out, **block),
            lambda out: oracle().conv2d_backward_input(shape, dy, w, out, None),
        ),
        (
            shape.w,
            lambda out: rung.backward_weight(launch, shape, x, dy, out, **block),
            lambda out: oracle().conv2d_backward_weight(shape, x, dy, out, None),
        ),
    ]
    for size, ours, theirs in passes:
        actual, expected = np.full(size, np.nan, np.float32), np.empty(size, np.float32)
        ours(actual)
        theirs(expected)
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("threads", [4, 8])
@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "dilation"),
    [
        ((2, 5, 6, 3), (6, 3, 3, 1), 1, 1, 1),  # two filters a channel
        ((1, 5, 11, 5), (5, 2, 3, 1), (2, 2), 1, (1, 3)),  # two phases, strips that interleave
        ((1, 6, 13, 2), (2, 2, 4, 1), (3, 4), (0, 5), (2, 2)),  # stride and dilation with a common divisor
        ((1, 9, 7, 5), (5, 5, 7, 1), 1, (2, 3), 1),  # more rows of filters than are staged at once
        ((1, 7, 4, 2), (4, 2, 1, 1), (2, 5), 0, 1),  # pixels that no tap reaches
    ],
)
def test_depthwise(
    launch: Any, threads: int, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, rng: np.random.Generator
) -> None:
    shape = conv2d_shape(x, w, stride, padding, dilation, x[3])
    agree(launch, shape, import_module("cnnengine.kernels.conv2d_depthwise"), rng, threads=threads)


def test_depthwise_refuses_by_name(launch: Any) -> None:
    rung = import_module("cnnengine.kernels.conv2d_depthwise")
    with pytest.raises(Unsupported, match=r"takes one input channel a group .* received groups 2 and C 4"):
        rung.refuse(conv2d_shape((1, 4, 4, 4), (2, 3, 3, 2), 1, 0, 1, 2), 8)
    with pytest.raises(Unsupported, match=r"at most 16 taps, received S 17"):
        rung.refuse(conv2d_shape((1, 4, 20, 2), (2, 1, 17, 1), 1, 0, 1, 2), 8)
    with pytest.raises(Unsupported, match=r"blocks of 4 to 8 threads, received 9"):
        rung.refuse(conv2d_shape((1, 4, 4, 2), (2, 3, 3, 1), 1, 0, 1, 2), 9)


@pytest.mark.parametrize("tile", [0, 1], ids=["large", "small"])
@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "dilation", "groups"),
    [
        ((1, 5, 7, 3), (18, 2, 3, 3), (1, 2), 1, 1, 1),  # several tiles along each side, a last step not full
        ((1, 6, 7, 6), (4, 3, 2, 3), (2, 3), (1, 2), (2, 1), 2),  # phases of different taps, two groups
    ],
)
def test_implicit_gemm(
    launch: Any, tile: int, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int, rng: Any
) -> None:
    shape = conv2d_shape(x, w, stride, padding, dilation, groups)
    chosen = import_module("cnnengine.kernels.simt_tile").TILES[tile]
    agree(launch, shape, import_module("cnnengine.kernels.conv2d_implicit_gemm"), rng, tile=chosen)


@pytest.mark.parametrize("block", [3, 16])
def test_direct(launch: Any, block: int, rng: np.random.Generator) -> None:
    shape = conv2d_shape((1, 4, 5, 2), (3, 2, 3, 2), (1, 2), 1)
    agree(launch, shape, import_module("cnnengine.kernels.conv2d_direct"), rng, block=block)
