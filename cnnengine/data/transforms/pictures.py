"""Between arrays and Pillow's images."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from PIL import Image

P = TypeVar("P", np.ndarray, Image.Image)
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def to_array(picture: np.ndarray | Image.Image) -> np.ndarray:
    """(H, W, C) uint8. Raises TypeError for another dtype, ValueError for another shape."""
    array = np.asarray(picture)
    array = array[..., np.newaxis] if array.ndim == 2 else array
    if array.dtype != np.uint8:
        raise TypeError(f"a picture must be uint8, received {array.dtype}")
    if array.ndim != 3:
        raise ValueError(f"a picture must be (H, W, C), received {array.shape}")
    return array


def to_pillow(picture: np.ndarray | Image.Image) -> Image.Image:
    """An image of mode L or RGB. Raises ValueError for an array of other than 1 or 3 channels."""
    if isinstance(picture, Image.Image):
        return picture
    array = to_array(picture)
    if array.shape[2] not in (1, 3):
        raise ValueError(f"a picture must have 1 or 3 channels, received {array.shape}")
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def like(given: P, result: np.ndarray | Image.Image) -> P:
    """``result`` as the kind of picture that ``given`` is."""
    return to_pillow(result) if isinstance(given, Image.Image) else to_array(result)


def resampling(operation: str, interpolation: str) -> Image.Resampling:
    """Pillow's filter of that name. Raises ValueError."""
    if interpolation not in FILTERS:
        raise ValueError(f"{operation}: interpolation must be one of {', '.join(FILTERS)}, received {interpolation!r}")
    return FILTERS[interpolation]


def in_unit(operation: str, **values: float) -> None:
    """Raises ValueError for a value outside [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{operation}: {name} must lie in [0, 1], received {value!r}")


def is_range(operation: str, name: str, pair: tuple[float, float]) -> None:
    """Raises ValueError unless the pair is (low, high) with 0 < low <= high."""
    if not 0 < pair[0] <= pair[1] < float("inf"):
        raise ValueError(f"{operation}: {name} must be (low, high) with 0 < low <= high, received {pair!r}")
