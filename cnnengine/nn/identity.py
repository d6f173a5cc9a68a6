"""Identity: a module that does nothing."""

from __future__ import annotations

from typing import Any

from .module import Module


class Identity(Module):
    """x itself. Takes the place of a layer that is left out, such as a batch norm that was folded away."""

    def forward(self, x: Any) -> Any:
        return x
