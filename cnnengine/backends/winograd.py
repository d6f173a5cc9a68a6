"""Whether Winograd's convolution may be used: one setting for the process and all backends.

It changes how a convolution rounds (docs/semantics.md says by how much), so it can be forbidden in one place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType

_allowed = os.environ.get("CNNENGINE_WINOGRAD", "1") != "0"
_followers: list[Callable[[bool], object]] = []


def winograd_allowed() -> bool:
    """Whether convolutions may use Winograd's algorithms: True unless CNNENGINE_WINOGRAD is 0 or
    ``allow_winograd(False)`` was called."""
    return _allowed


class allow_winograd:
    """From now on no backend chooses Winograd's convolution, and naming one raises: ``cnn.allow_winograd(False)``.

    In a ``with`` statement the setting before returns at its end. It holds for the whole process.
    """

    def __init__(self, allowed: bool = True) -> None:
        self.before = _allowed
        _set(bool(allowed))

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        _set(self.before)


def follow(setter: Callable[[bool], object]) -> None:
    """Calls ``setter`` with the setting now and at every change: for backends that choose an algorithm themselves."""
    _followers.append(setter)
    setter(_allowed)


def check(verb: str, algorithm: str | None) -> None:
    """Raises ValueError for one of Winograd's algorithms where they are forbidden."""
    if not _allowed and algorithm is not None and algorithm.startswith("winograd"):
        raise ValueError(
            f"{verb}: algorithm {algorithm!r} is forbidden by cnn.allow_winograd(False) or CNNENGINE_WINOGRAD=0"
        )


def _set(allowed: bool) -> None:
    global _allowed
    _allowed = allowed
    for setter in _followers:
        setter(allowed)
