"""Pooling from its definition: one output position after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...shapes import Pool2dShape
from ..contract import Array


def _axis(start: int, window: int, dilation: int, size: int) -> list[tuple[int, int]]:
    """(tap, input position) of the taps of one window that lie inside the input"""
    return [(t, start + t * dilation) for t in range(window) if 0 <= start + t * dilation < size]


def _rows(shape: Pool2dShape, p: int) -> list[tuple[int, int]]:
    if shape.adaptive:
        start, stop = p * shape.H // shape.P, -(-(p + 1) * shape.H // shape.P)
        return _axis(start, stop - start, 1, shape.H)
    return _axis(p * shape.stride_h - shape.pad_h, shape.R, shape.dilation_h, shape.H)


def _columns(shape: Pool2dShape, q: int) -> list[tuple[int, int]]:
    if shape.adaptive:
        start, stop = q * shape.W // shape.Q, -(-(q + 1) * shape.W // shape.Q)
        return _axis(start, stop - start, 1, shape.W)
    return _axis(q * shape.stride_w - shape.pad_w, shape.S, shape.dilation_w, shape.W)


def _windows(shape: Pool2dShape) -> Iterator[tuple[int, int, list[tuple[int, int]], list[tuple[int, int]]]]:
    for p in range(shape.P):
        for q in range(shape.Q):
            yield p, q, _rows(shape, p), _columns(shape, q)


def _divisor(shape: Pool2dShape, p: int, q: int, rows: int, columns: int) -> int:
    """The shape's, or the elements averaged: the real ones, with ``count_include_pad`` all inside the padded input."""
    if shape.divisor:
        return shape.divisor
    if not shape.count_include_pad:
        return rows * columns
    top, left = p * shape.stride_h - shape.pad_h, q * shape.stride_w - shape.pad_w
    bottom, right = min(top + shape.R, shape.H + shape.pad_h), min(left + shape.S, shape.W + shape.pad_w)
    return (bottom - top) * (right - left)


@np.errstate(all="ignore")
def forward(kind: str, shape: Pool2dShape, x: Array, y: Array, index: Array | None) -> None:
    wide = x.astype(np.float64)
    for p, q, rows, columns in _windows(shape):
        if kind == "avg":
            total = sum(wide[:, h, w] for _, h in rows for _, w in columns)
            y[:, p, q] = total / _divisor(shape, p, q, len(rows), len(columns))
            continue
        best = np.full((shape.N, shape.C), -np.inf)
        winner = np.full((shape.N, shape.C), rows[0][0] * shape.S + columns[0][0])
        for r, h in rows:
            for s, w in columns:
                wins = (wide[:, h, w] > best) | (np.isnan(wide[:, h, w]) & ~np.isnan(best))
                best = np.where(wins, wide[:, h, w], best)
                winner = np.where(wins, r * shape.S + s, winner)
        y[:, p, q] = best
        if index is not None:
            index[:, p, q] = winner


@np.errstate(all="ignore")
def backward(kind: str, shape: Pool2dShape, dy: Array, index: Array | None, dx: Array) -> None:
    total = np.zeros(shape.x)
    for p, q, rows, columns in _windows(shape):
        share = dy[:, p, q].astype(np.float64)
        if kind == "avg":
            share = share / _divisor(shape, p, q, len(rows), len(columns))
        for r, h in rows:
            for s, w in columns:
                won = 1 if index is None else index[:, p, q] == r * shape.S + s
                total[:, h, w] += share * won
    dx[...] = total
