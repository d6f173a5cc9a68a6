"""Barriers, warps, atomics, arguments and number types: correct kernels give the right answer and no report."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from .conftest import Choose
from .machine import Machine, array

FILE = "threads.cuh"
VALUES = 64 * 4  # bytes of the struct Values


def test_reversed(emulate: Choose) -> None:
    x, y = array(np.arange(64), np.float32), array(np.zeros(64), np.float32)
    emulate(FILE).launch("reversed<0>", 1, 64, x, y, shared=VALUES)
    np.testing.assert_array_equal(y, x[::-1])


def test_row_sum(emulate: Choose, rng: np.random.Generator) -> None:
    x, y = array(rng.integers(-9, 9, 64), np.float32), array(np.zeros(1), np.float32)
    emulate(FILE).launch("row_sum<0>", 1, 32, x, y, shared=VALUES)
    assert y[0] == x.sum()


def test_rotated(emulate: Choose) -> None:
    x, y = array(np.arange(64), np.float32), array(np.zeros(64), np.float32)
    emulate(FILE).launch("rotated<0>", 1, 64, x, y, np.int32(5), shared=VALUES)
    np.testing.assert_array_equal(y.reshape(2, 32), np.roll(x.reshape(2, 32), -5, axis=1))


def test_warp_results(emulate: Choose) -> None:
    x, y = array(np.arange(32) * 7 % 32, np.int32), array(np.zeros((12, 32)), np.int32)
    emulate(FILE).launch("warp_results", 1, 32, x, y)
    lane = np.arange(32)

    def segment(source: np.ndarray, width: int) -> np.ndarray:
        """The source lane, or the lane itself where the source is outside its segment."""
        return np.where(source // width == lane // width, source, lane)

    np.testing.assert_array_equal(y[0], x[5])
    np.testing.assert_array_equal(y[1], x[lane // 8 * 8 + (lane + 3) % 8])
    np.testing.assert_array_equal(y[2], x[np.where(lane >= 2, lane - 2, lane)])
    np.testing.assert_array_equal(y[3], x[segment(lane - 3, 8)])
    np.testing.assert_array_equal(y[4], x[np.where(lane < 30, lane + 2, lane)])
    np.testing.assert_array_equal(y[5], x[segment(lane + 3, 16)])
    np.testing.assert_array_equal(y[6], x[lane ^ 5])
    np.testing.assert_array_equal(y[7].view(np.uint32), sum(1 << int(i) for i in lane if x[i] % 3 == 0))
    np.testing.assert_array_equal(y[8], 3)
    matches = [sum(1 << int(j) for j in lane if x[j] % 4 == x[i] % 4) for i in lane]
    np.testing.assert_array_equal(y[9].view(np.uint32), matches)
    np.testing.assert_array_equal(y[10], np.where(lane < 16, x[20], x[:16].sum()))
    np.testing.assert_array_equal(y[11], 2 * x[np.where(lane < 31, lane + 1, lane)])


def test_returned_lanes_do_not_hold_up_their_warp(emulate: Choose) -> None:
    emulate(FILE).launch("warp_masks<3>", 1, 64, array(np.zeros(64), np.int32))


def test_one_lane_is_elected(emulate: Choose) -> None:
    y = array(np.zeros(64), np.int32)
    emulate(FILE).launch("warp_masks<6>", 1, 64, y)
    assert y.reshape(2, 32).sum(axis=1).tolist() == [1, 1]


@pytest.mark.parametrize("block", [(7, 1, 1), (8, 3, 2), (33, 1, 1), (16, 8, 8)])
def test_votes(emulate: Choose, block: tuple[int, int, int]) -> None:
    x, y = array(np.arange(np.prod(block)) % 3, np.int32), array(np.zeros(3), np.int32)
    emulate(FILE).launch("votes", 1, block, x, y)
    assert y.tolist() == [(x > 0).sum(), 0, 1]


def test_named_barriers(emulate: Choose) -> None:
    x, y = array(np.arange(7 * 32), np.float32), array(np.zeros(7 * 32), np.float32)
    emulate(FILE).launch("piped<0>", 1, 64, x, y, np.int32(7), shared=256)
    np.testing.assert_array_equal(y.reshape(7, 32), x.reshape(7, 32)[:, ::-1])


def test_histogram(emulate: Choose, rng: np.random.Generator) -> None:
    x, bins = array(rng.integers(0, 10, 5000), np.int32), array(np.zeros(10), np.int32)
    emulate(FILE).launch("histogram<0>", 8, 64, x, bins, np.int32(5000))
    np.testing.assert_array_equal(bins, np.bincount(x, minlength=10))


def test_last_block_sum(emulate: Choose, rng: np.random.Generator) -> None:
    x = array(rng.integers(-9, 9, 32 * 20), np.float32)
    partial, ticket, y = array(np.zeros(20), np.float32), array(np.zeros(1), np.uint32), array(np.zeros(1), np.float32)
    emulate(FILE).launch("last_block_sum<0>", 20, 32, x, partial, ticket, y, shared=VALUES)
    assert y[0] == x.sum()


def test_blocks_wait_for_each_other(emulate: Choose) -> None:
    flags, y = array(np.zeros(6), np.uint32), array(np.zeros(1), np.float32)
    emulate(FILE).launch("chained<0>", 6, 32, flags, y)
    assert y[0] == 63


def test_lock(emulate: Choose) -> None:
    lock, count = array(np.zeros(1), np.int32), array(np.zeros(1), np.int32)
    emulate(FILE).launch("locked", 5, 70, lock, count)
    assert count[0] == 350


def test_atomics(emulate: Choose) -> None:
    i, u = array([0, 0, -5, 5, 0, -1, 0], np.int32), array([0, 0, 99, 3, 0, 0], np.uint32)
    words, f = array([0, 0], np.uint64), array([0], np.float32)
    emulate(FILE).launch("atomics", 4, 50, i, u, words, f)
    t = np.arange(200)
    assert i.tolist() == [t.sum(), -t.sum(), 199, -199, (1 << 31) - 1, -(1 << 31), np.bitwise_xor.reduce(t)]
    assert u.tolist() == [t.sum(), 199, 0, (3 + 200) % 10, 77, 5]
    assert words.tolist() == [200 << 33, 199 << 32]
    assert f[0] == 100


def test_places(emulate: Choose) -> None:
    grid, block = (3, 2, 4), (5, 3, 2)
    blocks, threads = int(np.prod(grid)), int(np.prod(block))
    y = array(np.zeros((blocks, threads, 4)), np.int32)
    emulate(FILE).launch("places", grid, block, y)
    z, row, column = np.unravel_index(np.arange(threads), block[::-1])
    np.testing.assert_array_equal(y[..., 0], np.arange(blocks)[:, None] * np.ones(threads, int))
    np.testing.assert_array_equal(y[7, :, 1:], np.stack((column, row, z), axis=1))


def test_arguments(plain: Choose) -> None:
    y = array(np.zeros(7), np.float64)
    packed = np.int32(-3).tobytes() + np.array([0.5, 1.5, 2.5], np.float32).tobytes()
    plain(FILE).launch("arguments", 1, 1, packed, np.int64(1 << 40), np.int32(-7), np.float32(0.25), y)
    assert y.tolist() == [-3, 0.5, 1.5, 2.5, 1 << 40, -7, 0.25]


@pytest.fixture
def numbers(rng: np.random.Generator) -> np.ndarray:
    """Floats of every exponent, ties, limits, subnormal numbers of both formats, infinities and NaN."""
    bits = rng.integers(0, 1 << 32, 20000, np.uint32).view(np.float32)
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaN
        ties = (halves[:-1].astype(np.float64) + halves[1:]) / 2
        edges = [
            65519.99,
            65520,
            65504,
            3.39e38,
            3.4e38,
            2**-24,
            2**-25,
            2**-25 * 1.0001,
            0,
            -0.0,
            np.inf,
            -np.inf,
            np.nan,
        ]
        return array(np.concatenate((bits, halves, ties.astype(np.float32), np.array(edges, np.float32))))


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal bits, and a NaN where there is one."""
    nan = np.isnan(theirs.astype(np.float32))
    np.testing.assert_array_equal(ours[~nan], theirs[~nan].view(np.uint16))


