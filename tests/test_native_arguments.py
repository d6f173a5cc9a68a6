"""A wrong call of the native extension raises; it never reads or writes where it must not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnengine import backends
from cnnengine.backends.contract import IDENTITY, Epilogue
from cnnengine.errors import Unsupported
from cnnengine.shapes import broadcast_shape, conv2d_shape, gemm_shape, norm_shape, pool2d_shape, reduce_shape

_native = pytest.importorskip("cnnengine._native", reason="the native extension is not built")

BACKEND = backends.get("native")
CONV = conv2d_shape((2, 6, 6, 4), (8, 3, 3, 4), 1, 1)
POOL = pool2d_shape("max_pool2d", (2, 6, 6, 4), 2)
NORM = norm_shape(2, 4, 2, 3)
GEMM = gemm_shape(1, 3, 5, 4, False, False, False, False)


def floats(shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)


def verbs() -> dict[str, tuple[Callable[..., Any], list[np.ndarray], list[np.ndarray]]]:
    """name -> (call, inputs, outputs)"""
    b = BACKEND
    labels, index, state = np.zeros(3, np.int64), np.zeros(POOL.y, np.uint8), np.zeros(2, np.uint64)
    f, pixels = floats, np.zeros((2, 3), np.uint8)
    row, square, pair = reduce_shape(2, 3, 4), broadcast_shape("add", (2, 3), (2, 3))[1], (f((7,)), f((7,)))
    return {
        "conv2d_forward": (
            lambda x, w, y: b.conv2d_forward(CONV, x, w, y, IDENTITY, None),
            [f(CONV.x), f(CONV.w)],
            [f(CONV.y)],
        ),
        "conv2d_epilogue": (
            lambda bias, scale, shift, residual, y: b.conv2d_forward(
                CONV, f(CONV.x), f(CONV.w), y, Epilogue(bias, scale, shift, residual), None
            ),
            [f((8,)), f((8,)), f((8,)), f(CONV.y)],
            [f(CONV.y)],
        ),
        "conv2d_backward_input": (
            lambda dy, w, dx: b.conv2d_backward_input(CONV, dy, w, dx, None),
            [f(CONV.y), f(CONV.w)],
            [f(CONV.x)],
        ),
        "conv2d_backward_weight": (
            lambda x, dy, dw: b.conv2d_backward_weight(CONV, x, dy, dw, None),
            [f(CONV.x), f(CONV.y)],
            [f(CONV.w)],
        ),
        "conv2d_prepare": (lambda w: b.conv2d_prepare(CONV, w, None), [f(CONV.w)], []),
        "max_pool2d_forward": (
            lambda x, y, i: b.pool2d_forward("max", POOL, x, y, i),
            [f(POOL.x)],
            [f(POOL.y), index],
        ),
        "max_pool2d_backward": (
            lambda dy, i, dx: b.pool2d_backward("max", POOL, dy, i, dx),
            [f(POOL.y), index],
            [f(POOL.x)],
        ),
        "avg_pool2d_forward": (lambda x, y: b.pool2d_forward("avg", POOL, x, y, None), [f(POOL.x)], [f(POOL.y)]),
        "avg_pool2d_backward": (
            lambda dy, dx: b.pool2d_backward("avg", POOL, dy, None, dx),
            [f(POOL.y)],
            [f(POOL.x)],
        ),
        "activation_backward": (lambda s, dy, dx: b.activation_backward("relu", s, dy, dx, 0.0), list(pair), [f((7,))]),
        "reduce": (lambda x, y: b.reduce("sum", row, x, y), [f((2, 3, 4))], [f((2, 4))]),
        "gemm": (lambda a, c, d: b.gemm(GEMM, a, c, d, IDENTITY), [f((3, 4)), f((4, 5))], [f((3, 5))]),
        "apply_epilogue": (
            lambda x, bias, scale, shift, residual, y: b.apply_epilogue(x, y, Epilogue(bias, scale, shift, residual)),
            [f((3, 5)), f((5,)), f((5,)), f((5,)), f((3, 5))],
            [f((3, 5))],
        ),
        "norm_forward": (
            lambda x, gain, offset, residual, y, mean, variance: b.norm_forward(
                NORM, x, gain, offset, residual, y, mean, variance, 1e-5, "relu"
            ),
            [f(NORM.x), f((6,)), f((6,)), f(NORM.x)],
            [f(NORM.x), f((2, 2)), f((2, 2))],
        ),
        "norm_backward": (
            lambda x, gain, mean, variance, y, dy, *out: b.norm_backward(
                NORM, x, gain, mean, variance, y, dy, *out, 1e-5, "relu"
            ),
            [f(NORM.x), f((6,)), f((2, 2)), f((2, 2)), f(NORM.x), f(NORM.x)],
            [f(NORM.x), f((6,)), f((6,)), f(NORM.x)],
        ),
        "softmax_cross_entropy_forward": (
            b.softmax_cross_entropy_forward,
            [f((3, 5)), labels],
            [f((3,)), f((3, 5))],
        ),
        "softmax_cross_entropy_backward": (
            b.softmax_cross_entropy_backward,
            [f((3, 5)), labels, f((3,))],
            [f((3, 5))],
        ),
        "normalize_images": (b.normalize_images, [pixels, f((3,)), f((3,))], [f((2, 3))]),
        "dropout": (lambda x, s, y: b.dropout(x, y, 1 << 31, 2.0, s), [f((9,)), state], [f((9,))]),
        "sgd": (
            lambda g, h, p, v: b.optimizer_step("sgd", [p], [g], [v], h),
            [f((7,)), f((5,))],
            [f((7,)), f((7,))],
        ),
        "adam": (
            lambda g, h, p, m, v: b.optimizer_step("adam", [p], [g], [m, v], h),
            [f((7,)), f((10,))],
            [f((7,)), f((7,)), f((7,))],
        ),
        "binary": (lambda a, c, y: b.binary("add", square, a, c, y), [f((2, 3)), f((2, 3))], [f((2, 3))]),
    }


VERBS = verbs()
ARGUMENTS = [(name, i) for name, (_, ins, outs) in VERBS.items() for i in range(len(ins) + len(outs))]


@pytest.mark.parametrize("name", VERBS)
def test_right_arguments_are_accepted(name: str) -> None:
    call, inputs, outputs = VERBS[name]
    call(*inputs, *outputs)


@pytest.mark.parametrize(("name", "i"), ARGUMENTS)
def test_wrong_dtype_is_a_type_error(name: str, i: int) -> None:
    call, inputs, outputs = VERBS[name]
    arguments = [*inputs, *outputs]
    for dtype in (np.float64, np.float16, np.int16, np.dtype(arguments[i].dtype).newbyteorder()):
        if np.dtype(dtype) == arguments[i].dtype:  # one byte has no order
            continue
        with pytest.raises(TypeError, match="received"):
            call(*arguments[:i], arguments[i].astype(dtype), *arguments[i + 1 :])


@pytest.mark.parametrize(("name", "i"), ARGUMENTS)
def test_wrong_size_is_a_value_error(name: str, i: int) -> None:
    call, inputs, outputs = VERBS[name]
    arguments = [*inputs, *outputs]
    whole = arguments[i]
    for wrong in (np.concatenate([whole, whole]), whole[: len(whole) - 1].copy(), whole[:0].copy()):
        with pytest.raises(ValueError, match="must be"):
            call(*arguments[:i], wrong, *arguments[i + 1 :])


@pytest.mark.parametrize(("name", "i"), ARGUMENTS)
def test_strided_array_is_a_value_error(name: str, i: int) -> None:
    call, inputs, outputs = VERBS[name]
    arguments = [*inputs, *outputs]
    whole = arguments[i]
    strided = np.repeat(whole[..., None], 2, axis=-1)[..., 0]
    assert not strided.flags.c_contiguous
    with pytest.raises(ValueError, match="not C-contiguous"):
        call(*arguments[:i], strided, *arguments[i + 1 :])


@pytest.mark.parametrize("name", [name for name, (_, _, outs) in VERBS.items() if outs])
def test_read_only_output_is_a_value_error(name: str) -> None:
    call, inputs, outputs = VERBS[name]
    for i in range(len(outputs)):
        given = [o.copy() for o in outputs]
        given[i].setflags(write=False)
        with pytest.raises(ValueError, match="is written, received a read-only array"):
            call(*inputs, *given)


def test_misaligned_array_is_a_value_error() -> None:
    raw = np.zeros(4 * 7 + 1, np.uint8)
    misaligned = raw[1:].view(np.float32)
    with pytest.raises(ValueError, match="must be a C-contiguous float32 array"):
        _native.activation_forward(1, misaligned, floats((7,)), 0.0)


@pytest.mark.parametrize("wrong", [None, [1.0], 3, "x"])
def test_what_is_no_array_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError):
        BACKEND.activation_forward("relu", wrong, floats((1,)), 0.0)
    with pytest.raises(TypeError):
        BACKEND.conv2d_forward(CONV, wrong, floats(CONV.w), floats(CONV.y), IDENTITY, None)


@pytest.mark.parametrize("length", [0, 4, 63, 68])
def test_wrong_packed_shape_is_a_value_error(length: int) -> None:
    with pytest.raises(ValueError, match=f"expected a packed shape of 64 bytes, received {length}"):
        _native.conv2d_backward_input(bytes(length), floats(CONV.y), floats(CONV.w), floats(CONV.x), None)


def test_impossible_members_are_a_value_error() -> None:
    for i in (0, 4, 7, 11, 13, 14):  # N, K, stride_h, dilation_h, groups, P
        for value in (0, -1):
            members = np.frombuffer(CONV.packed, np.int32).copy()
            members[i] = value
            with pytest.raises(ValueError, match=r"the shape's member|do not divide"):
                _native.conv2d_forward(
                    members.tobytes(), floats(CONV.x), floats(CONV.w), None, floats(CONV.y),
                    None, None, None, None, 0, 0.0, None,
                )  # fmt: skip


@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_label_out_of_range_is_a_value_error(label: int) -> None:
    labels = np.array([0, label, 1])
    with pytest.raises(ValueError, match=rf"label {label} of row 1 is not in \[0, 5\)"):
        BACKEND.softmax_cross_entropy_forward(floats((3, 5)), labels, floats((3,)), floats((3, 5)))


def test_wrong_pooling_index_stays_inside() -> None:
    """An index that no window holds gives no gradient."""
    index = np.full(POOL.y, 255, np.uint8)
    dx = np.full(POOL.x, np.nan, np.float32)
    BACKEND.pool2d_backward("max", POOL, floats(POOL.y), index, dx)
    assert (dx == 0).all()


def test_algorithm_that_cannot_is_refused() -> None:
    with pytest.raises(Unsupported, match="native: conv2d_forward cannot use 'depthwise'"):
        BACKEND.conv2d_forward(CONV, floats(CONV.x), floats(CONV.w), floats(CONV.y), IDENTITY, "depthwise")
    with pytest.raises(Unsupported, match="native: conv2d_forward cannot use 'columns'"):
        BACKEND.conv2d_prepare(CONV, floats(CONV.w), "columns")
    with pytest.raises(ValueError, match="unknown algorithm 'magic'"):
        _native.conv2d_forward(
            CONV.packed, floats(CONV.x), floats(CONV.w), None, floats(CONV.y),
            None, None, None, None, 0, 0.0, "magic",
        )  # fmt: skip


def test_packed_weight_of_another_size_is_refused() -> None:
    packed = BACKEND.conv2d_prepare(CONV, floats(CONV.w), None).packed
    with pytest.raises(ValueError, match="prepared weight must be"):
        _native.conv2d_forward(
            CONV.packed, floats(CONV.x), floats(CONV.w), packed[1:], floats(CONV.y),
            None, None, None, None, 0, 0.0, "implicit_gemm",
        )  # fmt: skip


def test_sgd_wants_a_gradient_and_a_velocity_for_each_parameter() -> None:
    p, hyper = floats((4,)), np.array([0.1, 0.9, 0, 0, 1], np.float32)
    with pytest.raises(ValueError, match="one gradient a parameter"):
        BACKEND.optimizer_step("sgd", [p, p], [p], [p, p], hyper)
    with pytest.raises(ValueError, match="1 states a parameter"):
        BACKEND.optimizer_step("sgd", [p], [p], [], hyper)


def test_call_on_one_element_is_cheap() -> None:
    """A bound that only a conversion, a lock or a thread would break; benchmarks measure the cost itself."""
    shape = conv2d_shape((1, 1, 1, 1), (1, 1, 1, 1))
    x, w, y = floats(shape.x), floats(shape.w), floats(shape.y)
    best = float("inf")
    for _ in range(50):
        start = time.perf_counter()
        for _ in range(100):
            BACKEND.conv2d_forward(shape, x, w, y, IDENTITY, None)
        best = min(best, (time.perf_counter() - start) / 100)
    assert best < 20e-6
