"""Images of bytes to floating-point numbers."""

from __future__ import annotations

import numpy as np

from ..contract import Array


def normalize_images(x: Array, factor: Array, offset: Array, y: Array) -> None:
    wide = np.promote_types(y.dtype, np.float32)
    y[...] = x.astype(wide) * factor + offset
