"""The comparator must reject what it is there to reject."""

from __future__ import annotations

import numpy as np
import pytest

from cnnengine.backends import get

from .compare import LONG_SUM, assert_close, assert_identical, tolerance
from .harness import Guarded

ONE = np.ones((2, 3), np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_accepts_rounding_and_rejects_more(dtype: str) -> None:
    expected = np.linspace(1, 2, 101)
    allowed = tolerance(np.dtype(dtype), 1)
    assert_close((expected * (1 + 0.4 * allowed)).astype(dtype), expected)
    with pytest.raises(AssertionError, match="elements are off"):
        assert_close((expected * (1 + 4 * allowed) + 4 * allowed).astype(dtype), expected)


def test_allows_more_for_longer_sums() -> None:
    expected = np.ones(4)
    actual = np.full(4, 1 + 2e-5, np.float32)
    with pytest.raises(AssertionError):
        assert_close(actual, expected, 1)
    assert_close(actual, expected, 10_000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rejects_what_is_not_finite(bad: float) -> None:
    actual = ONE.copy()
    actual[1, 2] = bad
    with pytest.raises(AssertionError, match=r"in the wrong place at 1 of 6 elements, first at \(1, 2\)"):
        assert_close(actual, ONE)
    with pytest.raises(AssertionError, match="in the wrong place"):
        assert_close(ONE, actual)
    assert_close(actual, actual)
    with pytest.raises(AssertionError):
        assert_close(np.full_like(ONE, bad), ONE)


def test_rejects_wrong_shape_and_dtype() -> None:
    with pytest.raises(AssertionError, match="shape"):
        assert_close(ONE, np.ones((3, 2)))
    with pytest.raises(AssertionError, match="no floating-point type"):
        assert_close(ONE.astype(np.int32), ONE)
    with pytest.raises(AssertionError, match="expected an array"):
        assert_close(1.0, ONE)


def test_identical_means_every_bit() -> None:
    assert_identical(ONE, ONE.copy())
    assert_identical(np.array([np.nan]), np.array([np.nan]))
    with pytest.raises(AssertionError, match="bytes differ"):
        assert_identical(np.array([0.0]), np.array([-0.0]))
    with pytest.raises(AssertionError, match="dtype"):
        assert_identical(ONE, ONE.astype(np.float64))


def test_guards_see_what_was_written_outside_and_what_was_not_written() -> None:
    guarded = Guarded(get("numpy"), (2, 2), "float32")
    guarded.array[0, 0] = 1
    with pytest.raises(AssertionError, match="NaN in the wrong place at 3 of 4"):
        assert_close(guarded.result("x"), np.ones((2, 2)) * [[1, 0], [0, 0]])
    for where, words in ((0, "before the output's start"), (-1, "past the output's end")):
        guarded = Guarded(get("numpy"), (2, 2), "float32")
        guarded.buffer[where] = 0
        with pytest.raises(AssertionError, match=words):
            guarded.result("x")


def test_knows_how_large_the_terms_of_a_cancelling_sum_are() -> None:
    expected, terms = np.array([1e-6]), np.array([10.0])  # 100 terms of size 1 that cancel
    rounded, wrong = (np.array([1e-6 + error], np.float32) for error in (1e-5, 1e-4))
    assert_close(rounded, expected, 100, terms=terms)
    with pytest.raises(AssertionError, match="1 of 1 elements are off"):
        assert_close(wrong, expected, 100, terms=terms)
    with pytest.raises(AssertionError, match="1 of 1 elements are off"):
        assert_close(rounded, expected, 100)


@pytest.mark.parametrize(("algorithm", "short", "long"), [("winograd", 4, 1.5), ("winograd_6x6", 20, 10)])
def test_winograds_rounding_is_allowed_for_and_less_in_long_sums(algorithm: str, short: float, long: float) -> None:
    """Of terms of size 1 where the result is 0: 3 * 2^-24 * sqrt(R) * 2, times the growth, plus half a unit twice"""
    expected, terms = np.zeros(4), np.ones(4)
    for reduction, growth in ((LONG_SUM - 1, short), (LONG_SUM, long)):
        allowed = 2 * 2.0**-24 * (3 * growth * reduction**0.5 + 1)
        for share in (0.99, 1.01):
            actual = np.full(4, share * allowed, np.float32)
            if share < 1:
                assert_close(actual, expected, reduction, terms=terms, algorithm=algorithm)
            else:
                with pytest.raises(AssertionError, match="4 of 4 elements are off"):
                    assert_close(actual, expected, reduction, terms=terms, algorithm=algorithm)
