"""Local response normalisation as a module."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from .module import Module


class LocalResponseNorm(Module):
    """x (..., C) / (k + alpha * mean square of the ``size`` channels around each)^beta: ``F.local_response_norm``."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
