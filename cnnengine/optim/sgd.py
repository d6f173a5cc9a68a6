"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..tensor import Tensor
from .optimizer import Group, Optimizer


class SGD(Optimizer):
    """For each parameter p with gradient g, as PyTorch does:

        g = g + weight_decay * p;  v = momentum * v + g;  p = p - lr * (g + momentum * v if nesterov else v)

    with v = 0 at first. ``lr`` may be set between steps; ``parameters`` as in Optimizer. Raises ValueError for a value
    that is negative or not finite, and for ``nesterov`` without momentum. Sutskever et al. 2013.
    """

    kind = "sgd"
    keeps = ("velocity",)
    counts = False

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=bool(nesterov))

    def check(self, options: Group) -> None:
        self.require_at_least_0(options, "lr", "momentum", "weight_decay")
        if options["nesterov"] and not options["momentum"]:
            raise ValueError("SGD: nesterov needs a momentum above 0")

    def used(self, options: Group) -> tuple[str, ...]:
        return self.keeps if options["momentum"] else ()

    def hyper(self, options: Group, step: int) -> tuple[float, ...]:
        return options["lr"], options["momentum"], options["weight_decay"], float(options["nesterov"])
