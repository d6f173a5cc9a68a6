"""Elementwise arithmetic with NumPy's broadcasting."""

from __future__ import annotations

import numpy as np

from ..contract import Array

_BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "equal": np.equal,
}
_UNARY = {"neg": np.negative, "exp": np.exp, "log": np.log, "sqrt": np.sqrt}


def binary(op: str, a: Array, b: Array, y: Array) -> None:
    """y = a op b; division by zero and overflow give infinity or NaN, as in IEEE 754, without a warning."""
    with np.errstate(all="ignore"):
        y[...] = _BINARY[op](a, b).reshape(y.shape)


def unary(op: str, x: Array, y: Array) -> None:
    with np.errstate(all="ignore"):
        y[...] = _UNARY[op](x)
