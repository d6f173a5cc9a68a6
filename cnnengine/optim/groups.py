"""Which parameters weight decay is for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..nn.module import Module


def decay_groups(model: Module, weight_decay: float, without: Collection[str] = ()) -> list[dict[str, Any]]:
    """Two groups for an optimizer: with ``weight_decay`` the weights of products and convolutions, without any the
    vectors (biases, gains and offsets of norms) and the parameters whose name ends in one of ``without``.

    Decay is for weights whose size the next norm cancels (Goyal et al. 2017, section 5.3; He et al. 2019, section 3.1).
    A group that would be empty is left out. Raises ValueError for a name that no parameter has.
    """
    named = dict(model.named_parameters())
    unknown = [end for end in without if not any(name.endswith(end) for name in named)]
    if unknown:
        raise ValueError(
            f"decay_groups: no parameter's name ends in {', '.join(unknown)}; there are {', '.join(named)}"
        )
    kept = {name for name, p in named.items() if p.ndim < 2 or name.endswith(tuple(without))}
    groups = [
        {"params": [p for name, p in named.items() if name not in kept], "weight_decay": weight_decay},
        {"params": [p for name, p in named.items() if name in kept], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
