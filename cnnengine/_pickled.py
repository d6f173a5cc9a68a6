"""A pickle read as data: numbers, strings, plain containers and what a table of names allows. Nothing in it is run.

``pickletools`` takes the bytes apart; this file keeps the stack they speak of. A name outside the table is refused
where it stands, before anything could be made of it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from .errors import DataError

KEYS = (str, int, float, bool, type(None))  # of a dict: a tuple in itself a million times over would overflow the stack
MAKERS = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Name:
    """What a pickle refers to by ``module.qualname``: a function of the table, or a value that only has its name."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any] | None) -> None:
        self.name = name
        self.make = make


class _Mark:
    __slots__ = ()


_MARK = _Mark()


class PickleReader:
    """Reads one pickle after the other from ``file``.

    ``names`` has for each ``module.qualname`` that may appear what is called for it, or None where it is only passed
    on. ``persistent`` makes a value of a persistent id. ``path`` and ``part`` say in errors where it happened. Raises
    DataError.
    """

    def __init__(
        self,
        file: BinaryIO,
        path: object,
        part: str,
        names: Mapping[str, Callable[..., Any] | None],
        persistent: Callable[[Any], Any],
    ) -> None:
        self._file, self._names, self._persistent = file, names, persistent
        self._where = f"{path}: {part}"
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        """The next object; the file is left behind it."""
        self._stack, self._memo = [], {}
        position = None
        try:
            for opcode, argument, position in pickletools.genops(self._file):
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, argument, position)
        except DataError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            at = "at its start" if position is None else f"near byte {position}"
            raise DataError(f"{self._where} is no whole pickle: damaged {at}: {error}") from error
        raise DataError(f"{self._where} is no whole pickle: it has no end")

    def _step(self, name: str, argument: Any, position: int | None) -> None:
        stack = self._stack
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in MAKERS:
            stack.append(MAKERS[name]())
        elif name in TUPLES:
            count = TUPLES[name]
            stack.append(tuple(reversed([self._pop() for _ in range(count)])))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(self._popped()))
        elif name == "LIST":
            stack.append(self._popped())
        elif name == "DICT":
            stack.append(_with_items({}, self._popped()))
        elif name in ("APPEND", "APPENDS"):
            values = [self._pop()] if name == "APPEND" else self._popped()
            self._top(list).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = list(reversed([self._pop(), self._pop()])) if name == "SETITEM" else self._popped()
            _with_items(self._top(dict), values)
        elif name in PUTS or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._top(object)
        elif name in GETS:
            stack.append(self._memo[argument])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._popped()
        elif name == "DUP":
            stack.append(self._top(object))
        elif name == "GLOBAL":
            stack.append(self._named(argument.replace(" ", "."), position))
        elif name == "STACK_GLOBAL":
            attribute, module = self._pop(), self._pop()
            stack.append(self._named(f"{module}.{attribute}" if type(module) is str else "?", position))
        elif name == "REDUCE":
            arguments, function = self._pop(), self._pop()
            stack.append(self._called(function, arguments, position))
        elif name == "BUILD":
            self._pop()  # attributes of a container, such as a state dict's _metadata
            self._top(dict)
        elif name == "BINPERSID":
            stack.append(self._persistent(self._pop()))
        elif name not in ("PROTO", "FRAME"):
            raise DataError(
                f"{self._where} has the pickle operation {name} at byte {position}, which no tensor or plain container"
                " needs; refused"
            )

    def _named(self, name: str, position: int | None) -> Name:
        if name not in self._names:
            raise DataError(
                f"{self._where} refers to {name} at byte {position}; only tensors, dicts, lists, tuples, strings,"
                " numbers, booleans and None are read, and nothing in the file is run"
            )
        return Name(name, self._names[name])

    def _called(self, function: Any, arguments: Any, position: int | None) -> Any:
        if type(function) is not Name or function.make is None:
            what = function.name if type(function) is Name else f"a {type(function).__name__}"
            raise DataError(f"{self._where} calls {what} at byte {position}, which is no function that it may call")
        if type(arguments) is not tuple:
            raise TypeError(f"{function.name} is called with a {type(arguments).__name__} of arguments")
        return function.make(*arguments)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise IndexError("a mark where a value should be")
        return value

    def _popped(self) -> list[Any]:
        """Everything above the last mark, which goes too."""
        stack = self._stack
        at = next(i for i in range(len(stack) - 1, -1, -1) if stack[i] is _MARK) if _MARK in stack else None
        if at is None:
            raise IndexError("no mark on the stack")
        values = stack[at + 1 :]
        del stack[at:]
        return values

    def _top(self, kind: type) -> Any:
        value = self._stack[-1]
        if value is _MARK or not isinstance(value, kind):
            raise TypeError(f"a {type(value).__name__} where a {kind.__name__} should be")
        return value


def _with_items(target: dict[Any, Any], values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2:
        raise ValueError("a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, KEYS):
            raise TypeError(f"a dict has a key of type {type(key).__name__}")
        target[key] = value
    return target
