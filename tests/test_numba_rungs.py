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

from . import numba_simulator
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


def agree(
    launch: Any,
    shape: Conv2dShape,
    rung: Any,
    rng: np.random.Generator,
    prepare: Callable[[Any], Any] = np.asarray,
    **block: Any,
) -> None:
    """The rung's three passes on ``prepare``d operands, with every part of the epilogue, against the float64 oracle."""
    x, w, dy = (prepare(rng.standard_normal(s).astype(np.float32)) for s in (shape.x, shape.w, shape.y))
    residual = rng.standard_normal(shape.y).astype(np.float32)
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
    chosen = import_module("cnnengine.kernels.simt_tile").TILES[tile : tile + 1]
    agree(launch, shape, import_module("cnnengine.kernels.conv2d_implicit_gemm"), rng, tiles=chosen)


@pytest.mark.parametrize("block", [3, 16])
def test_direct(launch: Any, block: int, rng: np.random.Generator) -> None:
    shape = conv2d_shape((1, 4, 5, 2), (3, 2, 3, 2), (1, 2), 1)
    agree(launch, shape, import_module("cnnengine.kernels.conv2d_direct"), rng, block=block)


def test_tf32_is_refused_by_name_in_the_simulator(launch: Any) -> None:
    backend = get("numba")
    shape = conv2d_shape((1, 3, 3, 2), (2, 2, 2, 2))
    x, w, y = (np.zeros(s, np.float32) for s in (shape.x, shape.w, shape.y))
    with pytest.raises(Unsupported, match=r"implicit_gemm_tf32: Numba's simulator has no tensor cores"):
        backend.conv2d_forward(shape, x, w, y, Epilogue(), "implicit_gemm_tf32")
    with pytest.raises(Unsupported, match=r"implicit_gemm_tf32: Numba's simulator has no tensor cores"):
        backend.conv2d_backward_input(shape, y, w, x, "implicit_gemm_tf32")
    with pytest.raises(Unsupported, match=r"implicit_gemm_tf32: Numba's simulator has no tensor cores"):
        backend.conv2d_backward_weight(shape, x, y, w, "implicit_gemm_tf32")


def rounded_to_tf32(value: Any) -> Any:
    """10 bits of significand, ties away from zero, as csrc/emulator/tensor_cores.h rounds."""
    bits = np.asarray(value, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


class Warps:
    """``mma.sync.m16n8k8`` in the simulator: the threads of a block meet, and each warp's fragments become matrices as
    csrc/emulator/fragments.cpp lays them out, after the PTX manual's "Matrix Fragments for mma.m16n8k8"."""

    def __init__(self) -> None:
        self.fragments: dict[int, tuple[np.float32, ...]] = {}
        self.products = 0

    def mma_m16n8k8(self, *fragments: np.float32) -> list[np.float32]:
        running = numba_simulator._launch
        me = running.thread
        self.fragments[me] = fragments
        running.barrier(1)
        first = me // 32 * 32
        a, b = np.empty((16, 8), np.float32), np.empty((8, 8), np.float32)
        for lane in range(32):
            g, t = lane // 4, lane % 4
            _, _, _, _, a[g, t], a[g + 8, t], a[g, t + 4], a[g + 8, t + 4], b[t, g], b[t + 4, g] = self.fragments[
                first + lane
            ]
        g, t = me % 32 // 4, me % 4
        places = (g, 2 * t), (g, 2 * t + 1), (g + 8, 2 * t), (g + 8, 2 * t + 1)
        self.products += me == first
        running.barrier(1)
        return [d + np.dot(a[m], b[:, n]) for d, (m, n) in zip(fragments[:4], places, strict=True)]


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "dilation", "groups"),
    [
        ((1, 5, 7, 3), (18, 2, 3, 3), (1, 2), 1, 1, 1),  # several tiles along each side, a last step not full
        ((1, 6, 7, 6), (4, 3, 2, 3), (2, 3), (1, 2), (2, 1), 2),  # phases of different taps, two groups
    ],
)
def test_implicit_gemm_mma(
    launch: Any, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int, rng: Any, monkeypatch: Any
) -> None:
    """The kernels on tensor cores, with the instruction stood in for: every lane's fragments hold what it multiplies.

    The operands are TF32 numbers already, so that the bound is float32's.
    """
    if numba_simulator.why_not():
        pytest.skip(f"the scheduler where warps can meet is not in place: {numba_simulator.why_not()}")
    warps, mma_tile = Warps(), import_module("cnnengine.kernels.mma_tile")
    monkeypatch.setattr(mma_tile, "mma_m16n8k8", warps.mma_m16n8k8)
    monkeypatch.setattr(mma_tile, "tf32", rounded_to_tf32)
    monkeypatch.setattr(launch, "no_tf32", lambda: None)
    shape = conv2d_shape(x, w, stride, padding, dilation, groups)
    agree(launch, shape, import_module("cnnengine.kernels.conv2d_implicit_gemm_mma"), rng, rounded_to_tf32)
    assert warps.products > 0


def test_the_operands_are_rounded_to_tf32(launch: Any, monkeypatch: Any) -> None:
    if numba_simulator.why_not():
        pytest.skip(f"the scheduler where warps can meet is not in place: {numba_simulator.why_not()}")
    mma_tile = import_module("cnnengine.kernels.mma_tile")
    monkeypatch.setattr(mma_tile, "mma_m16n8k8", Warps().mma_m16n8k8)
    monkeypatch.setattr(mma_tile, "tf32", rounded_to_tf32)
    monkeypatch.setattr(launch, "no_tf32", lambda: None)
    shape = conv2d_shape((1, 1, 1, 1), (1, 1, 1, 1))
    x, w = np.full(shape.x, 1 + 2.0**-12, np.float32), np.full(shape.w, 1 + 2.0**-11, np.float32)
    y = np.empty(shape.y, np.float32)
    import_module("cnnengine.kernels.conv2d_implicit_gemm_mma").forward(launch, shape, x, w, y, Epilogue())
    assert y.item() == 1 + 2.0**-10  # 1 + 2^-12 falls to 1, 1 + 2^-11 is a tie and rises
