"""Parameter: a Tensor that a Module registers and an optimizer changes."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor


class Parameter(Tensor):
    """A leaf Tensor with ``requires_grad=True``, found by ``Module.parameters()`` when assigned to an attribute."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter of shape {self.shape}:\n{super().__repr__()}"
