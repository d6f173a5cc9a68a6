"""Checks of the arguments that shapes are made from: each says what was received and what was expected."""

from __future__ import annotations

import numpy as np

INT32_MAX = 2**31 - 1

Pair = tuple[int, int]


def is_int(value: object) -> bool:
    """Whether it is an int, Python's or NumPy's, and no bool"""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def to_pair(value: int | Pair, operation: str, name: str, least: int) -> Pair:
    pair = value if isinstance(value, tuple) else (value, value)
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(is_int(v) for v in pair)):
        raise ValueError(f"{operation}: {name} must be an int or a pair of ints, received {value!r}")
    if min(pair) < least:
        raise ValueError(f"{operation}: {name} must be at least {least}, received {value!r}")
    return int(pair[0]), int(pair[1])


def to_divisor(value: int, operation: str) -> int:
    if not is_int(value) or value < 1:
        raise ValueError(f"{operation}: divisor_override must be an int of at least 1, received {value!r}")
    return int(value)


def no_empty_axis(operation: str, name: str, shape: tuple[int, ...]) -> None:
    if 0 in shape:
        what = "empty batch" if name == "x" and shape[0] == 0 else "empty axis"
        raise ValueError(f"{operation}: {what}: {name} {shape}")


def lies_outside(size: int, window: int, stride: int, pad: int, dilation: int, positions: int) -> bool:
    """Whether all taps of some window are padding; without dilation none can be"""
    if dilation == 1:
        return False
    starts = range(-pad, positions * stride - pad, stride)
    return any(not any(0 <= start + t * dilation < size for t in range(window)) for start in starts)


def nchw_hint(x: tuple[int, ...], w: tuple[int, ...], expected: int) -> str:
    if x[1] == expected:
        return "; x looks like (N, C, H, W): convert it with cnn.from_nchw(x)"
    if w[1] and expected * w[1] == x[1] * w[3] and w[2] == w[3]:
        return "; x and w look like (N, C, H, W) and (K, C, R, S): convert both with cnn.from_nchw"
    if w[1] == x[3] and w[2] == w[3]:
        return "; w looks like (K, C, R, S): convert it with cnn.from_nchw(w)"
    return ""


def fits_int32(operation: str, members: tuple[int, ...] | list[int]) -> None:
    if max(members) > INT32_MAX:
        raise ValueError(f"{operation}: a size or stride of {max(members)} is past 2^31 - 1")
