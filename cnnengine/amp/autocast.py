"""autocast: where it begins, where it ends. What each operation does in it stands with the operation."""

from __future__ import annotations

from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import Any

import ml_dtypes
import numpy as np

from ..functional._autocast import Region
from ..functional._common import autocast_region, set_autocast_region

DTYPES = tuple(map(np.dtype, (np.float16, ml_dtypes.bfloat16)))
_outer: ContextVar[tuple[Region | None, ...]] = ContextVar("outer_autocast", default=())  # of blocks that are open


class autocast(ContextDecorator):
    """Within the block convolutions and products run in ``dtype``, "float16" or "bfloat16", operations that need range
    in float32, all others in the dtype of their inputs: docs/amp.md lists them. Also a decorator.

    Parameters stay float32, and so do their gradients; the cast of one is kept until the outermost block ends. Blocks
    nest, and hold for this thread or task; with ``enabled=False`` every operation runs as outside. ``backward()`` may
    come behind the block. Raises ValueError for another dtype; an operation whose backend lacks it raises Unsupported.
    """

    def __init__(self, dtype: Any = "float16", enabled: bool = True) -> None:
        try:
            self.dtype = np.dtype(dtype)
        except TypeError:  # a name NumPy does not know
            self.dtype = dtype
        if self.dtype not in DTYPES:
            raise ValueError(f"autocast: dtype must be 'float16' or 'bfloat16', received {dtype!r}")
        self.enabled = bool(enabled)

    def __enter__(self) -> None:
        outer = autocast_region()
        _outer.set((*_outer.get(), outer))
        casts = {} if outer is None else outer.casts
        set_autocast_region(Region(self.dtype, casts) if self.enabled else None)

    def __exit__(self, *exception: object) -> None:
        *others, outer = _outer.get()
        _outer.set(tuple(others))
        region = autocast_region()
        if outer is None and region is not None:
            region.casts.clear()
        set_autocast_region(outer)
