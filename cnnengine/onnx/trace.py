"""What a module does, as the functions of ``cnnengine.functional`` that it calls.

The interpreter itself reports calls (``sys.setprofile``), so operations carry no hook and cost nothing more when nobody
is looking; it does not matter by which name a module calls them. A function in the table is recorded with its arguments
and what it returned, and what it calls in turn is not. A function outside the table is looked into.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from .. import functional
from ..tensor import Tensor


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function of the table."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    result: Any

    @property
    def name(self) -> str:
        return self.function.__name__


@dataclass(frozen=True, slots=True)
class Trace:
    """The calls in their order, what the module returned, and for results of other functions their names, by the
    array's id."""

    calls: list[Call]
    result: Any
    others: dict[int, str]
    held: list[Any]  # keeps every array alive, so that no two have the same id


def trace(run: Callable[[], Any], functions: Mapping[CodeType, Callable[..., Any]]) -> Trace:
    """Runs it and watches."""
    watcher = _Watcher(functions)
    before = sys.getprofile()
    sys.setprofile(watcher)
    try:
        result = run()
    finally:
        sys.setprofile(before)
    return Trace(watcher.calls, result, watcher.others, watcher.held)


class _Watcher:
    def __init__(self, functions: Mapping[CodeType, Callable[..., Any]]) -> None:
        self.calls: list[Call] = []
        self.others: dict[int, str] = {}
        self.held: list[Any] = []
        self._functions = functions
        self._unknown = {
            f.__code__: name
            for name in functional.__all__
            if hasattr(f := getattr(functional, name), "__code__") and f.__code__ not in functions
        }
        self._inside: FrameType | None = None  # the recorded call under way
        self._arguments: dict[str, Any] = {}

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        if event == "call":
            if self._inside is None and frame.f_code in self._functions:
                self._inside, self._arguments = frame, dict(frame.f_locals)
        elif event == "return":
            if frame is self._inside:
                self._inside = None
                if any(value is argument for argument in self._arguments.values()):
                    return  # a dropout in evaluation, a cast to the dtype there is
                self.calls.append(Call(self._functions[frame.f_code], self._arguments, value))
                self.held.append((self._arguments, value))
            elif self._inside is None and frame.f_code in self._unknown and isinstance(value, Tensor):
                self.others.setdefault(id(value.data), self._unknown[frame.f_code])
                self.held.append(value)
