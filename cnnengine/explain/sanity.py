"""Whether an explanation depends on what the network has learned: it must change when the weights are randomised.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, "Sanity checks for saliency maps", arXiv 1810.03292, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ..backends.registry import active_on
from ..nn import Module
from ..nn.parameter import Parameter

Explain = Callable[[Module], np.ndarray]


class Step(NamedTuple):
    """A layer whose weights were randomised, and those above it before; how alike the map still is the first one:
    Spearman's rank correlation, 1 for the same order of pixels, about 0 for an unrelated one."""

    layer: str
    correlation: float


def cascading_randomisation(model: Module, explain: Explain, *, seed: int = 0, stops: int | None = None) -> list[Step]:
    """Randomises layer after layer from the output to the input, and explains anew: a Step for each.

    ``explain(model)`` gives a map of any shape. The elements of each parameter are put into random order, which takes
    away what was learned and leaves their distribution. ``stops`` looks at so many layers only, evenly spaced, the last
    among them; weights are randomised between as well. The network has its own weights again behind it. Raises
    ValueError for a network without parameters, and a frozen one.
    """
    layers = [name for name, module in model.named_modules() if _own(module)]
    layers.reverse()
    if not layers:
        raise ValueError("cascading_randomisation: this network has no parameters")
    looked = np.linspace(0, len(layers) - 1, len(layers) if stops is None else min(stops, len(layers)))
    wanted = {layers[round(i)] for i in looked} if stops != 1 else {layers[-1]}
    modules = dict(model.named_modules())
    first = explain(model)
    rng = np.random.default_rng(seed)
    steps = []
    with _restored(model):
        for name in layers:
            for parameter in _own(modules[name]):
                shuffle(parameter, rng)
            if name in wanted:
                steps.append(Step(name, rank_correlation(first, explain(model))))
    return steps


def shuffle(parameter: Parameter, rng: np.random.Generator) -> None:
    """The parameter's elements in random order, in place."""
    values = parameter.numpy().reshape(-1)
    _store(parameter, rng.permutation(values).reshape(parameter.shape))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: the correlation of the elements' ranks, equal ones sharing their mean; 0 where one is constant.
    Raises ValueError for different shapes."""
    if a.shape != b.shape:
        raise ValueError(f"rank_correlation: expected equal shapes, received {a.shape} and {b.shape}")
    x, y = (_ranks(array) for array in (a, b))
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size else 0.0


def _ranks(array: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(array.ravel(), return_inverse=True, return_counts=True)
    mean: np.ndarray = np.cumsum(count) - (count - 1) / 2
    return mean[place]


def _own(module: Module) -> list[Parameter]:
    return [parameter for parameter in module._parameters.values() if parameter is not None]


@contextmanager
def _restored(model: Module) -> Iterator[None]:
    """What was in the parameters is there again behind the block. Raises ValueError for a frozen network."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter.data, np.ndarray) and not parameter.data.flags.writeable:
            raise ValueError(f"cascading_randomisation: {name} is frozen: call unfreeze() first")
    before = [(parameter, np.array(parameter.numpy())) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, values in before:
            _store(parameter, values)


def _store(parameter: Parameter, values: np.ndarray) -> None:
    parameter.data[...] = active_on(parameter.device).to_device(values)
    parameter.bump_version()
