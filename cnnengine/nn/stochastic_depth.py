"""Stochastic depth as a module."""

from __future__ import annotations

from .. import functional as F
from ..functional.drop_path import MODES
from ..tensor import Tensor
from .module import Module


class StochasticDepth(Module):
    """In training leaves out x[n] with probability ``p`` and scales the others by 1 / (1 - p), or with ``mode="batch"``
    the whole of x; else x itself. It stands at the end of a branch beside a shortcut.

    Raises ValueError for ``p`` outside [0, 1) and another mode. Huang et al. 2016.
    """

    def __init__(self, p: float, mode: str = "row") -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"StochasticDepth: p must lie in [0, 1), received {p}")
        if mode not in MODES:
            raise ValueError(f"StochasticDepth: mode must be one of {', '.join(MODES)}, received {mode!r}")
        self.p = p
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return F.drop_path(x, self.p, self.training, self.mode)

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode}"
