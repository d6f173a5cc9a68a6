"""Losses as modules."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..tensor import Tensor
from .module import Module


class CrossEntropyLoss(Module):
    """logits (..., C), integer labels (...) -> softmax cross-entropy: its "mean" or "sum", or with "none" all losses.
    Arguments as of ``functional.cross_entropy``; ``weight`` (C,) is a buffer."""

    weight: Tensor | None

    def __init__(
        self,
        reduction: str = "mean",
        *,
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"CrossEntropyLoss: reduction must be mean, sum or none, received {reduction!r}")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"CrossEntropyLoss: label_smoothing must be in [0, 1], received {label_smoothing!r}")
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        if weight is None:
            self.weight = None
        else:
            self.register_buffer("weight", weight if isinstance(weight, Tensor) else Tensor(weight))

    def forward(self, logits: Tensor, labels: Any) -> Tensor:
        return F.cross_entropy(
            logits,
            labels,
            self.reduction,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )

    def extra_repr(self) -> str:
        extra = "" if self.ignore_index is None else f", ignore_index={self.ignore_index}"
        return f"reduction={self.reduction!r}{extra}" + (
            f", label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        )
