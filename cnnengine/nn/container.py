"""Sequential: modules one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .activation import ReLU, ReLU6
from .conv2d import Conv2d
from .linear import Linear
from .module import Module

FUSED: dict[type, str] = {ReLU: "relu", ReLU6: "relu6"}  # activations that round nothing


class Sequential(Module):
    """``Sequential(a, b, c)(x)`` is ``c(b(a(x)))``. Children are named "0", "1", ..., or by the keys of one dict.

    ``len``, iteration and indexing work; a slice is a Sequential of the same modules. A Conv2d or Linear and a ReLU or
    ReLU6 behind it are computed in one pass over memory unless one of them has a hook; no bit of the result changes.
    """

    def __init__(self, *modules: Module | dict[str, Module]) -> None:
        super().__init__()
        named: dict[str, Any] = dict(enumerate(modules))  # type: ignore[arg-type]
        if len(modules) == 1 and isinstance(modules[0], dict):
            named = modules[0]
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: expected modules, received {type(module).__name__} at {name!r}")
            setattr(self, str(name), module)

    def forward(self, x: Any) -> Any:
        layer: Conv2d | Linear | None = None  # to be computed together with the activation that may follow
        for module in self._modules.values():
            kind = type(module)
            if layer is not None:
                if kind in FUSED and _is_plain(module):
                    x, layer = layer.forward(x, FUSED[kind]), None
                    continue
                x, layer = layer(x), None
            if (kind is Conv2d or kind is Linear) and _is_plain(module):
                layer = module  # type: ignore[assignment]
            else:
                x = module(x)
        return x if layer is None else layer(x)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, key: int | slice) -> Module:
        if isinstance(key, slice):
            return Sequential(dict(list(self._modules.items())[key]))
        return list(self._modules.values())[key]


def _is_plain(module: Module) -> bool:
    """Whether a call of the module is its class's ``forward`` and nothing else."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)
