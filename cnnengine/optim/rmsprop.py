"""RMSprop in PyTorch's form and in TensorFlow's, with which MobileNet and EfficientNet were trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ..backends.contract import Array
from ..tensor import Tensor
from ._composed import Arithmetic, Composed
from .optimizer import Group


class RMSprop(Composed):
    """For each parameter p with gradient g, as PyTorch does:

        g = g + weight_decay * p;  v = alpha * v + (1 - alpha) * g^2;  s = sqrt(v) + eps
        b = momentum * b + g / s;  p = p - lr * b

    with v = b = 0 at first; ``centered`` puts the variance v - m^2 in v's place, with m = alpha * m + (1 - alpha) * g.
    Raises ValueError for a value that is negative or not finite, and for alpha outside [0, 1). Tieleman and Hinton
    2012, lecture 6.5; centered: Graves 2013.
    """

    keeps = ("square_avg", "momentum_buffer", "grad_avg")
    counts = False
    rate_in_momentum: ClassVar[bool] = False  # whether b holds steps, which a later lr leaves as they are

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=bool(centered),
        )

    def check(self, options: Group) -> None:
        self.require_at_least_0(options, "lr", "eps", "weight_decay", "momentum")
        if not 0 <= options["alpha"] < 1:
            raise ValueError(f"{type(self).__name__}: alpha must lie in [0, 1), received {options['alpha']}")

    def used(self, options: Group) -> tuple[str, ...]:
        wanted = {"square_avg": True, "momentum_buffer": options["momentum"], "grad_avg": options["centered"]}
        return tuple(name for name in self.keeps if wanted[name])

    def hyper(self, options: Group, step: int) -> tuple[float, ...]:
        return options["lr"], 1 - options["alpha"], options["eps"], options["weight_decay"], options["momentum"]

    def update(
        self, do: Arithmetic, group: Group, p: Array, g: Array, states: dict[str, Array], numbers: Sequence[Array]
    ) -> Array:
        lr, rest, eps, decay, momentum = numbers
        g = do.add(g, do.mul(decay, p))
        v = states["square_avg"]
        do.mix(v, rest, do.mul(g, g))
        if group["centered"]:
            mean = states["grad_avg"]
            do.mix(mean, rest, g)
            v = do.sub(v, do.mul(mean, mean))
        change = do.div(g, self.divisor(do, v, eps))
        if self.rate_in_momentum:
            change = do.mul(lr, change)
        if group["momentum"]:
            change = do.add(do.mul(momentum, states["momentum_buffer"]), change)
            do.store(change, states["momentum_buffer"])
        return do.sub(p, change if self.rate_in_momentum else do.mul(lr, change))

    def divisor(self, do: Arithmetic, v: Array, eps: Array) -> Array:
        """What the gradient is divided by."""
        return do.add(do.sqrt(v), eps)


class RMSpropTF(RMSprop):
    """TensorFlow's form, in which published recipes give their numbers: v = 1 at first, eps within the root, and the
    learning rate within the momentum:

        v = alpha * v + (1 - alpha) * g^2;  b = momentum * b + lr * g / sqrt(v + eps);  p = p - b
    """

    begins: ClassVar[Mapping[str, float]] = {"square_avg": 1.0}
    rate_in_momentum = True

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.9,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(parameters, lr, alpha, eps, weight_decay, momentum, centered)

    def divisor(self, do: Arithmetic, v: Array, eps: Array) -> Array:
        return do.sqrt(do.add(v, eps))
