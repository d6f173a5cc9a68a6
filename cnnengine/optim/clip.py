"""Gradients kept within bounds before a step."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .. import replay
from ..backends.contract import Array
from ..backends.registry import active_on
from ..functional._arrays import constant, unary_array
from ..functional.reduce import reduce_array
from ..tensor import Tensor, wrap
from ._composed import Arithmetic

BESIDE = 1e-6  # PyTorch's, beside the norm it divides by


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients by max_norm / (norm + 1e-6) where that is below 1; returns the norm before, a Tensor ().

    The norm is that of all gradients as one vector: Euclidean, or with ``norm_type=inf`` the largest magnitude. Where
    it is NaN so are all gradients then, where it is infinite they are 0 and NaN; with ``error_if_nonfinite`` a
    RuntimeError is raised instead and nothing changed. Gradients lie on one device. Raises ValueError. PyTorch's
    function of that name; Pascanu et al. 2013.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be a number, 0 or above, received {max_norm}")
    if norm_type not in (2, math.inf):
        raise ValueError(f"clip_grad_norm_: norm_type must be 2 or inf, received {norm_type}")
    gradients = _gradients("clip_grad_norm_", parameters)
    if not gradients:
        return Tensor(0.0)
    backend = active_on(gradients[0].device)
    do = Arithmetic(backend, max((g.dtype for g in gradients), key=lambda dtype: dtype.itemsize))
    norms = backend.empty((len(gradients),), do.dtype)
    for i, gradient in enumerate(gradients):
        g = do.wide(gradient.data)
        do.store((do.norm(g) if norm_type == 2 else _magnitude(do, g)).reshape(1), norms[i : i + 1])
    total = do.norm(norms) if norm_type == 2 else reduce_array(backend, "max", norms, None)
    if error_if_nonfinite:
        replay.refuse("clip_grad_norm_ with error_if_nonfinite", "it looks at the norm on the host")
        if not math.isfinite(value := float(backend.to_host(total))):
            raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {value}; nothing was changed")
    limit = constant(backend, do.dtype, float(max_norm))
    factor = do.div(limit, do.largest(do.add(total, constant(backend, do.dtype, BESIDE)), limit))  # at most 1
    for gradient in gradients:
        do.store(do.mul(do.wide(gradient.data), factor), gradient.data)
        gradient.bump_version()
    return wrap(total)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of the gradients into [-clip_value, clip_value]; NaN stays. Raises ValueError. PyTorch's
    function of that name."""
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be a number, 0 or above, received {clip_value}")
    for gradient in _gradients("clip_grad_value_", parameters):
        do = Arithmetic(active_on(gradient.device), gradient.dtype)
        g = do.wide(gradient.data)
        for _ in range(2):  # the smaller of two numbers is minus the larger of their negatives
            g = unary_array(do.backend, "neg", _at_least(do, g, -float(clip_value)))
        do.store(g, gradient.data)
        gradient.bump_version()


def _at_least(do: Arithmetic, g: Array, floor: float) -> Array:
    both = do.backend.empty((2, g.size), do.dtype)
    do.store(g.reshape(-1), both[0])
    do.backend.fill(both[1], floor)
    return reduce_array(do.backend, "max", both, (0,)).reshape(g.shape)


def _magnitude(do: Arithmetic, g: Array) -> Array:
    """The largest magnitude of an array, ()."""
    up, down = (reduce_array(do.backend, "max", a, None) for a in (g, unary_array(do.backend, "neg", g)))
    return do.largest(up, down)


def _gradients(function: str, parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = [p.grad for p in given if p.grad is not None and p.grad.size]
    if len({g.device for g in gradients}) > 1:
        raise ValueError(f"{function}: the gradients lie on several devices")
    return gradients
