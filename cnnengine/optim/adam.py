"""Adam, and AdamW, whose weight decay is apart from the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ..tensor import Tensor
from .optimizer import Group, Optimizer


class Adam(Optimizer):
    """For each parameter p with gradient g, at its step t = 1, 2, ..., as PyTorch does:

        g = g + weight_decay * p;  m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2
        p = p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    with m = v = 0 at first. ``lr`` may be set between steps; ``parameters`` as in Optimizer. Raises ValueError for a
    value that is negative or not finite, and for betas outside [0, 1). Kingma and Ba 2015.
    """

    kind = "adam"
    keeps = ("exp_avg", "exp_avg_sq")  # m and v, by PyTorch's names
    counts = True
    decoupled: ClassVar[bool] = False  # whether weight decay shrinks p by itself

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    def check(self, options: Group) -> None:
        self.require_at_least_0(options, "lr", "eps", "weight_decay")
        self.require_betas(options)

    def hyper(self, options: Group, step: int) -> tuple[float, ...]:
        return adam_numbers(options, step, self.decoupled)


class AdamW(Adam):
    """Adam whose weight decay multiplies p by 1 - lr * weight_decay before the step, and leaves g alone. Loshchilov and
    Hutter 2019."""

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)


def adam_numbers(options: Group, step: int, decoupled: bool) -> tuple[float, ...]:
    """The contract's numbers of a step of Adam, or of AdamW, whose weight decay is ``decoupled``."""
    lr, decay, (beta1, beta2) = options["lr"], options["weight_decay"], options["betas"]
    return (
        lr / (1 - beta1**step),
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        (1 - beta2**step) ** -0.5,
        options["eps"],
        0.0 if decoupled else decay,
        1 - lr * decay if decoupled else 1.0,
    )
