"""Losses as modules."""

from __future__ import annotations

from .. import functional as F
from ..backends.contract import Array
from ..tensor import Tensor
from .module import Module


class CrossEntropyLoss(Module):
    """logits (M, C), integer labels (M,) -> softmax cross-entropy: its "mean" or "sum", or with "none" (M,)."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"CrossEntropyLoss: reduction must be mean, sum or none, received {reduction!r}")
        self.reduction = reduction

    def forward(self, logits: Tensor, labels: Array) -> Tensor:
        return F.cross_entropy(logits, labels, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