def test_conversions(plain: Choose, numbers: np.ndarray) -> None:
    import ml_dtypes

    n = len(numbers)
    h, b = array(np.zeros(n), np.uint16), array(np.zeros(n), np.uint16)
    from_h, from_b = array(np.zeros(n), np.float32), array(np.zeros(n), np.float32)
    plain(FILE).launch("converted", -(-n // 128), 128, numbers, h, b, from_h, from_b, np.int32(n))
    with np.errstate(over="ignore", invalid="ignore"):
        half, brain = numbers.astype(np.float16), numbers.astype(ml_dtypes.bfloat16)
        same_bits(h, half)
        same_bits(b, brain)
        np.testing.assert_array_equal(from_h, half.astype(np.float32))
        np.testing.assert_array_equal(from_b, brain.astype(np.float32))


def test_every_16_bit_number_becomes_a_float(plain: Choose) -> None:
    import ml_dtypes

    bits = array(np.arange(1 << 16), np.uint16)
    h, b = array(np.zeros(1 << 16), np.float32), array(np.zeros(1 << 16), np.float32)
    plain(FILE).launch("half_bits_to_float", 512, 128, bits, h, b, np.int32(1 << 16))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(h, bits.view(np.float16).astype(np.float32))
        np.testing.assert_array_equal(b, bits.view(ml_dtypes.bfloat16).astype(np.float32))


def nearest_half(exact: Fraction) -> np.float16:
    """Rounded to nearest even, once."""
    guess = np.float16(float(exact))
    if not np.isfinite(guess):
        return guess
    near = [np.nextafter(guess, np.float16(side)) for side in (-np.inf, np.inf)]
    finite = [h for h in (guess, *near) if np.isfinite(h)]
    return min(finite, key=lambda h: (abs(Fraction(float(h)) - exact), int(h.view(np.uint16)) & 1))


def test_half_arithmetic_rounds_once(plain: Choose, rng: np.random.Generator) -> None:
    n = 6000
    p, q, r = (array(rng.integers(0, 1 << 16, n), np.uint16) for _ in range(3))
    r[: n // 2] = ((p[: n // 2] >> 10) + (q[: n // 2] >> 10) & 31) << 10 | r[: n // 2] & 0x83FF  # sums near in exponent
    y = array(np.zeros((n, 6)), np.uint16)
    plain(FILE).launch("half_arithmetic", -(-n // 128), 128, p, q, r, y, np.int32(n))
    a, b, c = (v.view(np.float16) for v in (p, q, r))
    with np.errstate(all="ignore"):
        for j, want in enumerate((a + b, a - b, a * b, a / b)):
            same_bits(y[:, j], want)
        finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
        fused = [
            Fraction(float(i)) * Fraction(float(j)) + Fraction(float(k))
            for i, j, k in zip(a[finite], b[finite], c[finite], strict=True)
        ]
        exact = np.array([nearest_half(f) for f in fused])
        nonzero = exact != 0
        same_bits(y[finite, 4][nonzero], exact[nonzero])
        larger = np.fmax(a, b)
        same_bits(y[larger != 0, 5], larger[larger != 0])


def test_intrinsics(plain: Choose) -> None:
    x, y = array([0x12345678, 0x9ABCDEF0, 0x40490FDB], np.uint32), array(np.zeros(11), np.uint32)
    f, g = array([2.5, -1.5], np.float32), array(np.zeros(12), np.float32)
    plain(FILE).launch("intrinsics", 1, 1, x, y, f, g)
    a, b = int(x[0]), int(x[1])
    reverse = int(f"{a:032b}"[::-1], 2)
    funnel = ((b << 32 | a) << 8 >> 32) & 0xFFFFFFFF
    expected = [a * b >> 32, a.bit_count(), 4, 3, reverse, 0x9ADE1256, 2, 2, 0x40200000, 32, funnel]
    assert [hex(v) for v in y] == [hex(v) for v in expected]
    expected_g = [np.exp(2.5), 1 / np.sqrt(2.5), 2.5 * 2.5 - 1.5, 1, 2.5, -1.5, np.pi, 0, 2.5, -1.5, 2, 3]
    np.testing.assert_allclose(g, np.float32(expected_g), rtol=2e-7)


def launch_reversed(chosen: Machine) -> np.ndarray:
    x, y = array(np.arange(64), np.float32), array(np.zeros(64), np.float32)
    chosen.launch("reversed<0>", 1, 64, x, y, shared=VALUES)
    return y


def test_after_a_report_the_next_launch_works(emulate: Choose) -> None:
    chosen = emulate(FILE)
    x, y = array(np.arange(64), np.float32), array(np.zeros(64), np.float32)
    for _ in range(3):
        assert "divergent barrier" in chosen.report("reversed<2>", 5, 64, x, y, shared=VALUES)
        np.testing.assert_array_equal(launch_reversed(chosen), np.arange(64)[::-1])


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        (1, 1025, 0, "a block of (1025, 1, 1) threads: 1 to 1024 are expected"),
        (1, (1, 1, 65), 0, "at most 64 in z"),
        (0, 64, 0, "a grid of (0, 1, 1) blocks"),
        ((1, 65536), 64, 0, "a grid of (1, 65536, 1) blocks"),
        (1, 64, 1 << 20, "1048576 bytes of shared memory: at most 232448"),
        (1, 64, 128, "the kernel's shared memory is 256 bytes, the launch gave 128"),
    ],
)
def test_bad_launches(plain: Choose, grid: object, block: object, shared: int, message: str) -> None:
    x, y = array(np.arange(64), np.float32), array(np.zeros(64), np.float32)
    report = plain(FILE).report("reversed<0>", grid, block, x, y, shared=shared)
    assert report.startswith("reversed<0>: bad launch")
    assert message in report
