"""The one comparator: how far a result may be from the float64 oracle, and what is never accepted.

A float32 sum of R products carries a rounding error that grows with sqrt(R); beside it the result is rounded once to
its own dtype. So the tolerance is ``(SAFETY * 2**-24 * sqrt(R) + half a unit of the dtype)`` of the output's size: its
own magnitude plus the root of the sum of its squared terms, which is how large partial sums become even where the
result cancels. The oracle gives that too, over squared inputs (``terms``), and the tolerance is tighter then; a test
without it goes by the root mean square of all results instead. Nothing in it can be tuned per test but R.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

SAFETY = 8.0
SAFETY_OF_TERMS = 3.0  # where the size of the partial sums is known; the largest of ten thousand random sums needs 1.3
FLOAT32_ROUNDING = 2.0**-24
HALF_UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
# Rounding in the transforms of Winograd's convolution, times that of plain sums: of fewer products than LONG_SUM, and
# of as many or more. Every channel's transforms round about alike, and over many channels these errors cancel, which
# sqrt(R) of a short sum does not allow for. The worst of 11,000 random shapes on three instruction sets: winograd 3.5
# of one channel, 0.8 from 64 channels on; winograd_6x6 17 of two channels, of one channel rarely beyond 20 (41), 6.3
# from 64 channels on
LONG_SUM = 9 * 64
GROWTH = {"winograd": (4.0, 1.5), "winograd_6x6": (20.0, 10.0)}
# Operands rounded to TF32 are off by up to 2^-11 each, which adds up as the terms do; three products leave the square
OPERANDS = {"implicit_gemm_tf32": 1.5 * 2.0**-11, "implicit_gemm_3xtf32": 1.5 * 2.0**-22}
SMALLEST = {"float16": 2.0**-24, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}


def tolerance(dtype: np.dtype, reduction: int, safety: float = SAFETY) -> float:
    """Allowed error relative to the output's size; float64 results were accumulated in float64."""
    accumulated = HALF_UNIT["float64"] if dtype.name == "float64" else FLOAT32_ROUNDING
    return safety * accumulated * sqrt(reduction) + HALF_UNIT[dtype.name]


def assert_close(
    actual: np.ndarray,
    expected: np.ndarray,
    reduction: int = 1,
    what: str = "result",
    terms: np.ndarray | None = None,
    algorithm: str | None = None,
) -> None:
    """Fail unless ``actual`` has the oracle's shape, its NaN and infinities in the same places, and close values.

    ``terms``, of the same shape: the root of the sum of the squared terms of each element; None: unknown. A tile of
    Winograd's convolution (``algorithm``) shares the rounding of its largest terms; TF32 rounds the operands.
    """
    assert type(actual) is np.ndarray, f"{what}: expected an array, received {type(actual)}"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype.name in HALF_UNIT, f"{what}: dtype {actual.dtype} is no floating-point type"
    got, want = actual.astype(np.float64), expected.astype(np.float64)
    for name, test in (("NaN", np.isnan), ("+inf", np.isposinf), ("-inf", np.isneginf)):
        wrong = np.argwhere(test(got) != test(want))
        assert not len(wrong), (
            f"{what}: {name} in the wrong place at {len(wrong)} of {got.size} elements,"
            f" first at {tuple(map(int, wrong[0]))}: {got[tuple(wrong[0])]}, expected {want[tuple(wrong[0])]}"
        )
    finite = np.isfinite(want)
    if not finite.any():
        return
    size = np.abs(want) + (np.sqrt(np.mean(np.square(want[finite]))) if terms is None else terms)
    safety = SAFETY if terms is None else SAFETY_OF_TERMS
    if algorithm in GROWTH:
        safety *= GROWTH[algorithm][reduction >= LONG_SUM]
        size = size + (0 if terms is None else terms.max())
    relative = tolerance(actual.dtype, reduction, safety) + safety * OPERANDS.get(algorithm or "", 0.0)
    allowed = relative * size + SMALLEST[actual.dtype.name]
    error = np.where(finite, np.abs(np.where(finite, got, 0) - np.where(finite, want, 0)), 0)
    wrong = np.argwhere(finite & (error > allowed))
    if len(wrong):
        worst = np.unravel_index(np.argmax(np.where(finite, error / allowed, 0)), error.shape)
        raise AssertionError(
            f"{what}: {len(wrong)} of {got.size} elements are off, worst at {tuple(int(i) for i in worst)}:"
            f" {got[worst]}, expected {want[worst]}, error {error[worst]:.3g}, allowed {allowed[worst]:.3g}"
        )


def assert_identical(actual: np.ndarray, expected: np.ndarray, what: str = "result") -> None:
    """Fail unless dtype, shape and every bit agree."""
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    different = np.argwhere(
        np.ascontiguousarray(actual).view(np.uint8).reshape(-1)
        != np.ascontiguousarray(expected).view(np.uint8).reshape(-1)
    )
    assert not len(different), f"{what}: {len(different)} bytes differ, first at byte {int(different[0, 0])}"
