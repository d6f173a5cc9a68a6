"""Sequential: modules one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .module import Module


class Sequential(Module):
    """``Sequential(a, b, c)(x)`` is ``c(b(a(x)))``. Children are named "0", "1", ..., or by the keys of one dict.

    ``len``, iteration and indexing work; a slice is a Sequential of the same modules.
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
        for module in self._modules.values():
            x = module(x)
        return x

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, key: int | slice) -> Module:
        if isinstance(key, slice):
            return Sequential(dict(list(self._modules.items())[key]))
        return list(self._modules.values())[key]
