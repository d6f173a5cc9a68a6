"""LAMB: AdamW whose step is scaled to each parameter's size, for large batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..backends.contract import Array
from ..functional._arrays import constant
from ..tensor import Tensor
from ._composed import Arithmetic, Composed
from .optimizer import Group


class LAMB(Composed):
    """For each parameter p with gradient g, at its step t = 1, 2, ..., by Algorithm 2 of You et al. 2020:

        m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2
        u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p
        p = p - lr * u * |p| / |u|

    with m = v = 0 at first and Euclidean norms; the ratio of the norms is 1 where one of them is 0. Raises ValueError
    for a value that is negative or not finite, and for betas outside [0, 1).
    """

    keeps = ("exp_avg", "exp_avg_sq")
    counts = True

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)

    def check(self, options: Group) -> None:
        self.require_at_least_0(options, "lr", "eps", "weight_decay")
        self.require_betas(options)

    def hyper(self, options: Group, step: int) -> tuple[float, ...]:
        beta1, beta2 = options["betas"]
        return (
            options["lr"],
            1 - beta1,
            1 - beta2,
            1 / (1 - beta1**step),
            1 / (1 - beta2**step),
            options["eps"],
            options["weight_decay"],
        )

    def update(
        self, do: Arithmetic, group: Group, p: Array, g: Array, states: dict[str, Array], numbers: Sequence[Array]
    ) -> Array:
        lr, rest1, rest2, correction1, correction2, eps, decay = numbers
        m, v = states["exp_avg"], states["exp_avg_sq"]
        do.mix(m, rest1, g)
        do.mix(v, rest2, do.mul(g, g))
        u = do.div(do.mul(correction1, m), do.add(do.sqrt(do.mul(correction2, v)), eps))
        u = do.add(u, do.mul(decay, p))
        return do.sub(p, do.mul(do.mul(lr, _trust(do, do.norm(p), do.norm(u))), u))


def _trust(do: Arithmetic, p: Array, u: Array) -> Array:
    """p / u of two norms, 1 where one of them is 0: where that is so both are made 1 first."""
    zero, one = (constant(do.backend, do.dtype, value) for value in (0.0, 1.0))
    fine = do.mul(do.sub(one, do.equal(p, zero)), do.sub(one, do.equal(u, zero)))
    instead = do.sub(one, fine)
    return do.div(do.add(do.mul(fine, p), instead), do.add(do.mul(fine, u), instead))
