"""Sequential: modules one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from ..autograd import grad_enabled
from .conv2d import Conv2d
from .conv_norm import activation_kind
from .hooks import changes
from .identity import Identity
from .linear import Linear
from .module import Module, is_plain
from .norm import BatchNorm2d
from .pool2d import MaxPool2d

RISING = ("relu", "relu6")  # activations that never fall
Step = tuple[Module, bool, tuple[Any, ...]]  # a module, whether its call is its class's forward, arguments beside x


class Sequential(Module):
    """``Sequential(a, b, c)(x)`` is ``c(b(a(x)))``. Children are named "0", "1", ..., or by the keys of one dict.

    ``len``, iteration and indexing work; a slice is a Sequential of the same modules. A Conv2d, Linear or BatchNorm2d
    and the activation behind it are computed in one pass over memory, and a BatchNorm2d takes the statistics of the
    Conv2d in front of it from that one's kernel. Where gradients are recorded and a MaxPool2d comes behind a layer and
    a ReLU or ReLU6, the activation goes behind the pooling, where there are fewer elements: the largest of what a
    rising function gives is what it gives for the largest. None of it is done to a module with a hook. Results are
    those of the modules one by one up to rounding; for ReLU and ReLU6 behind Conv2d and Linear no bit changes.
    """

    def __init__(self, *modules: Module | dict[str, Module]) -> None:
        super().__init__()
        self._plans: list[tuple[int, list[Step]]] = [(-1, []), (-1, [])]  # not recorded, recorded
        named: dict[str, Any] = dict(enumerate(modules))  # type: ignore[arg-type]
        if len(modules) == 1 and isinstance(modules[0], dict):
            named = modules[0]
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: expected modules, received {type(module).__name__} at {name!r}")
            setattr(self, str(name), module)

    def forward(self, x: Any) -> Any:
        for module, plain, arguments in self._steps(grad_enabled()):
            x = module.forward(x, *arguments) if plain else module(x)
        return x

    def _steps(self, recorded: bool) -> list[Step]:
        """The modules, each activation at the one that computes it; made anew once any module has changed."""
        count, steps = self._plans[recorded]
        if count != changes[0]:
            count, steps = changes[0], _plan(self, recorded)
            self._plans[recorded] = count, steps
        return steps

    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        if type(self).forward is not Sequential.forward:
            return []
        layers = [(name, type(module)) for name, module in self._modules.items()]
        return [(a, b) for (a, first), (b, second) in pairwise(layers) if first is Conv2d and second is BatchNorm2d]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, key: int | slice) -> Module:
        if isinstance(key, slice):
            return Sequential(dict(list(self._modules.items())[key]))
        return list(self._modules.values())[key]


def _plan(modules: Iterable[Module], recorded: bool) -> list[Step]:
    steps: list[Step] = []
    for module in modules:
        plain, kind = is_plain(module), activation_kind(module)
        if plain and type(module) is Identity:
            continue
        last, last_plain, arguments = steps[-1] if steps else (module, False, ())
        if plain and last_plain:
            layer, activation = type(last), arguments[0] if arguments else "identity"
            is_layer = layer in (Conv2d, Linear)
            if kind is not None and (is_layer or layer is BatchNorm2d) and activation == "identity":
                steps[-1] = (last, True, (kind, *arguments[1:]))
                continue
            if type(module) is BatchNorm2d and layer is Conv2d and not arguments:
                steps[-1] = (module, True, ("identity", None, last))
                continue
            if type(module) is MaxPool2d and recorded and not arguments and activation_kind(last) in RISING:
                steps[-1] = (module, True, (activation_kind(last),))
                continue
            if type(module) is MaxPool2d and recorded and is_layer and activation in RISING:
                steps[-1:] = [(last, True, ()), (module, True, (activation,))]
                continue
        steps.append((module, plain, ()))
    return steps
