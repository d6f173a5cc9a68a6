"""Linear: y = x w^T + b."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..tensor import Tensor
from . import init
from .module import Module


class Linear(Module):
    """x (..., in_features) -> y (..., out_features). ``weight`` is (out, in), ``bias`` (out,) or None.

    Both start uniform in +-1 / sqrt(in_features). Raises ValueError for sizes below 1.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(
                f"Linear: in_features and out_features must be at least 1, received {in_features} and {out_features}"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.weight = init.layer_weight((out_features, in_features))
        self.register_parameter("bias", init.layer_bias(self.weight.shape) if bias else None)

    def forward(self, x: Tensor, activation: str = "identity") -> Tensor:
        parameters: Any = self._parameters  # __getattr__ finds them too, after all else
        return F.linear(x, parameters["weight"], parameters["bias"], activation=activation)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
