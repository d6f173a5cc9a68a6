"""Learning rates as functions of the step, so that a resumed run needs no state for them."""

from __future__ import annotations

import math


def cosine(lr: float, step: int, steps: int, warmup: int = 0) -> float:
    """From ``lr`` at step 0 down to 0 at step ``steps`` along half a cosine; the first ``warmup`` steps rise linearly.

    Loshchilov and Hutter 2017. Raises ValueError for ``steps`` below 1.
    """
    if steps < 1:
        raise ValueError(f"cosine: steps must be at least 1, received {steps}")
    rise = min(1.0, (step + 1) / (warmup + 1))
    return lr * rise * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
