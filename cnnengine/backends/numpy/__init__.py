"""The definition of right: plain NumPy over the definition of each operation, accumulating in float64."""

from __future__ import annotations

from ..contract import Backend


def unavailable() -> str | None:
    return None


def load() -> Backend:
    from .backend import NumpyBackend

    return NumpyBackend()
