"""TMA's im2col loads: columns of pixels against NumPy, every tap of a convolution, and misuse reported by name."""

from __future__ import annotations

import numpy as np
import pytest

from cnnengine.errors import KernelError

from .conftest import Choose
from .machine import Machine, array
from .test_asynchronous import BOX, FILE, swizzled
from .test_bugs import is_named


def column(
    x: np.ndarray,
    first: tuple[int, int, int],
    offset: tuple[int, int],
    corners: tuple[tuple[int, int], tuple[int, int]],
    steps: tuple[int, int],
    pixels: int,
) -> np.ndarray:
    """Pixels of x (N, H, W, C), from base pixel `first` (n, h, w) on, each read at its base plus `offset` (h, w)."""
    (low_h, low_w), (high_h, high_w) = corners
    bases = [
        (n, h, w)
        for n in range(first[0], first[0] + pixels)
        for h in range(low_h, x.shape[1] + high_h, steps[0])
        for w in range(low_w, x.shape[2] + high_w, steps[1])
    ]
    start = bases.index(first)
    result = np.zeros((pixels, x.shape[3]), x.dtype)
    for row, (n, h, w) in zip(result, bases[start : start + pixels], strict=True):
        at = (n, h + offset[0], w + offset[1])
        if all(0 <= i < size for i, size in zip(at, x.shape[:3], strict=True)):
            row[:] = x[at]
    return result


def columned(
    chosen: Machine,
    x: np.ndarray,
    held: bytes,
    nbytes: int,
    c: int,
    first: tuple[int, int, int],
    offset: tuple[int, int],
    bug: int = 0,
) -> np.ndarray:
    y = array(np.zeros(nbytes), np.uint8)
    numbers = [np.int32(v) for v in (nbytes, c, *first[::-1], *offset[::-1])]
    chosen.launch(f"columned<{bug}>", 1, 32, held, y, *numbers, shared=BOX, also=(x,))
    return y


# (N, H, W), lower and upper corner, steps, base pixel (n, h, w), offset: all of (h, w)
COLUMNS = [
    ((2, 9, 7), (-1, -1), (-1, -1), (1, 1), (0, 3, 5), (0, 0)),  # 3 x 3, padding 1
    ((2, 9, 7), (-1, -1), (-1, -1), (1, 1), (0, -1, -1), (2, 1)),
    ((2, 9, 7), (-1, -2), (-1, -2), (1, 1), (1, 6, 3), (1, 4)),  # 3 x 5; past the last image
    ((3, 8, 10), (0, 0), (-2, -2), (1, 1), (0, 4, 4), (2, 2)),  # no padding
    ((3, 8, 10), (-1, -1), (-1, -1), (2, 2), (0, 3, 3), (0, 2)),  # stride 2
    ((2, 9, 11), (-3, -3), (-3, -3), (2, 3), (0, -3, 0), (6, 3)),  # strides 2 and 3, dilation 3
    ((2, 5, 6), (0, 1), (0, 1), (1, 1), (0, 2, 6), (1, 0)),  # a box that leaves the tensor on the right
    ((40, 1, 1), (0, 0), (0, 0), (1, 1), (7, 0, 0), (0, 0)),
]


