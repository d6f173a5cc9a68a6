"""Pickles of arrays and plain containers, read without running what they ask for.

A pickle is a program: it may name any function and call it. Here the only names that mean anything are those NumPy
writes an array with, and even these stand for the classes of this file, which keep what they are given.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError

# what may not be in a pickle of plain values: classes and calls other than by name, extensions, foreign buffers
REFUSED_OPCODES = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"}
PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
DTYPES = {"u1": np.uint8, "b1": np.bool_, "i4": np.int32, "i8": np.int64, "f4": np.float32, "f8": np.float64}


class _Refused(Exception):
    """The pickle asks for something that is not plain data; the message names it."""


class _Dtype:
    def __init__(self, name: object, *_: object) -> None:
        text = name.decode("latin1") if isinstance(name, bytes) else name
        if text not in DTYPES:
            raise _Refused(f"an array of {text!r}; expected one of {', '.join(DTYPES)}")
        self.dtype = np.dtype(DTYPES[str(text)])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    def __init__(self, *_: object) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if not (isinstance(dtype, _Dtype) and isinstance(content, bytes)):
            raise _Refused("an array whose elements are objects")
        expected = math.prod(shape) * dtype.dtype.itemsize
        if not all(isinstance(n, int) and n >= 0 for n in shape) or len(content) != expected:
            raise _Refused(f"an array of shape {shape} with {len(content)} bytes")
        flat = np.frombuffer(content, dtype.dtype)
        self.value = flat.reshape(shape, order="F" if fortran else "C")


class _Global:
    """What a name of the pickle stands for: it can be called, and nothing about it can be changed."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *arguments: object) -> Any:
        return self.make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _Refused("a change to a function")


def _ndarray(*arguments: object) -> None:
    """Array pickles name ``numpy.ndarray`` and never call it."""
    raise _Refused("a call of numpy.ndarray")


def _encode(text: object, encoding: object) -> bytes:
    """What Python 3 writes bytes with in old protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise _Refused(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise _Refused(f"{module}.{name}")
        return _Global(KNOWN[module, name])


def read_pickle(content: bytes, path: Path | str) -> Any:
    """The value in ``content``: None, bool, int, float, bytes, str, list, tuple, dict and NumPy arrays of numbers.

    Strings of Python 2 become bytes. Nothing is imported or called. Raises DataError naming ``path`` and what was
    refused, or that the pickle is truncated or corrupt.
    """
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in REFUSED_OPCODES:
                raise _Refused(f"the instruction {opcode.name}")
            if opcode.name in PUTS and isinstance(argument, int) and argument > len(content):
                raise _Refused(f"{argument} memorised values in {len(content)} bytes")  # would take that much memory
        return _plain(_Unpickler(io.BytesIO(content), encoding="bytes").load(), 0)
    except _Refused as error:
        raise DataError(f"{path}: refused: the pickle asks for more than arrays and plain values: {error}") from None
    except RecursionError as error:
        raise DataError(f"{path}: refused: a pickle nested too deeply") from error
    except Exception as error:  # a corrupt pickle raises almost anything
        raise DataError(f"{path}: a truncated or corrupt pickle of {len(content)} bytes: {error}") from error


def _plain(value: Any, depth: int) -> Any:
    """The same value with arrays in the place of their stand-ins."""
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    if depth > 8:
        raise _Refused("containers nested more than 8 deep")
    if isinstance(value, dict):
        return {key: _plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(entry, depth + 1) for entry in value)
    if value is None or isinstance(value, bool | int | float | bytes | str):
        return value
    raise _Refused(f"a value of {type(value).__name__.removeprefix('_')}")
