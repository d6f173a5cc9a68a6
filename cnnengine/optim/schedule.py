"""Learning rates as functions of the step, so that a resumed run needs no state for them.

Each takes the rate ``lr`` that it starts from or rises to, and the step, the first being 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def cosine(lr: float, step: int, steps: int, warmup: int = 0) -> float:
    """From ``lr`` at step 0 down to 0 at step ``steps`` along half a cosine; the first ``warmup`` steps rise linearly.

    Loshchilov and Hutter 2017. Raises ValueError for ``steps`` below 1.
    """
    _at_least_1("cosine", "steps", steps)
    rise = min(1.0, (step + 1) / (warmup + 1))
    return lr * rise * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def warmup(lr: float, step: int, steps: int) -> float:
    """From ``lr / (steps + 1)`` at step 0 up to ``lr`` at step ``steps`` and then for good, linearly. Goyal et al.
    2017. Raises ValueError for ``steps`` below 0."""
    if steps < 0:
        raise ValueError(f"warmup: steps must be at least 0, received {steps}")
    return lr * min(1.0, (step + 1) / (steps + 1))


def warmup_cosine(lr: float, step: int, steps: int, warmup_steps: int, last: float = 0.0) -> float:
    """``warmup`` for ``warmup_steps`` steps, then half a cosine from ``lr`` down to ``last`` at step ``steps``. Raises
    ValueError unless 0 <= warmup_steps < steps."""
    if not 0 <= warmup_steps < steps:
        raise ValueError(f"warmup_cosine: warmup_steps must lie in [0, steps), received {warmup_steps} of {steps}")
    if step < warmup_steps:
        return warmup(lr, step, warmup_steps)
    return last + cosine(lr - last, step - warmup_steps, steps - warmup_steps)


def constant(lr: float, step: int) -> float:
    """``lr`` at every step."""
    return lr


def step_decay(lr: float, step: int, every: int, factor: float = 0.1) -> float:
    """Times ``factor`` after each ``every`` steps: PyTorch's StepLR. Raises ValueError for ``every`` below 1."""
    _at_least_1("step_decay", "every", every)
    return float(lr * factor ** (step // every))


def multi_step(lr: float, step: int, milestones: Iterable[int], factor: float = 0.1) -> float:
    """Times ``factor`` at each of the steps ``milestones``: PyTorch's MultiStepLR."""
    return float(lr * factor ** sum(step >= milestone for milestone in milestones))


def exponential(lr: float, step: int, factor: float) -> float:
    """Times ``factor`` each step: PyTorch's ExponentialLR. A whole fall of f in n steps is ``factor=f ** (1 / n)``."""
    return float(lr * factor**step)


def polynomial(lr: float, step: int, steps: int, power: float = 1.0, last: float = 0.0) -> float:
    """From ``lr`` down to ``last`` at step ``steps`` as (1 - step / steps)^power; a straight line for a power of 1.
    Raises ValueError for ``steps`` below 1."""
    _at_least_1("polynomial", "steps", steps)
    return float(last + (lr - last) * (1 - min(step, steps) / steps) ** power)


def one_cycle(
    lr: float, step: int, steps: int, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> float:
    """Half a cosine up from ``lr / div_factor`` to ``lr`` in the share ``pct_start`` of the steps, another down to
    ``lr / div_factor / final_div_factor`` at the last of them, step ``steps - 1``.

    The values of PyTorch's OneCycleLR; Smith and Topin 2018. Raises ValueError for ``steps`` below 2, ``pct_start``
    outside [0, 1] and a factor that is not above 0.
    """
    if steps < 2:
        raise ValueError(f"one_cycle: steps must be at least 2, received {steps}")
    if not 0 <= pct_start <= 1 or not div_factor > 0 or not final_div_factor > 0:
        raise ValueError(
            "one_cycle: pct_start must lie in [0, 1] and the factors be above 0, received"
            f" {pct_start}, {div_factor}, {final_div_factor}"
        )
    step, first, top = min(step, steps - 1), lr / div_factor, pct_start * steps - 1
    if step <= top and top > 0:
        return _along_cosine(first, lr, step / top)
    return _along_cosine(lr, first / final_div_factor, (step - top) / (steps - 1 - top))


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _at_least_1(function: str, name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{function}: {name} must be at least 1, received {value}")