@pytest.mark.parametrize(("nhw", "lower", "upper", "steps", "first", "offset"), COLUMNS)
def test_im2col_loads(
    emulate: Choose,
    nhw: tuple[int, int, int],
    lower: tuple[int, int],
    upper: tuple[int, int],
    steps: tuple[int, int],
    first: tuple[int, int, int],
    offset: tuple[int, int],
) -> None:
    shape = (*nhw, 24)
    x = array(np.arange(1, np.prod(shape) + 1).reshape(shape) % 65521, np.uint16)
    expected = column(x, first, offset, (lower, upper), steps, 50)[:, 8:24]
    chosen = emulate(FILE)
    held = chosen.im2col_map(x, lower, upper, 16, 50, steps=steps)
    y = columned(chosen, x, held, expected.nbytes, 8, first, offset)
    np.testing.assert_array_equal(y.view(np.uint16).reshape(expected.shape), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_im2col_loads_channels_past_the_end_as_zeros(plain: Choose, dtype: str) -> None:
    x = array(np.arange(2 * 4 * 4 * 8).reshape(2, 4, 4, 8), np.dtype(dtype))
    expected = np.zeros((20, 16), x.dtype)
    expected[:, :8] = column(x, (0, 1, 2), (1, 1), ((-1, -1), (-1, -1)), (1, 1), 20)
    chosen = plain(FILE)
    held = chosen.im2col_map(x, (-1, -1), (-1, -1), 16, 20)
    y = columned(chosen, x, held, expected.nbytes, 0, (0, 1, 2), (1, 1))
    np.testing.assert_array_equal(y.view(x.dtype).reshape(20, 16), expected)


@pytest.mark.parametrize("span", [32, 64, 128])
def test_swizzled_im2col_loads(emulate: Choose, span: int) -> None:
    x = array(np.arange(2 * 6 * 5 * 128) % 60000, np.uint16).reshape(2, 6, 5, 128)
    channels = span // 2
    pixels = column(x, (0, 2, -1), (2, 0), ((-1, -1), (-1, -1)), (1, 1), 48)[:, 64 : 64 + channels]
    chosen = emulate(FILE)
    held = chosen.im2col_map(x, (-1, -1), (-1, -1), channels, 48, swizzle=(32, 64, 128).index(span) + 1)
    y = columned(chosen, x, held, 48 * span, 64, (0, 2, -1), (2, 0))
    np.testing.assert_array_equal(y, swizzled(np.ascontiguousarray(pixels).view(np.uint8), span))


def test_im2col_columns_of_every_tap_are_a_convolution(plain: Choose, rng: np.random.Generator) -> None:
    """Implicit GEMM: the sum over taps of a column times the tap's weights is the output's row of pixels."""
    x = array(rng.integers(-4, 5, (2, 7, 6, 8)), np.float32)
    w = rng.integers(-4, 5, (5, 3, 3, 8)).astype(np.float32)  # (K, R, S, C); stride 2, padding 1
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 4, 3, 5), np.float32)
    for p, q in np.ndindex(4, 3):
        expected[:, p, q] = np.tensordot(padded[:, 2 * p : 2 * p + 3, 2 * q : 2 * q + 3], w, ((1, 2, 3), (1, 2, 3)))
    chosen = plain(FILE)
    held = chosen.im2col_map(x, (-1, -1), (-1, -1), 8, 24, steps=(2, 2))
    ours = np.zeros((24, 5), np.float32)
    for r, s in np.ndindex(3, 3):
        y = columned(chosen, x, held, 24 * 32, 0, (0, -1, -1), (r, s))
        ours += y.view(np.float32).reshape(24, 8) @ w[:, r, s].T
    np.testing.assert_array_equal(ours, expected.reshape(24, 5))


X = (2, 9, 7, 16)


@pytest.mark.parametrize(
    ("c", "first", "offset", "kind", "detail"),
    [
        (0, (0, 0, 7), (0, 0), "bulk tensor copy misuse", "im2col load at w = 7: -1 to 5 of the map's bounding box"),
        (0, (0, 0, -2), (0, 0), "bulk tensor copy misuse", "im2col load at w = -2: -1 to 5 of the map's bounding box"),
        (0, (0, 8, 0), (0, 0), "bulk tensor copy misuse", "im2col load at h = 8: -1 to 7 of the map's bounding box"),
        (0, (0, -2, 0), (0, 0), "bulk tensor copy misuse", "im2col load at h = -2: -1 to 7 of the map's bounding box"),
        (0, (0, 0, 0), (0, 256), "bulk tensor copy misuse", "im2col offset 256 along w: 0 to 255 are expected"),
        (0, (0, 0, 0), (-1, 0), "bulk tensor copy misuse", "im2col offset -1 along h: 0 to 255 are expected"),
        (4, (0, 0, 0), (0, 0), "misaligned access", "innermost coordinate 4, of 2 bytes each: a multiple of 16 bytes"),
    ],
)
def test_bad_im2col_coordinates(
    emulate: Choose, c: int, first: tuple[int, int, int], offset: tuple[int, int], kind: str, detail: str
) -> None:
    x = array(np.zeros(X), np.float16)
    chosen = emulate(FILE)
    held = chosen.im2col_map(x, (-1, -1), (-1, -1), 8, 16)
    with pytest.raises(KernelError) as raised:
        columned(chosen, x, held, 256, c, first, offset)
    is_named(str(raised.value), kind, "column", file=FILE)
    assert detail in str(raised.value)


