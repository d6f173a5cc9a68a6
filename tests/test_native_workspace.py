"""Scratch memory of the native convolutions: counted, and never more of it for activations than input and output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import cnnengine as cnn
from bench.accuracy import convolved
from bench.layers import CONV2D, Conv2dLayer
from cnnengine import backends
from cnnengine.backends.contract import CONV2D_VERBS, IDENTITY
from cnnengine.backends.native import workspace_of
from cnnengine.shapes import Conv2dShape, conv2d_shape

_native = pytest.importorskip("cnnengine._native", reason="the native extension is not built")

BACKEND = backends.get("native")
FEW_BYTES = 1 << 19  # a thread may have for panels, whose channels are whole vectors, and for address tables


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    count = cnn.get_num_threads()
    yield
    cnn.set_num_threads(count)


@st.composite
def convolutions(draw: st.DrawFn) -> Conv2dShape:
    groups = draw(st.sampled_from([1, 1, 2, 16, 40]))
    c, k = (draw(st.sampled_from([1, 3, 8, 17, 64, 100])) if groups <= 2 else 1 for _ in range(2))
    any_filter = st.tuples(st.integers(1, 7), st.integers(1, 7))
    r, s = draw(st.one_of(st.sampled_from([(3, 3), (5, 5)]), any_filter))
    h, w = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    stride, dilation = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 1, 2]))
    padding = draw(st.integers(0, min(3, r - 1, s - 1)))  # a picture of padding alone is copied whole
    assume(min(h, w) + 2 * padding > dilation * (max(r, s) - 1))
    few = groups == 1 and c < 16  # channels, where lanes may be images
    x = (draw(st.sampled_from([1, 2, 5, 17, 33, 40]) if few else st.integers(1, 5)), h, w, groups * c)
    return conv2d_shape(x, (groups * k, r, s, c), stride, padding, dilation, groups)


def convolution_workspace(shape: Conv2dShape, verb: str, algorithm: str | None) -> tuple[int, int]:
    arrays = {name: np.ones(getattr(shape, name), np.float32) for name in ("x", "w", "y")}
    return workspace_of(lambda: convolved(BACKEND, verb, shape, arrays, algorithm))


@pytest.mark.parametrize("layer", CONV2D, ids=lambda layer: layer.name)
@pytest.mark.parametrize("verb", CONV2D_VERBS)
def test_layers_take_no_more_scratch_than_input_and_output(layer: Conv2dLayer, verb: str) -> None:
    for shape in (layer.shape, replace(layer, N=min(layer.N, 2)).shape):
        activations, weights = convolution_workspace(shape, verb, None)
        assert 0 <= activations <= 4 * (prod(shape.x) + prod(shape.y))
        assert weights >= 0


@settings(max_examples=150, deadline=None)
@given(convolutions(), st.sampled_from(CONV2D_VERBS), st.integers(1, 3))
@example(
    conv2d_shape((40, 3, 17, 1), (1, 5, 5, 1), 2, 3, 2, 1), "conv2d_backward_weight", 1
)  # 8 outputs read 207 inputs
def test_random_shapes_take_no_more_scratch_than_input_and_output(shape: Conv2dShape, verb: str, threads: int) -> None:
    cnn.set_num_threads(threads)
    limit = max(4 * (prod(shape.x) + prod(shape.y)), FEW_BYTES * threads)
    for algorithm in BACKEND.algorithms[verb]:
        if _native.conv2d_can(CONV2D_VERBS.index(verb), shape.packed, algorithm):
            activations, _ = convolution_workspace(shape, verb, algorithm)
            assert activations <= limit, f"{algorithm}: {activations} bytes, the limit is {limit}"


@pytest.mark.parametrize("verb", CONV2D_VERBS)
def test_weights_scratch_does_not_grow_with_the_batch(verb: str) -> None:
    cnn.set_num_threads(1)  # of two, a busy machine may let one take all of a small batch
    few, many = (conv2d_shape((n, 14, 14, 6), (16, 5, 5, 6)) for n in (320, 3200))
    assert convolution_workspace(many, verb, None)[1] <= convolution_workspace(few, verb, None)[1]


def test_workspace_is_counted_once_a_thread_and_purpose() -> None:
    shape = conv2d_shape((2, 9, 9, 16), (32, 3, 3, 16), 1, 1)
    once = convolution_workspace(shape, "conv2d_forward", "implicit_gemm")
    x, w, y = (np.ones(axes, np.float32) for axes in (shape.x, shape.w, shape.y))

    def thrice() -> None:
        for _ in range(3):
            BACKEND.conv2d_forward(shape, x, w, y, IDENTITY, "implicit_gemm")

    cnn.set_num_threads(1)
    assert once[1] >= 4 * prod(shape.w), "the packed weights are counted"
    assert workspace_of(thrice) == convolution_workspace(shape, "conv2d_forward", "implicit_gemm")
    assert workspace_of(lambda: None) == (0, 0)
