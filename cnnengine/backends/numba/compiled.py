"""A Numba kernel as machine code that our own launcher starts: compiled once, launched raw.

Numba's launch asks each argument for its type and its parts, every time. A kernel's types are known here, so it is
compiled by itself, assembled by nvJitLink, kept in the cache on disk and started by ``cnnengine._launch`` as the
kernels of ``csrc/cuda`` are. Compiling needs no GPU.

A Numba kernel takes an array as seven values and more: two pointers that it does not read, the number of elements,
their bytes, the address, then each axis's length and stride; a tuple as its members.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ... import kernels
from ...errors import BackendUnavailable, KernelError
from ...jit.cache import Cache
from ...jit.nvrtc import Cubin

SUFFIX = ".numba"
ENTRY = re.compile(r"\.visible \.entry (?P<symbol>\w+)\(")
SHARED = re.compile(r"\.shared .*\[(\d+)\];")
USED = re.compile(r"(Used \d+ registers.*)")


@cache
def problem() -> str | None:
    """None, or why nothing can be compiled."""
    try:
        from cuda.bindings import nvjitlink
        from numba.cuda.cudadrv.nvvm import NVVM

        nvjitlink.version()
        NVVM()
    except Exception as missing:  # each library has errors of its own for what it does not find
        return f"Numba's compiler needs libnvvm and nvJitLink (pip install nvidia-nvvm nvidia-nvjitlink): {missing}"
    return None


def ptx(kernel: Any, signature: Sequence[Any], capability: tuple[int, int]) -> str:
    """The kernel for arguments of these Numba types, as PTX."""
    from numba import cuda, void

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a debugging option that is not set
        text, _ = cuda.compile_ptx(kernel.py_func, void(*signature), cc=capability)
    return str(text)


def assemble(text: str, capability: tuple[int, int]) -> Cubin:
    """PTX of one kernel as a cubin; its name is that of the kernel's symbol. Raises KernelError with the assembler's
    complaint, BackendUnavailable without nvJitLink."""
    reason = problem()
    if reason is not None:
        raise BackendUnavailable(reason)
    from cuda.bindings import nvjitlink

    (symbol,) = ENTRY.findall(text)
    options = [f"-arch=sm_{capability[0]}{capability[1]}", "-Xptxas=-v"]
    linker = nvjitlink.create(len(options), options)
    try:
        nvjitlink.add_data(linker, nvjitlink.InputType.PTX, text.encode(), len(text), symbol)
        nvjitlink.complete(linker)
        image = bytearray(nvjitlink.get_linked_cubin_size(linker))
        nvjitlink.get_linked_cubin(linker, image)
        log = bytearray(nvjitlink.get_info_log_size(linker))
        nvjitlink.get_info_log(linker, log)
    except nvjitlink.nvJitLinkError as error:
        complaint = bytearray(nvjitlink.get_error_log_size(linker))
        nvjitlink.get_error_log(linker, complaint)
        said = complaint.rstrip(b"\0").decode(errors="replace").strip()
        raise KernelError(f"{symbol} cannot be assembled: {error}\n{said}") from None
    finally:
        nvjitlink.destroy(linker)
    said = log.rstrip(b"\0").decode()
    shared = sum(map(int, SHARED.findall(text)))  # which the log leaves out
    return Cubin(bytes(image), {symbol: symbol}, USED.sub(rf"\1, {shared} bytes smem", said))


def build(kernel: Any, signature: Sequence[Any], capability: tuple[int, int], kept: Cache) -> Cubin:
    """The kernel's cubin, from the cache where it is there."""
    constants = [cell.cell_contents for cell in kernel.py_func.__closure__ or ()]  # numbers and tiles
    compilers = version("numba-cuda"), _nvjitlink_version()
    what = _sources(), kernel.py_func.__qualname__, constants, signature, capability, compilers
    key = hashlib.sha256(repr(what).encode()).hexdigest()
    made = kept.fetch_bytes(key, SUFFIX, lambda: assemble(ptx(kernel, signature, capability), capability).pack())
    return Cubin.unpack(made)


@cache
def _nvjitlink_version() -> Any:
    from cuda.bindings import nvjitlink

    return nvjitlink.version()


@cache
def _sources() -> str:
    """Changes with any file of ``kernels/``."""
    digest = hashlib.sha256()
    for path in sorted(Path(str(kernels.__file__)).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def signature_of(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """The Numba types of a launch's arguments: C-contiguous arrays, NumPy scalars and tuples of them."""
    from numba import types
    from numba.cuda.np.numpy_support import from_dtype
    from numba.cuda.typing.typeof import Purpose, typeof

    def type_of(value: Any) -> Any:
        if is_array(value):
            return types.Array(from_dtype(value.dtype), value.ndim, "C")
        return typeof(value, Purpose.argument)

    return tuple(map(type_of, arguments))


def is_array(value: Any) -> bool:
    return not isinstance(value, np.generic) and hasattr(value, "flags")


def flat(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """A launch's arguments as ``cnnengine._launch`` takes them. Raises ValueError for an array with gaps."""
    values: list[Any] = []
    for value in arguments:
        if is_array(value):
            if not value.flags.c_contiguous:
                raise ValueError(f"kernels take C-contiguous arrays, received strides {value.strides} of {value.shape}")
            sizes = value.size, value.dtype.itemsize
            axes = (*value.shape, *_strides(value.shape, value.dtype.itemsize))
            values += [None, None, *map(np.int64, sizes), value, *map(np.int64, axes)]
        elif isinstance(value, tuple):
            values += value
        else:
            values.append(value)
    return tuple(values)


def _strides(shape: tuple[int, ...], itemsize: int) -> list[int]:
    strides = [itemsize]
    for length in reversed(shape[1:]):
        strides.append(strides[-1] * length)
    return strides[::-1]
