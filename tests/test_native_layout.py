"""The native backend's permutation of axes against NumPy's, for every order of axes and on every instruction set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import cnnengine as cnn
from cnnengine import backends

_native = pytest.importorskip("cnnengine._native", reason="the native extension is not built")
BACKEND = backends.get("native")


@pytest.fixture(params=_native.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def check(shape: tuple[int, ...], axes: tuple[int, ...], dtype: str = "float32") -> None:
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    y = np.full(tuple(shape[a] for a in axes), -1, dtype)
    BACKEND.permute(x, y, axes)
    np.testing.assert_array_equal(y, x.transpose(axes))


def test_every_order_of_four_axes(isa: str) -> None:
    for axes in permutations(range(4)):
        for shape in ((3, 17, 5, 33), (2, 16, 16, 16), (70, 3, 9, 1), (1, 1, 1, 1)):
            check(shape, axes)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 8, 15, 16, 17, 40]), max_size=8), st.randoms(use_true_random=False))
def test_random_orders(sizes: list[int], random: object) -> None:
    assume(np.prod(sizes, dtype=float) < 1e6)
    axes = list(range(len(sizes)))
    random.shuffle(axes)  # type: ignore[attr-defined]
    check(tuple(sizes), tuple(axes))


def test_other_dtypes_and_many_axes_are_numpys() -> None:
    check((3, 4, 5), (2, 0, 1), "float64")
    check((2,) * 10, (9, 0, 8, 1, 7, 2, 6, 3, 5, 4))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    count = cnn.get_num_threads()
    try:
        for threads in (1, 2, 5):
            cnn.set_num_threads(threads)
            check((8, 56, 56, 40), (0, 3, 1, 2))
            check((8, 40, 56, 56), (0, 2, 3, 1))
    finally:
        cnn.set_num_threads(count)


def test_wrong_arguments_raise() -> None:
    x, y = np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32)
    for axes in ((0,), (0, 0), (0, 2), (-1, 0)):
        with pytest.raises(ValueError, match="permute: "):
            _native.permute(x, y, axes)
    with pytest.raises(ValueError, match="y must be a C-contiguous float32 array of 6 elements"):
        _native.permute(x, np.zeros(5, np.float32), (1, 0))
