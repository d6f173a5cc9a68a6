"""Stochastic depth: a residual branch is left out for some images of a batch."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..backends.registry import active
from ..tensor import Tensor, wrap
from .module import Module


class StochasticDepth(Module):
    """In training the rows of x (N, ...) are 0 with probability ``p`` and scaled by 1 / (1 - p) otherwise; else x.

    ``mode`` "row" decides for each n, "batch" once for all. Raises ValueError for ``p`` outside [0, 1) and other modes.
    Huang et al., arXiv 1603.09382.
    """

    def __init__(self, p: float, mode: str = "row") -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"StochasticDepth: p must lie in [0, 1), received {p}")
        if mode not in ("row", "batch"):
            raise ValueError(f"StochasticDepth: mode must be 'row' or 'batch', received {mode!r}")
        self.p = p
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        rows = x.shape[0] if self.mode == "row" else 1
        ones = active(x.data).to_device(np.ones((rows, *(1,) * (x.ndim - 1)), x.dtype))
        return x * F.dropout(wrap(ones), self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode}"
