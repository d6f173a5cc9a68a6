"""What a call calls: for the sessions that count Python's cost of a launch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def called(call: Callable[[], object]) -> list[str]:
    """The names of all functions that a call calls, Python's and C's."""
    names: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_name)
        elif event == "c_call":
            names.append(argument.__name__)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return names[:-1]  # setprofile itself
