"""Activations over any shape, from their definitions in docs/semantics.md."""

from __future__ import annotations

import math

import numpy as np

from ..contract import Array

_PIECEWISE_LINEAR = ("relu", "relu6", "hardswish", "hardsigmoid")
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


@np.errstate(all="ignore")
def activate(kind: str, x: np.ndarray, parameter: float) -> Array:
    """``kind`` of x (float64 where precision matters), in x's dtype or wider; ``parameter`` as in the contract."""
    if kind == "identity":
        return x
    if kind == "relu":
        return np.where(x <= 0, 0, x)
    if kind == "relu6":
        return np.where(x <= 0, 0, np.where(x > 6, 6, x))
    if kind == "leaky_relu":
        return np.where(x > 0, x, x * parameter)
    if kind == "silu":
        return x * _logistic(x)
    if kind == "gelu":
        return x * _normal(x)
    if kind == "gelu_tanh":
        return x * _logistic(_gelu_argument(x))
    if kind == "sigmoid":
        return _logistic(x)
    if kind == "tanh":
        return np.tanh(x)
    if kind == "hardswish":
        return x * (np.clip(x + 3, 0, 6) / 6)
    if kind == "hardsigmoid":
        return np.clip(x + 3, 0, 6) / 6
    if kind == "elu":
        return np.where(x > 0, x, parameter * np.expm1(np.where(x > 0, 0, x)))
    raise ValueError(f"activation: unknown kind {kind!r}")


@np.errstate(all="ignore")
def derivative(kind: str, saved: np.ndarray, parameter: float) -> Array:
    """dy/dx from what the contract's ACTIVATION_SAVES keeps of the forward pass."""
    if kind == "identity":
        return np.ones_like(saved)
    if kind == "relu":
        return np.where(saved <= 0, 0, 1)
    if kind == "relu6":
        return np.where((saved > 0) & (saved < 6), 1, 0)
    if kind == "leaky_relu":
        return np.where(saved > 0, 1, parameter)
    if kind == "silu":
        y = _logistic(saved)
        return y * (1 + saved * (1 - y))
    if kind == "gelu":
        return _normal(saved) + saved * np.exp(-saved * saved / 2) / np.sqrt(2 * np.pi)
    if kind == "gelu_tanh":
        y, x = _logistic(_gelu_argument(saved)), np.clip(saved, -100, 100)
        return y + saved * (y * (1 - y)) * (2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x))
    if kind == "sigmoid":
        return saved * (1 - saved)
    if kind == "tanh":
        return 1 - saved * saved
    if kind == "hardswish":
        return np.where(saved >= 3, 1, np.where(saved <= -3, 0, saved / 3 + 0.5))
    if kind == "hardsigmoid":
        return np.where((saved > 0) & (saved < 1), 1 / 6, 0)
    if kind == "elu":
        return np.where(saved > 0, 1, saved + parameter)
    raise ValueError(f"activation: unknown kind {kind!r}")


@np.errstate(all="ignore")
def forward(kind: str, x: Array, y: Array, parameter: float) -> None:
    y[...] = activate(kind, x.astype(np.float64), parameter)


@np.errstate(all="ignore")
def backward(kind: str, saved: Array, dy: Array, dx: Array, parameter: float) -> None:
    """The piecewise linear kinds choose: no dy, not even infinity or NaN, passes where the derivative is 0."""
    slope = derivative(kind, saved.astype(np.float64), parameter)
    dx[...] = dy.astype(np.float64) * slope
    if kind in _PIECEWISE_LINEAR:
        dx[slope == 0] = 0


def _logistic(x: np.ndarray) -> Array:
    """1 / (1 + exp(-x)), by exp(-|x|), which keeps small results and cannot overflow"""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def _normal(x: np.ndarray) -> Array:
    """P(X <= x) of the normal distribution"""
    return _erfc(-x / math.sqrt(2)) / 2


def _gelu_argument(x: np.ndarray) -> Array:
    """2 sqrt(2 / pi) (x + 0.044715 x^3): 0.5 (1 + tanh(z)) is the logistic function of 2 z"""
    x = np.clip(x, -100, 100)
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
