"""Muon: momentum whose matrices are made orthogonal before they are subtracted; AdamW for everything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod, sqrt
from typing import Any

from .._arguments import is_int
from ..backends.contract import Array, Backend
from ..functional._arrays import constant
from ..nn.module import Module
from ..tensor import Tensor
from ._composed import Arithmetic, Composed
from .adam import adam_numbers
from .optimizer import Group

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of the quintic; Jordan's, the steepest at 0
SMALLEST_NORM = 1e-7


class Muon(Composed):
    """For each parameter p (rows, ...) with gradient g, taken as a matrix of ``rows`` rows:

        b = momentum * b + (1 - momentum) * g;  u = (1 - momentum) * g + momentum * b if nesterov else b
        p = p - lr * weight_decay * p - lr * sqrt(max(1, rows / columns)) * orthogonal(u)

    with b = 0 at first. ``orthogonal`` brings all singular values near 1 by ``ns_steps`` steps of a Newton-Schulz
    iteration: X = a X + (b A + c A^2) X with A = X X^T. It is meant for hidden layers: a group with ``use_muon=False``
    takes AdamW's steps with its ``betas`` and ``eps``, which suits biases, norms, the first and the last layer;
    ``muon_groups`` makes such groups. Raises ValueError for a value that is negative or not finite, betas outside
    [0, 1), ``ns_steps`` below 1, ``nesterov`` without momentum, and a parameter that is no matrix in a group with
    ``use_muon``. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the names of PyTorch's Muon.
    """

    kind = "adam"
    keeps = ("momentum_buffer", "exp_avg", "exp_avg_sq")
    counts = True

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        use_muon: bool = True,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(
            parameters,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=bool(nesterov),
            ns_steps=ns_steps,
            use_muon=bool(use_muon),
            betas=tuple(betas),
            eps=eps,
        )

    def check(self, options: Group) -> None:
        self.require_at_least_0(options, "lr", "weight_decay", "momentum", "eps")
        self.require_betas(options)
        if options["nesterov"] and not options["momentum"]:
            raise ValueError("Muon: nesterov needs a momentum above 0")
        if options["momentum"] >= 1:
            raise ValueError(f"Muon: momentum must lie in [0, 1), received {options['momentum']}")
        if not is_int(options["ns_steps"]) or options["ns_steps"] < 1:
            raise ValueError(f"Muon: ns_steps must be an int of at least 1, received {options['ns_steps']!r}")
        if options["use_muon"] and (flat := [p.shape for p in options["params"] if p.ndim < 2]):
            raise ValueError(
                f"Muon: a parameter of shape {flat[0]} is no matrix; put it into a group with use_muon=False"
                " (muon_groups does)"
            )

    def used(self, options: Group) -> tuple[str, ...]:
        return self.keeps[:1] if options["use_muon"] else self.keeps[1:]

    def hyper(self, options: Group, step: int) -> tuple[float, ...]:
        if not options["use_muon"]:
            return adam_numbers(options, step, decoupled=True)
        lr, decay, momentum = (options[o] for o in ("lr", "weight_decay", "momentum"))
        return lr, 1 - lr * decay, momentum, 1 - momentum

    def apply(
        self,
        backend: Backend,
        group: Group,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        states: Sequence[Array],
        hyper: Array,
    ) -> None:
        if group["use_muon"]:
            super().apply(backend, group, parameters, gradients, states, hyper)
        else:
            backend.optimizer_step(self.kind, parameters, gradients, states, hyper)

    def update(
        self, do: Arithmetic, group: Group, p: Array, g: Array, states: dict[str, Array], numbers: Sequence[Array]
    ) -> Array:
        lr, kept, momentum, rest = numbers
        b = states["momentum_buffer"]
        do.mix(b, rest, g)
        if group["nesterov"]:
            b = do.add(do.mul(rest, g), do.mul(momentum, b))
        rows, columns = p.shape[0], prod(p.shape[1:])
        u = orthogonal(do, b.reshape(rows, columns), group["ns_steps"]).reshape(p.shape)
        scale = constant(do.backend, do.dtype, sqrt(max(1.0, rows / columns)))
        return do.sub(do.mul(kept, p), do.mul(do.mul(lr, scale), u))


def orthogonal(do: Arithmetic, u: Array, steps: int) -> Array:
    """The matrix with its singular values brought near 1, in about [0.7, 1.2] where they were not tiny."""
    a, b, c, floor = (constant(do.backend, do.dtype, value) for value in (*COEFFICIENTS, SMALLEST_NORM))
    x = do.div(u, do.largest(do.norm(u), floor))  # no singular value is above 1 then
    tall = x.shape[0] > x.shape[1]
    for _ in range(steps):
        gram = do.matmul(x, x, turn_a=tall, turn_b=not tall)  # of the shorter side
        quintic = do.add(do.mul(b, gram), do.mul(c, do.matmul(gram, gram)))
        x = do.add(do.mul(a, x), do.matmul(x, quintic) if tall else do.matmul(quintic, x))
    return x


def muon_groups(model: Module, **others: Any) -> list[dict[str, Any]]:
    """Two groups of a model's parameters for ``Muon``: the hidden layers' matrices and filters, and with
    ``use_muon=False`` and the options ``others`` the rest: vectors, and the first and the last layer's weights."""
    weights = [p for p in model.parameters() if p.ndim >= 2]
    hidden = {id(p) for p in weights[1:-1]}
    groups = [
        {"params": [p for p in model.parameters() if id(p) in hidden]},
        {"params": [p for p in model.parameters() if id(p) not in hidden], "use_muon": False, **others},
    ]
    return [group for group in groups if group["params"]]
