"""The border: what users hand in becomes a floating-point C-contiguous array, shared where possible."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from .backends.contract import Array

FLOATS = {np.dtype(t) for t in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)}


def as_array(data: Any) -> Array:
    """A floating-point C-contiguous NumPy or CuPy array of the data, shared where possible. Raises TypeError."""
    becomes_float32 = isinstance(data, int | float | list | tuple) and not isinstance(data, np.generic)
    data = any_array(data)
    if becomes_float32 and data.dtype.kind in "iufb":
        data = data.astype(np.float32)
    if data.dtype not in FLOATS:
        raise TypeError(
            f"Tensor: expected float16, bfloat16, float32 or float64, received {data.dtype} of shape {data.shape};"
            " convert it, for instance with array.astype(numpy.float32) (labels stay integer arrays)"
        )
    if type(data) is not np.ndarray and isinstance(data, np.ndarray):
        data = np.asarray(data)
    if not data.flags.c_contiguous or not getattr(data.flags, "aligned", True):
        data = data.copy(order="C")
    return data


def any_array(data: Any) -> Array:
    """A NumPy or CuPy array of the data in whatever dtype it has, shared where possible. Raises TypeError,
    and ValueError for a list whose rows differ in length."""
    if isinstance(data, np.ndarray) or type(data).__module__.split(".")[0] == "cupy":
        return data
    if isinstance(data, np.generic | int | float | list | tuple):
        try:
            return np.asarray(data)
        except ValueError as error:  # rows of different lengths
            raise ValueError(f"expected an array, a list of equal rows or a number: {error}") from error
    return _from_protocol(data)


def _from_protocol(data: Any) -> Array:
    """An array of another library: through DLPack, on the device it is on."""
    if hasattr(data, "__cuda_array_interface__"):
        import cupy

        return cupy.asarray(data)
    if hasattr(data, "__dlpack__"):
        return np.from_dlpack(data)
    if hasattr(data, "__array__"):
        return np.asarray(data)
    raise TypeError(f"expected an array, a list or a number, received {type(data).__qualname__}")
