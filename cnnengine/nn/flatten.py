"""Flatten as a module."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from .module import Module

ORDERS = ("HWC", "CHW")


class Flatten(Module):
    """(N, H, W, C) -> (N, H*W*C), free of cost; with ``order="CHW"`` -> (N, C*H*W), one transposition.

    "CHW" is for networks whose next linear layer was trained on channels first, such as PyTorch's. An input of another
    rank is flattened behind its first axis. Raises ValueError for another order.
    """

    def __init__(self, order: str = "HWC") -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"Flatten: order must be one of {', '.join(ORDERS)}, received {order!r}")
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        if self.order == "CHW" and x.ndim == 4:
            x = F.permute(x, (0, 3, 1, 2))
        return F.flatten(x, 1)

    def extra_repr(self) -> str:
        return f"order={self.order!r}"
