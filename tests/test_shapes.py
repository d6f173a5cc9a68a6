"""Output sizes against brute force, the C structs against the Python classes, broadcasting against NumPy."""

from __future__ import annotations

import re
import struct
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnengine import shapes
from cnnengine._paths import csrc_dir

SMALL = st.integers(1, 9)


def positions(size: int, window: int, stride: int, before: int, after: int, dilation: int) -> int:
    """Windows of ``dilation * (window - 1) + 1`` that fit, counted one by one"""
    return sum(1 for start in range(-before, size + after, stride) if start + dilation * (window - 1) < size + after)


@given(SMALL, SMALL, SMALL, st.integers(0, 4), st.integers(0, 4), st.integers(1, 4))
def test_output_size_counts_windows(size, window, stride, before, after, dilation) -> None:
    expected = positions(size, window, stride, before, after, dilation)
    assert max(shapes.output_size(size, window, stride, before, after, dilation), 0) == expected


@given(SMALL, SMALL, SMALL, st.data(), st.integers(1, 3))
def test_ceil_mode_adds_a_window_that_starts_inside(size, window, stride, data, dilation) -> None:
    pad = data.draw(st.integers(0, window // 2))
    if size + 2 * pad < dilation * (window - 1) + 1:
        return
    n = shapes.pooled_size(size, window, stride, pad, dilation, True)
    plain = shapes.pooled_size(size, window, stride, pad, dilation, False)
    assert plain <= n <= plain + 1
    assert (n - 1) * stride - pad < size, "the last window starts inside the input or the padding before it"
    last_tap = (n - 1) * stride - pad + dilation * (window - 1)
    covered = last_tap >= size + pad - 1
    assert covered or n * stride - pad >= size, "only a window that would start past the input may be left out"


@given(SMALL, SMALL, SMALL, st.integers(1, 3))
def test_same_padding(size, window, stride, dilation) -> None:
    s = shapes.conv2d_shape((1, size, size, 1), (1, window, window, 1), stride, "same", dilation)
    assert -(-size // stride) == s.P == s.Q


def c_structs() -> dict[str, list[str]]:
    text = re.sub(r"//.*", "", (csrc_dir() / "shapes.h").read_text())
    return {
        name: re.findall(r"\w+(?=\s*[,;])", re.sub(r"\bint\b", "", body))
        for name, body in re.findall(r"struct (\w+) \{(.*?)\};", text, re.S)
    }


@pytest.mark.parametrize("name", sorted(c_structs()))
def test_c_struct_has_the_members_of_the_class(name: str) -> None:
    members = [f.name for f in fields(getattr(shapes, name)) if f.name != "packed"]
    assert c_structs()[name] == members


def test_every_class_has_a_c_struct() -> None:
    classes = {n for n, c in vars(shapes).items() if isinstance(c, type) and n.endswith("Shape")} - {"PackedShape"}
    assert classes == set(c_structs())


def test_packed_is_the_members_in_order() -> None:
    s = shapes.conv2d_shape((2, 8, 7, 6), (4, 3, 2, 3), (2, 1), (1, 0), 1, 2)
    assert struct.unpack("<16i", s.packed) == (2, 8, 7, 6, 4, 3, 2, 2, 1, 1, 0, 1, 1, 2, 4, 6)


def test_equal_arguments_give_the_same_object() -> None:
    assert shapes.conv2d_shape((1, 8, 8, 3), (4, 3, 3, 3)) is shapes.conv2d_shape((1, 8, 8, 3), (4, 3, 3, 3))


SIDES = st.lists(st.integers(1, 3), max_size=4)


@given(SIDES, SIDES)
def test_broadcasting_is_numpys(a, b) -> None:
    x, y = np.arange(np.prod(a, dtype=int)).reshape(a), 100 * np.arange(np.prod(b, dtype=int)).reshape(b)
    try:
        expected = x + y
    except ValueError:
        with pytest.raises(ValueError, match="cannot be broadcast"):
            shapes.broadcast_shape("add", tuple(a), tuple(b))
        return
    shape, walk = shapes.broadcast_shape("add", tuple(a), tuple(b))
    assert shape == expected.shape
    at = np.indices((walk.d0, walk.d1, walk.d2, walk.d3)).reshape(4, -1)
    left = x.reshape(-1)[np.array([walk.a0, walk.a1, walk.a2, walk.a3]) @ at]
    right = y.reshape(-1)[np.array([walk.b0, walk.b1, walk.b2, walk.b3]) @ at]
    np.testing.assert_array_equal(left + right, expected.reshape(-1))


def test_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match=r"past 2.31 - 1"):
        shapes.conv2d_shape((1, 2**31, 1, 1), (1, 1, 1, 1))
    with pytest.raises(ValueError, match="needs 5 loops"):
        shapes.broadcast_shape("add", (2, 1, 2, 1, 2), (1, 2, 1, 2, 1))


def test_flops_and_bytes() -> None:
    s = shapes.conv2d_shape((8, 56, 56, 64), (64, 3, 3, 64), 1, 1)
    assert s.flops() == 2 * 8 * 56 * 56 * 64 * 64 * 9
    assert s.bytes() == 4 * (2 * 8 * 56 * 56 * 64 + 64 * 64 * 9)
