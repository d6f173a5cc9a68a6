"""Sequential: modules one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..autograd import grad_enabled
from .activation import ReLU, ReLU6
from .conv2d import Conv2d
from .hooks import changes
from .linear import Linear
from .module import Module, is_plain
from .pool2d import MaxPool2d

FUSED: dict[type, str] = {ReLU: "relu", ReLU6: "relu6"}  # activations that rise and round nothing
Step = tuple[Module, bool, str | None]  # a module, whether its call is its class's forward, the activation it also does


class Sequential(Module):
    """``Sequential(a, b, c)(x)`` is ``c(b(a(x)))``. Children are named "0", "1", ..., or by the keys of one dict.

    ``len``, iteration and indexing work; a slice is a Sequential of the same modules. A Conv2d or Linear and a ReLU or
    ReLU6 behind it are computed in one pass over memory. Where gradients are recorded and a MaxPool2d comes next, the
    activation goes behind it, where there are fewer elements: the largest of what a rising function gives is what it
    gives for the largest. Neither is done to a module with a hook; no bit of the result changes.
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
        for module, plain, activation in self._steps(grad_enabled()):
            if plain:
                x = module.forward(x) if activation is None else module.forward(x, activation)
                continue
            x = module(x)
        return x

    def _steps(self, recorded: bool) -> list[Step]:
        """The modules, each activation at the one that computes it; made anew once any module has changed."""
        count, steps = self._plans[recorded]
        if count != changes[0]:
            count, steps = changes[0], _plan(self, recorded)
            self._plans[recorded] = count, steps
        return steps

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
        kind, plain = type(module), is_plain(module)
        last, last_plain, activation = steps[-1] if steps else (module, False, None)
        if plain and last_plain:
            is_layer = type(last) in (Conv2d, Linear)
            if kind in FUSED and is_layer and activation is None:
                steps[-1] = (last, True, FUSED[kind])
                continue
            if kind is MaxPool2d and recorded and type(last) in FUSED:
                steps[-1] = (module, True, FUSED[type(last)])
                continue
            if kind is MaxPool2d and recorded and is_layer and activation is not None:
                steps[-1:] = [(last, True, None), (module, True, activation)]
                continue
        steps.append((module, plain, None))
    return steps
