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


@np.errstate(all="ignore")
def binary(op: str, a: Array, b: Array, y: Array) -> None:
    """y = a op b; division by zero and overflow give infinity or NaN, as in IEEE 754, without a warning."""
    y[...] = _BINARY[op](a, b).reshape(y.shape)


@np.errstate(all="ignore")
def unary(op: str, x: Array, y: Array) -> None:
    y[...] = _UNARY[op](x)
