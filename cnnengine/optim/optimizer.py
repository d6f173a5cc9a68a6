"""What every optimizer shares: its parameters, their gradients, and a state that can be saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..nn.module import clear_gradient
from ..tensor import Tensor


class Optimizer:
    """Base of the optimizers. ``parameters`` is any iterable of leaf Tensors that require a gradient.

    Raises ValueError for an empty iterable or a parameter given twice, TypeError for what is no such Tensor.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)
        name = type(self).__name__
        if not self.parameters:
            raise ValueError(f"{name}: there are no parameters to train")
        for i, parameter in enumerate(self.parameters):
            if not isinstance(parameter, Tensor):
                raise TypeError(f"{name}: parameter {i} must be a Tensor, received {type(parameter).__name__}")
            if parameter.node is not None:
                raise TypeError(f"{name}: parameter {i} of shape {parameter.shape} is a result, not a leaf")
        if len({id(p) for p in self.parameters}) != len(self.parameters):
            raise ValueError(f"{name}: a parameter is given twice")

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters, or fill them with 0."""
        for parameter in self.parameters:
            clear_gradient(parameter, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go on bit for bit."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a ``state_dict()``; raises ValueError, changing nothing, if it does not fit."""
        raise NotImplementedError
