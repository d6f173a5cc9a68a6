"""Convolution from its definition: one filter tap after the other, channels contracted by einsum in float64.

y[n, p, q, k] = sum over r, s, c of x[n, h, v, c] * w[k, r, s, c]
with h = p*stride_h - pad_h + r*dilation_h, v = q*stride_w - pad_w + s*dilation_w, x zero outside, and c over the
channels of k's group. The backward passes are the same sum solved for dx and dw.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...shapes import Conv2dShape
from ..contract import Array, Epilogue
from .epilogue import apply


def _taps(shape: Conv2dShape) -> Iterator[tuple[int, int, slice, slice]]:
    """(r, s, rows, columns): the rows and columns of the padded input that tap (r, s) reads, P and Q of them."""
    for r in range(shape.R):
        for s in range(shape.S):
            top, left = r * shape.dilation_h, s * shape.dilation_w
            yield (
                r,
                s,
                slice(top, top + (shape.P - 1) * shape.stride_h + 1, shape.stride_h),
                slice(left, left + (shape.Q - 1) * shape.stride_w + 1, shape.stride_w),
            )


def _padded_size(shape: Conv2dShape) -> tuple[int, int]:
    """Rows and columns that hold every tap: the padding before, the input, and what the last window needs after."""
    rows = max(shape.pad_h + shape.H, (shape.P - 1) * shape.stride_h + (shape.R - 1) * shape.dilation_h + 1)
    columns = max(shape.pad_w + shape.W, (shape.Q - 1) * shape.stride_w + (shape.S - 1) * shape.dilation_w + 1)
    return rows, columns


def _padded(shape: Conv2dShape, x: Array) -> np.ndarray:
    """x as (N, rows, columns, groups, C/groups) in float64, zero where padded."""
    padded = np.zeros((shape.N, *_padded_size(shape), shape.C))
    padded[:, shape.pad_h : shape.pad_h + shape.H, shape.pad_w : shape.pad_w + shape.W] = x
    return padded.reshape(*padded.shape[:3], shape.groups, -1)


def _grouped(shape: Conv2dShape, w: Array) -> np.ndarray:
    """w as (groups, K/groups, R, S, C/groups) in float64"""
    return np.asarray(w).astype(np.float64).reshape(shape.groups, -1, *w.shape[1:])


@np.errstate(all="ignore")
def forward(shape: Conv2dShape, x: Array, w: Array, y: Array, epilogue: Epilogue) -> None:
    padded, grouped = _padded(shape, x), _grouped(shape, w)
    total = np.zeros((shape.N, shape.P, shape.Q, shape.groups, shape.K // shape.groups))
    for r, s, rows, columns in _taps(shape):
        total += np.einsum("npqgc,gkc->npqgk", padded[:, rows, columns], grouped[:, :, r, s], optimize=True)
    y[...] = apply(total.reshape(shape.y), epilogue)


@np.errstate(all="ignore")
def backward_input(shape: Conv2dShape, dy: Array, w: Array, dx: Array) -> None:
    grouped = _grouped(shape, w)
    dy = dy.astype(np.float64).reshape(shape.N, shape.P, shape.Q, shape.groups, -1)
    total = np.zeros((shape.N, *_padded_size(shape), shape.groups, shape.C // shape.groups))
    for r, s, rows, columns in _taps(shape):
        total[:, rows, columns] += np.einsum("npqgk,gkc->npqgc", dy, grouped[:, :, r, s], optimize=True)
    inside = total[:, shape.pad_h : shape.pad_h + shape.H, shape.pad_w : shape.pad_w + shape.W]
    dx[...] = inside.reshape(shape.x)


@np.errstate(all="ignore")
def backward_weight(shape: Conv2dShape, x: Array, dy: Array, dw: Array) -> None:
    padded = _padded(shape, x)
    dy = dy.astype(np.float64).reshape(shape.N, shape.P, shape.Q, shape.groups, -1)
    for r, s, rows, columns in _taps(shape):
        tap = np.einsum("npqgc,npqgk->gkc", padded[:, rows, columns], dy, optimize=True)
        dw[:, r, s] = tap.reshape(shape.K, -1)
