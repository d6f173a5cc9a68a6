"""The epilogue of a convolution or product, in float64."""

from __future__ import annotations

import numpy as np

from ..contract import Array, Epilogue
from .activation import activate


def apply(y: np.ndarray, epilogue: Epilogue) -> Array:
    """y (..., K) float64 -> activation((y + bias) * scale + shift + residual)."""

    def wide(part: Array) -> np.ndarray:
        return np.asarray(part).astype(np.float64)

    if epilogue.bias is not None:
        y = y + wide(epilogue.bias)
    if epilogue.scale is not None:
        y = y * wide(epilogue.scale)
    if epilogue.shift is not None:
        y = y + wide(epilogue.shift)
    if epilogue.residual is not None:
        y = y + wide(epilogue.residual)
    return activate(epilogue.activation, y, epilogue.parameter)
