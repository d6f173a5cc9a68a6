"""Images in another size, as a module."""

from __future__ import annotations

from .. import functional as F
from ..shapes import Pair
from ..tensor import Tensor
from .module import Module


class Upsample(Module):
    """x (N, H, W, C) -> (N, P, Q, C) by ``F.interpolate``, with the same arguments."""

    def __init__(
        self,
        size: int | Pair | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        target = f"size={self.size}" if self.scale_factor is None else f"scale_factor={self.scale_factor}"
        return f"{target}, mode={self.mode!r}, align_corners={self.align_corners}"
