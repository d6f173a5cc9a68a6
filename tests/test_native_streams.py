"""Large aligned outputs are stored past the caches: the same bits as in one that is not aligned, stored as usual."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cnnengine import backends
from cnnengine.backends.contract import IDENTITY
from cnnengine.shapes import conv2d_shape, pool2d_shape

pytest.importorskip("cnnengine._native", reason="the native extension is not built")
NATIVE = backends.get("native")
ALIGNMENT = 64
LARGE = (3, 129, 128, 48)  # 9.5 MB: more than STREAM_BYTES of csrc/cpu/simd.h
CHANNELS = LARGE[3]
DEPTHWISE = conv2d_shape(LARGE, (CHANNELS, 3, 3, 1), 1, 1, 1, CHANNELS)
DEPTHWISE_STRIDE_2 = conv2d_shape(LARGE, (CHANNELS, 5, 5, 1), 2, 2, 1, CHANNELS)
POOL = pool2d_shape("max_pool2d", LARGE, 3, 1, 1)
POOL_2X2 = pool2d_shape("max_pool2d", LARGE, 3, 2, 1)

Call = Callable[[np.ndarray], None]


def values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def conv2d_forward() -> Call:
    x, w = values(LARGE), values(DEPTHWISE.w, 1)
    return lambda y: NATIVE.conv2d_forward(DEPTHWISE, x, w, y, IDENTITY, None)


def conv2d_backward_input() -> Call:
    dy, w = values(DEPTHWISE_STRIDE_2.y), values(DEPTHWISE_STRIDE_2.w, 1)
    return lambda dx: NATIVE.conv2d_backward_input(DEPTHWISE_STRIDE_2, dy, w, dx, None)


def pool2d_forward(kind: str) -> Call:
    x = values(LARGE)
    return lambda y: NATIVE.pool2d_forward(kind, POOL, x, y, None)


def pool2d_backward(kind: str) -> Call:
    dy, index = values(POOL_2X2.y), None
    if kind == "max":
        index = np.empty(POOL_2X2.y, POOL_2X2.index_dtype)
        NATIVE.pool2d_forward("max", POOL_2X2, values(LARGE), np.empty(POOL_2X2.y, np.float32), index)
    return lambda dx: NATIVE.pool2d_backward(kind, POOL_2X2, dy, index, dx)


CALLS: dict[str, Callable[[], Call]] = {
    "conv2d_forward": conv2d_forward,
    "conv2d_backward_input": conv2d_backward_input,
    "max_pool2d_forward": lambda: pool2d_forward("max"),
    "avg_pool2d_forward": lambda: pool2d_forward("avg"),
    "max_pool2d_backward": lambda: pool2d_backward("max"),
    "avg_pool2d_backward": lambda: pool2d_backward("avg"),
}


def output(offset: int) -> np.ndarray:
    """Of NaN, `offset` bytes past a multiple of ALIGNMENT."""
    room = np.full(4 * np.prod(LARGE) + 2 * ALIGNMENT, 0xFF, np.uint8)
    start = -room.ctypes.data % ALIGNMENT + offset
    return room[start : start + 4 * np.prod(LARGE)].view(np.float32).reshape(LARGE)


@pytest.mark.parametrize("name", CALLS)
def test_a_streamed_output_has_the_same_bits(name: str) -> None:
    call = CALLS[name]()
    aligned, shifted = output(0), output(4)
    call(aligned)
    call(shifted)
    assert not np.isnan(aligned).any(), "not all of the output is written"
    np.testing.assert_array_equal(aligned, shifted)
