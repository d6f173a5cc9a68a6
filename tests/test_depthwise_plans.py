"""Which depthwise kernel of csrc/cuda runs a shape: the choice behind ``algorithm=None``, what is refused, and that a
plan names a kernel that exists and fits a GPU."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cnnengine._paths import csrc_dir
from cnnengine.backends import _conv2d_plans as plans
from cnnengine.backends import _depthwise_plans as depthwise
from cnnengine.backends import _kernel_library as library
from cnnengine.errors import Unsupported
from cnnengine.shapes import Conv2dShape, conv2d_shape

from .cases.conv2d import CASES

VERBS = {
    "conv2d_forward": lambda *a: plans.conv2d_forward(*a),
    "conv2d_backward_input": lambda *a: plans.conv2d_backward_input(*a)[0],
    "conv2d_backward_weight": lambda *a: plans.conv2d_backward_weight(*a).products,
}
SHARED_BYTES = 48 * 1024  # that every GPU gives a block without being asked
DEPTHWISE = [case for case in CASES if case.groups == case.x[3]]


def shape(C: int, K: int, groups: int, size: int = 3, **geometry: Any) -> Conv2dShape:
    return conv2d_shape((2, 14, 14, C), (K, size, size, C // groups), groups=groups, padding=size // 2, **geometry)


def given(dtype: str, alignment: int = 16) -> plans.Given:
    return plans.Given(dtype, alignment, 90)


@pytest.mark.parametrize("dtype", library.TYPES)
@pytest.mark.parametrize("verb", VERBS)
def test_depthwise_shapes_run_the_depthwise_rung(verb: str, dtype: str) -> None:
    for taken in (shape(32, 32, 32), shape(5, 15, 5), shape(32, 32, 32, 13), shape(6, 6, 6, stride=3, dilation=2)):
        assert VERBS[verb](taken, None, given(dtype)).algorithm == "depthwise"
    for other in (shape(32, 32, 16), shape(32, 32, 1), shape(1, 6, 1), shape(4, 64, 4)):
        assert VERBS[verb](other, None, given(dtype)).algorithm != "depthwise"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (shape(32, 32, 16), r"depthwise: takes one input channel a group .groups == C., received groups 16 and C 32"),
        (
            conv2d_shape((1, 1, 9000, 2), (2, 1, 5000, 1), groups=2),
            "depthwise: takes rows of filters of at most 16384 bytes, received S 5000 in float32",
        ),
        (
            conv2d_shape((1, 1, 9, 2), (2, 1, 1, 1), stride=2**14, dilation=2**14, groups=2),
            r"depthwise: counts pixels and columns up to 2\^30",
        ),
        (conv2d_shape((2**16, 2**8, 2**7, 2), (2, 1, 1, 1), groups=2), r"depthwise: .* received 2147483648 pixels"),
    ],
)
def test_what_is_not_depthwise_is_refused(verb: str, refused: Conv2dShape, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        VERBS[verb](refused, "depthwise", given("float32"))
    assert VERBS[verb](refused, None, given("float32")).algorithm != "depthwise"


@pytest.mark.parametrize(
    ("dtype", "C", "K", "alignment", "vector"),
    [
        ("float32", 8, 8, 16, 4),
        ("float32", 6, 6, 16, 1),
        ("float32", 8, 8, 8, 1),
        ("float32", 8, 16, 16, 1),
        ("float16", 24, 24, 16, 8),
        ("float16", 12, 12, 16, 2),
        ("float16", 24, 24, 4, 2),
        ("float16", 24, 24, 2, 1),
        ("bfloat16", 7, 7, 16, 1),
    ],
)
def test_channels_at_once(dtype: str, C: int, K: int, alignment: int, vector: int) -> None:
    assert depthwise.vector(shape(C, K, C), dtype, alignment) == vector


@pytest.mark.parametrize("dtype", library.TYPES)
@pytest.mark.parametrize("verb", VERBS)
def test_common_filters_have_kernels_of_their_own(verb: str, dtype: str) -> None:
    vector = 16 // library.ITEM_BYTES[dtype]
    for size, stride in product((3, 5, 7), (1, 2)):
        kernel = VERBS[verb](shape(32, 32, 32, size, stride=stride), None, given(dtype)).launch.kernel
        if verb != "conv2d_backward_weight":
            assert kernel == f"{verb}_depthwise<{{T}}, Conv2dShape, {vector}, {size}, {stride}>"
        elif stride == 1:
            assert kernel.endswith(f", {size}>")


@pytest.mark.parametrize("dtype", library.TYPES)
@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_plans_name_kernels_of_the_library_and_fit_a_gpu(case: Any, dtype: str) -> None:
    listed = library.templates("conv2d/depthwise", dtype)
    for verb, alignment in product(VERBS, (16, 4, 2)):
        launch = VERBS[verb](case.shape, "depthwise", given(dtype, alignment)).launch
        x, y, z = launch.block
        assert launch.kernel in listed
        assert 0 < x * y * z <= 256
        assert z <= 64
        assert 0 < launch.shared_bytes <= SHARED_BYTES


def test_constants_are_those_of_the_kernels() -> None:
    folder = Path(csrc_dir(), "cuda", "conv2d")
    window, kernels = ((folder / name).read_text() for name in ("sliding_window.cuh", "depthwise.cuh"))
    for text, pattern, value in (
        (window, r"int BYTES = (\d+);", depthwise.FILTER_BYTES),
        (window, r"\(VECTOR == 8 \? (\d+) : \d\)", depthwise.STRIP[8]),
        (window, r"\(VECTOR == 8 \? \d : (\d+)\)", depthwise.STRIP[4]),
        (window, r"RUN_LENGTH = (\d+);", depthwise.RUN_LENGTH),
        (kernels, r"DEPTHWISE_THREADS = (\d+);", depthwise.THREADS),
    ):
        assert re.findall(pattern, text) == [str(value)]
