"""The definition of right: plain NumPy over the definition of each operation, accumulating in float64.

Infinities and NaN arise and travel as IEEE 754 says, without NumPy's warnings.
"""

from __future__ import annotations

from ..contract import Backend


def unavailable() -> str | None:
    return None


def load() -> Backend:
    from .backend import NumpyBackend

    return NumpyBackend()
