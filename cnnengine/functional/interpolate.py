"""Images in another size: each row, then each column of the result is a weighted sum of the image's.

Along an axis this is a small matrix, and its product with the image a matrix product; backward multiplies by its
transpose. Pixels repeated a whole number of times are an average pooling's gradient instead, and the sums of their
gradients a pooling.
"""

from __future__ import annotations

from functools import lru_cache, partial
from math import floor, isfinite
from typing import Any

import numpy as np

from .. import replay
from .._arguments import fits_int32, no_empty_axis, to_pair
from ..autograd import Function, grad_enabled
from ..backends.contract import IDENTITY, Array, Backend
from ..shapes import Pair, Pool2dShape, gemm_shape, pool2d_shape
from ..tensor import Tensor, record, wrap
from ._common import backend_of, tensor

MODES = ("nearest", "bilinear")
Factors = tuple[float | None, float | None]


class Resize(Function):
    """saved: (x's shape, matrices)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, matrices = self.saved
        return (_multiply(self.backend, dy, matrices, shape, backward=True),)


class Repeat(Function):
    """saved: the shape of the pooling that adds repeated pixels up"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape = self.saved
        dx = self.backend.empty(shape.y, dy.dtype)
        self.backend.pool2d_forward("avg", shape, dy, dx, None)
        return (dx,)


def interpolate(
    x: Tensor,
    size: int | Pair | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """x (N, H, W, C) in another size (N, P, Q, C): ``size`` P or (P, Q), or floor(H * ``scale_factor``).

    Output row p is at (p + 0.5) H / P - 0.5 of the image, or with ``align_corners`` at p (H - 1) / (P - 1), "bilinear"
    between the two rows there; "nearest" takes row floor(p H / P). A ``scale_factor`` takes the place of P / H, but
    where P is H, and for "nearest" where P is 2 H. Columns likewise; all this as PyTorch does. Raises ValueError.
    """
    x = tensor(x)
    if x.ndim != 4:
        raise ValueError(f"interpolate: x must be (N, H, W, C), received {x.shape}")
    no_empty_axis("interpolate", "x", x.shape)
    if mode not in MODES:
        raise ValueError(f"interpolate: mode must be one of {', '.join(MODES)}, received {mode!r}")
    if mode == "nearest" and align_corners:
        raise ValueError("interpolate: align_corners is for mode 'bilinear'")
    (P, Q), factors = _sizes(x.shape, size, scale_factor)
    N, H, W, C = x.shape
    backend = backend_of("interpolate", x)
    y = backend.empty((N, P, Q, C), x.dtype)
    recorded = x.requires_grad and grad_enabled()
    if mode == "nearest" and _repeats(H, P, factors[0]) and _repeats(W, Q, factors[1]):
        repeated: Pool2dShape = pool2d_shape("interpolate", y.shape, (P // H, Q // W), None, 0, 1, False, True, 1)
        backend.pool2d_backward("avg", repeated, x.data, None, y)
        return record(y, Repeat(backend, (x,), repeated)) if recorded else wrap(y)
    matrices = tuple(
        replay.fresh(backend, partial(_matrix, n, m, factor, mode, align_corners, x.dtype))
        for n, m, factor in zip((H, W), (P, Q), factors, strict=True)
    )
    result = _multiply(backend, x.data, matrices, y.shape, backward=False)
    return record(result, Resize(backend, (x,), (x.shape, matrices))) if recorded else wrap(result)


def _repeats(n: int, m: int, factor: float | None) -> bool:
    """Whether each of n pixels is repeated equally often in m"""
    return m % n == 0 and (factor is None or factor == m / n or m <= 2 * n)


def _multiply(
    backend: Backend, x: Array, matrices: tuple[Array, ...], shape: tuple[int, ...], *, backward: bool
) -> Array:
    """x (N, H, W, C) times the matrices (P, H) and (Q, W), or with ``backward`` their transposes: the rows first where
    that makes the image smaller."""
    N, P, Q, C = shape
    H, W = x.shape[1:3]
    rows, columns = matrices
    for by_rows in (True, False) if P <= H else (False, True):
        h, w = x.shape[1:3]
        if by_rows:
            product = gemm_shape(N, P, w * C, H, backward, False, True, False)
            y = backend.empty((N, P, w, C), x.dtype)
            backend.gemm(product, rows, x.reshape(N, H, w * C), y.reshape(N, P, w * C), IDENTITY)
        else:
            product = gemm_shape(N * h, Q, C, W, backward, False, True, False)
            y = backend.empty((N, h, Q, C), x.dtype)
            backend.gemm(product, columns, x.reshape(N * h, W, C), y.reshape(N * h, Q, C), IDENTITY)
        x = y
    return x


@lru_cache(64)
def _matrix(n: int, m: int, factor: float | None, mode: str, align_corners: bool, dtype: Any) -> np.ndarray:
    """What each of m outputs takes of each of n inputs, (m, n)"""
    matrix, outputs = np.zeros((m, n)), np.arange(m)
    if m == n or (mode == "nearest" and m == 2 * n):  # whatever the factor says
        factor = None
    step = n / m if factor is None else 1 / factor
    if mode == "nearest":  # in float32, as PyTorch: a position just below a whole number is another pixel
        ratio = np.float32(1 / factor) if factor is not None else np.float32(n) / np.float32(m)
        matrix[outputs, np.minimum(np.floor(outputs.astype(np.float32) * ratio).astype(int), n - 1)] = 1
        return matrix.astype(dtype)
    if align_corners:
        place = outputs * ((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        place = np.maximum((outputs + 0.5) * step - 0.5, 0)
    low = np.minimum(place.astype(int), n - 1)
    high, share = np.minimum(low + 1, n - 1), np.clip(place - low, 0, 1)
    np.add.at(matrix, (outputs, low), 1 - share)
    np.add.at(matrix, (outputs, high), share)
    return matrix.astype(dtype)


def _sizes(x: tuple[int, ...], size: Any, scale_factor: Any) -> tuple[Pair, Factors]:
    """(P, Q) and the factors that were given. Raises ValueError."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"interpolate: expected size or scale_factor, received {size!r} and {scale_factor!r}")
    if size is not None:
        pair = to_pair(tuple(size) if isinstance(size, list) else size, "interpolate", "size", 1)
        fits_int32("interpolate", pair)
        return pair, (None, None)
    factors = tuple(scale_factor) if isinstance(scale_factor, tuple | list) else (scale_factor, scale_factor)
    if len(factors) != 2 or not all(isinstance(f, int | float) and isfinite(f) and f > 0 for f in factors):
        raise ValueError(f"interpolate: scale_factor must be one or two positive numbers, received {scale_factor!r}")
    P, Q = (floor(n * float(f)) for n, f in zip(x[1:3], factors, strict=True))
    if P < 1 or Q < 1:
        raise ValueError(f"interpolate: the output would be {P} x {Q}: x {x}, scale_factor {scale_factor!r}")
    return (P, Q), (float(factors[0]), float(factors[1]))
