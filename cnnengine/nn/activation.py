"""Activations as modules: functional's, with PyTorch's names and arguments."""

from __future__ import annotations

from .. import functional as F
from ..functional.activation import checked_parameter
from ..tensor import Tensor
from .module import Module


class ReLU(Module):
    """max(x, 0), elementwise; NaN stays NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class ReLU6(Module):
    """min(max(x, 0), 6), elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x)


class LeakyReLU(Module):
    """x where x > 0, else ``negative_slope`` * x. Raises ValueError for a slope that is not finite."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = checked_parameter("leaky_relu", negative_slope)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class SiLU(Module):
    """x / (1 + exp(-x)), elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


class GELU(Module):
    """x P(X <= x) for a normal X, or its approximation by "tanh". Raises ValueError for another ``approximate``."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', received {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Sigmoid(Module):
    """1 / (1 + exp(-x)), elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    """The hyperbolic tangent, elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class Hardswish(Module):
    """x min(max(x + 3, 0), 6) / 6, elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(x)


class Hardsigmoid(Module):
    """min(max(x + 3, 0), 6) / 6, elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.hardsigmoid(x)


class ELU(Module):
    """x where x > 0, else ``alpha`` * (exp(x) - 1). Raises ValueError for an alpha that is not finite."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = checked_parameter("elu", alpha)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
