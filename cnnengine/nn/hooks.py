"""Functions that run before or after a module's forward pass, until their handle is removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Hooks = dict["RemovableHandle", Callable[..., Any]]
changes = [0]  # of the hooks, children and ``forward`` of any module: what is derived from them is then out of date


class RemovableHandle:
    """Returned by ``register_forward_hook``; ``remove()`` unregisters the hook, as does leaving a ``with`` block."""

    __slots__ = ("_hooks",)

    def __init__(self, hooks: Hooks, hook: Callable[..., Any]) -> None:
        self._hooks = hooks
        hooks[self] = hook
        changes[0] += 1

    def remove(self) -> None:
        """Unregister the hook; nothing happens the second time."""
        self._hooks.pop(self, None)
        changes[0] += 1

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