def test_fewer_bytes_expected_than_a_column_has(emulate: Choose) -> None:
    """The barrier's phase ends when the count of bytes is zero: it never is again."""
    x = array(np.zeros(X), np.float16)
    chosen = emulate(FILE)
    with pytest.raises(KernelError) as raised:
        columned(chosen, x, chosen.im2col_map(x, (-1, -1), (-1, -1), 8, 16), 256, 0, (0, 0, 0), (0, 0), bug=1)
    is_named(str(raised.value), "deadlock", "column-wait", file=FILE)
    assert "0 of 1 arrivals and -16 bytes missing" in str(raised.value)


def test_tiles_of_the_other_kind_of_map(plain: Choose) -> None:
    chosen = plain(FILE)
    x = array(np.zeros(X), np.float16)
    with pytest.raises(KernelError, match=r"bad tensor map .* an im2col load through a tiled map"):
        columned(chosen, x, chosen.tensor_map(x, (1, 1, 4, 8)), 256, 0, (0, 0, 0), (0, 0))
    y = array(np.zeros(256), np.uint8)
    numbers = [np.int32(v) for v in (256, 0, 0, 0, 0, 0)]
    report = chosen.report("boxed<4>", 1, 32, chosen.im2col_map(x, (0, 0), (0, 0), 8, 16), y, *numbers, shared=BOX)
    assert "a bulk tensor load through an im2col map" in report


def test_im2col_tile_past_shared_memory(emulate: Choose) -> None:
    x = array(np.zeros((1, 40, 40, 64)), np.float16)
    chosen = emulate(FILE)
    with pytest.raises(KernelError) as raised:
        columned(chosen, x, chosen.im2col_map(x, (0, 0), (0, 0), 64, 1024), 256, 0, (0, 0, 0), (0, 0))
    is_named(str(raised.value), "out of bounds", "column", file=FILE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 257}, "257 channels of a pixel: 1 to 256"),
        ({"channels": 0}, "0 channels of a pixel: 1 to 256"),
        ({"channels": 4}, "an inner box dimension of 8 bytes: a multiple of 16"),
        ({"channels": 128, "swizzle": 3}, "an inner box dimension of 256 bytes: at most the swizzle's 128"),
        ({"pixels": 1025}, "1025 pixels of a column: 1 to 1024"),
        ({"pixels": 0}, "0 pixels of a column: 1 to 1024"),
        ({"lower": (-1, -129)}, "corners -129 and 0 along w: -128 to 127"),
        ({"upper": (128, 0)}, "corners 0 and 128 along h: -128 to 127"),
        ({"lower": (0, 4), "upper": (0, -3)}, "an empty bounding box along w: corners 4 and -3 at 7 elements"),
        ({"steps": (1, 9)}, "element stride 1 of 9: 1 to 8"),
        ({"steps": (0, 1)}, "element stride 2 of 0: 1 to 8"),
        ({"tensor": np.zeros((2, 9, 7, 12), np.float16)}, "stride 1 of 24 bytes: a multiple of 16"),
        ({"tensor": np.zeros((9, 7, 16), np.float16)}, "an im2col map of rank 3: the emulator has those of rank 4"),
    ],
)
def test_im2col_maps_are_checked(plain: Choose, options: dict, message: str) -> None:
    asked = {"tensor": np.zeros(X, np.float16), "lower": (0, 0), "upper": (0, 0), "channels": 8, "pixels": 16} | options
    asked["tensor"] = array(asked["tensor"])
    with pytest.raises(KernelError, match="bad tensor map: " + message):
        plain(FILE).im2col_map(**asked)
