"""Casts within ``cnn.amp.autocast``: to which dtype, and those of parameters that are kept.

An operation on one of the lists of docs/amp.md asks ``autocast_region()``, once, and casts its inputs where there is
one. Operations that follow their inputs ask only where these have two dtypes and would raise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..autograd import grad_enabled
from ..backends.contract import Array, PackedWeight
from ..backends.registry import active
from ..errors import Unsupported
from ..tensor import Tensor, record, wrap
from ._common import NUMBERS, tensor
from .layout import Cast, cast


class Kept(NamedTuple):
    """The cast of a leaf: of which array, after how many changes of it in place, and the result."""

    data: Array
    changes: int
    low: Tensor


class Region:
    """An ``autocast`` block: the dtype of its products, and the casts of leaves that it shares with blocks within."""

    __slots__ = ("casts", "dtype")

    def __init__(self, dtype: np.dtype[Any], casts: dict[tuple[Tensor, np.dtype[Any]], Kept]) -> None:
        self.dtype = dtype
        self.casts = casts

    def low(self, operation: str, *operands: Any) -> list[Any]:
        """Operands of a product in the region's dtype, None as it is; of a prepared weight of another dtype what it was
        prepared from. Raises Unsupported where the backend does not compute in the dtype."""
        return [
            t if isinstance(t, PackedWeight) and t.w.dtype == self.dtype else self._cast(operation, t, self.dtype)
            for t in operands
        ]

    def like(self, operation: str, x: Tensor, *operands: Any) -> list[Any]:
        """Operands in x's dtype, None as it is."""
        return [self._cast(operation, t, x.dtype) for t in operands]

    def _cast(self, operation: str, operand: Any, dtype: np.dtype[Any]) -> Tensor | None:
        """An operand in a dtype; float64 stays as it is. A leaf that requires a gradient is cast once, and again after
        a change; each use is recorded by itself, since a backward pass frees the nodes it walks over."""
        if operand is None:
            return None
        t = wrap(operand.w) if isinstance(operand, PackedWeight) else tensor(operand)
        if t.dtype == dtype or t.dtype.itemsize > 4 or dtype.itemsize > 4:
            return t
        backend = active(t.data)
        if dtype.name not in backend.dtypes:
            elsewhere = 'cnn.use_backend("emulator") or a GPU' if backend.device == "cpu" else 'cnn.use_backend("cuda")'
            raise Unsupported(
                f"{operation}: autocast computes it in {dtype}, but backend {backend.name!r} computes in"
                f" {', '.join(sorted(backend.dtypes))}; use {elsewhere}, or autocast(enabled=False)"
            )
        if t.node is not None or not t.requires_grad:
            return cast(t, dtype)
        kept = self.casts.get((t, dtype))
        if kept is None or kept.data is not t.data or kept.changes != t.version[0]:
            kept = self.casts[t, dtype] = Kept(t.data, t.version[0], cast(t.detach(), dtype))
        if grad_enabled():
            return record(kept.low.data, Cast(backend, (t,), t.dtype), kept.low.version)
        return kept.low


def wide(x: Any) -> Any:
    """An operand that needs range: float32 where it has 2 bytes an element. None and numbers stay as they are."""
    if x is None or isinstance(x, NUMBERS):
        return x
    x = tensor(x)
    return cast(x, np.float32) if x.dtype.itemsize == 2 else x
