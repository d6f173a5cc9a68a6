"""Images of bytes to floating-point numbers of mean about 0 and deviation about 1, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .._border import FLOATS, any_array
from ..backends.contract import Array, Backend
from ..backends.registry import active
from ..errors import Unsupported
from ..tensor import Tensor, wrap

Numbers = float | Sequence[float]


def normalize_images(images: Any, mean: Numbers, std: Numbers, dtype: Any = "float32") -> Tensor:
    """``(images / 255 - mean) / std`` of uint8 images (..., C), on their device, as a tensor of ``dtype``; mean and std
    are numbers, or one a channel. It has no gradient.

    Raises TypeError for images of another dtype, ValueError for empty ones, for a mean or std that does not fit the
    channels or is not finite, and for a std that is not above 0; Unsupported for a dtype that the backend lacks.
    """
    x = any_array(images)
    if x.dtype != np.uint8:
        raise TypeError(f"normalize_images: images must be uint8 in [0, 255], received {x.dtype}")
    if not x.ndim or not x.size:
        raise ValueError(f"normalize_images: images must be (..., C) and not empty, received {x.shape}")
    if type(x) is not np.ndarray and isinstance(x, np.ndarray):
        x = np.asarray(x)
    if not x.flags.c_contiguous:
        x = x.copy(order="C")
    wanted = np.dtype(dtype)
    backend = active(x)
    if wanted not in FLOATS or wanted.name not in backend.dtypes:
        raise Unsupported(
            f"normalize_images: backend {backend.name!r} computes in {', '.join(sorted(backend.dtypes))}, not {wanted}"
        )
    kind = np.promote_types(wanted, np.float32).name
    numbers = _numbers(_channels("mean", mean, x.shape[-1]), _channels("std", std, x.shape[-1]), kind)
    factor, offset = (_on_device(backend, array) for array in numbers)
    y = backend.empty(x.shape, wanted)
    backend.normalize_images(x, factor, offset, y)
    return wrap(y)


def _channels(name: str, values: Numbers, channels: int) -> tuple[float, ...]:
    """One finite number a channel. Raises ValueError."""
    given = np.asarray(values, np.float64).reshape(-1)
    if given.size not in (1, channels) or not np.isfinite(given).all():
        raise ValueError(
            f"normalize_images: {name} must be a finite number, or one for each of {channels} channels, received"
            f" {values!r}"
        )
    if name == "std" and not (given > 0).all():
        raise ValueError(f"normalize_images: std must be above 0, received {values!r}")
    return tuple(np.broadcast_to(given, (channels,)).tolist())


@lru_cache(64)
def _numbers(mean: tuple[float, ...], std: tuple[float, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(factor, offset) of the contract"""
    deviations = np.array(std)
    return (1 / (255 * deviations)).astype(dtype), (-np.array(mean) / deviations).astype(dtype)


def _on_device(backend: Backend, array: np.ndarray) -> Array:
    return array if backend.device == "cpu" else backend.to_device(array)
