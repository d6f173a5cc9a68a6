"""PyTorch's .pt and .pth files without PyTorch, and without running what is in them.

Since version 1.6 such a file is a zip archive: ``<name>/data.pkl`` describes the object, each storage is a file
``<name>/data/<key>`` and ``<name>/byteorder`` says how its numbers are written. Before that it was a row of pickles: a
magic number, a version, facts about the machine, the object, the storages' keys; then the storages, each behind its
number of elements. Only tensors and plain containers are read (``_pickled``). Everything a file says about sizes is
checked before memory is taken for it: a tensor must lie within its storage, and a file unfolds to at most
``MOST_UNFOLDED`` times its own size (or 16 MiB), so that a small file cannot fill the memory.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO, Literal

import ml_dtypes
import numpy as np

from ._arguments import is_int
from ._pickled import Name, PickleReader
from .errors import DataError

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
ByteOrder = Literal["<", ">"]
MOST_UNFOLDED = 100
DTYPES: dict[str, Any] = {  # torch.<name>
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "complex128": np.complex128,
    "complex64": np.complex64,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "bool": np.bool_,
}
STORAGES = {  # torch.<name>Storage
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
STORAGE_NAMES = {f"{module}.{name}Storage": name for module in ("torch", "torch.cuda") for name in STORAGES}
UNTYPED = ("torch.UntypedStorage", "torch.storage.UntypedStorage")
ZIP_ERRORS: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError)
ZIP_ERRORS += (LookupError, OverflowError, RuntimeError, ValueError)  # zipfile's for headers damaged in other ways


class Storage:
    """Numbers in a file that tensors are views of; ``first`` is where in the whole a view of a storage begins."""

    __slots__ = ("dtype", "first", "key", "numel")

    def __init__(self, key: str, dtype: np.dtype[Any] | None, numel: int, first: int = 0) -> None:
        self.key, self.dtype, self.numel, self.first = key, dtype, numel, first


class Planned:
    """A tensor of the file before its numbers are read."""

    __slots__ = ("dtype", "offset", "shape", "storage", "strides")

    def __init__(
        self, storage: Storage, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.storage, self.dtype, self.offset, self.shape, self.strides = storage, dtype, offset, shape, strides


def read(path: str | os.PathLike[str]) -> Any:
    """What a file of ``torch.save`` holds: tensors as NumPy arrays of their own memory (bfloat16 as
    ``ml_dtypes.bfloat16``, bit for bit), in dicts, lists and tuples as they were saved.

    Raises DataError for a file that cannot be read, is none of PyTorch's or is damaged, and for anything in it beside
    tensors, plain containers, strings, numbers, booleans and None, by name.
    """
    try:
        with open(path, "rb") as file:
            return read_from(file, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_from(file: BinaryIO, path: object) -> Any:
    """``read`` of an open file; ``path`` is what errors call it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(64)
    file.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return _Zip(path, file, size).read()
    if not start:
        raise DataError(f"{path}: the file is empty; expected what torch.save writes")
    if pickle.dumps(MAGIC, 2)[2:-1] not in start:
        raise DataError(
            f"{path}: not a file of torch.save: neither a zip archive nor PyTorch's magic number; it begins with"
            f" {start[:16]!r}"
        )
    return _Legacy(path, file, size).read()


class _File:
    """What both formats have in common: names, persistent ids, tensors."""

    part = "its pickle"

    def __init__(self, path: object, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.left = max(MOST_UNFOLDED * size, 16 << 20)  # bytes that may still be unfolded
        self.storages: dict[str, Storage] = {}
        self.tensors: list[Planned] = []
        self.names: dict[str, Callable[..., Any] | None] = dict.fromkeys((*STORAGE_NAMES, *UNTYPED))
        self.names |= dict.fromkeys(f"torch.{name}" for name in DTYPES)
        self.names |= {
            "collections.OrderedDict": _ordered_dict,
            "torch.Size": tuple,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_tensor_v3": self._tensor_of_dtype,
            "torch._utils._rebuild_parameter": _first,
            "torch._utils._rebuild_parameter_with_state": _first,
        }

    def reader(self, file: BinaryIO) -> PickleReader:
        return PickleReader(file, self.path, self.part, self.names, self._persistent)

    def fault(self, message: str) -> DataError:
        return DataError(f"{self.path}: {message}")

    def _persistent(self, identity: Any) -> Storage:
        """("storage", type, key, device, number of elements[, view])"""
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            what = identity[0] if type(identity) is tuple and identity and type(identity[0]) is str else "something"
            raise self.fault(f"{self.part} refers to {what!r} in the file; expected a storage")
        _, kind, key, _, numel, *view = identity
        if type(kind) is not Name or kind.name not in (*STORAGE_NAMES, *UNTYPED):
            raise self.fault(f"{self.part} has a storage of type {getattr(kind, 'name', type(kind).__name__)}")
        if type(key) is not str or not is_int(numel) or numel < 0:
            raise self.fault(f"{self.part} has a storage with a damaged key or size")
        name = STORAGE_NAMES.get(kind.name)
        dtype = None if name is None else np.dtype(DTYPES[STORAGES[name]])
        known = self.storages.setdefault(key, Storage(key, dtype, numel))
        if known.dtype != dtype or known.numel != numel:
            raise self.fault(f"{self.part} describes storage {key!r} in two ways")
        if not view or view[0] is None:
            return known
        if type(view[0]) is not tuple or len(view[0]) != 3 or not all(map(is_int, view[0][1:])):
            raise self.fault(f"{self.part} has a damaged view of storage {key!r}")
        _, first, count = view[0]
        if first < 0 or count < 0 or first + count > numel:
            raise self.fault(f"a view of {count} elements from {first} on leaves storage {key!r}, which has {numel}")
        return Storage(key, dtype, count, first)

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = None, _hooks: Any = None, bits: Any = None
    ) -> Planned:
        if isinstance(storage, Storage) and storage.dtype is None:
            raise self.fault(f"storage {storage.key!r} has no dtype")
        return self._planned(storage, offset, size, stride, getattr(storage, "dtype", None), bits)

    def _tensor_of_dtype(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, bits: Any = None
    ) -> Planned:
        name = dtype.name.removeprefix("torch.") if type(dtype) is Name else ""
        if name not in DTYPES:
            raise self.fault(f"{self.part} has a tensor whose dtype is damaged")
        return self._planned(storage, offset, size, stride, np.dtype(DTYPES[name]), bits)

    def _planned(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: Any, bits: Any) -> Planned:
        """Checked: it lies within its storage and within what the file may unfold to."""
        numbers = (offset, *(size if type(size) is tuple else (None,)), *(stride if type(stride) is tuple else (None,)))
        if not isinstance(storage, Storage) or not all(is_int(n) and n >= 0 for n in numbers):
            raise self.fault(f"{self.part} has a tensor with a damaged storage, offset, size or stride")
        if len(size) != len(stride) or len(size) > 32:
            raise self.fault(f"{self.part} has a tensor of {len(size)} sizes and {len(stride)} strides")
        if bits:
            raise self.fault(f"{self.part} has a tensor whose numbers are negated or conjugated when read; save a copy")
        held = storage.numel * (storage.dtype or np.dtype(np.uint8)).itemsize // dtype.itemsize
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if 0 not in size and last >= held:
            raise self.fault(
                f"a tensor of size {size}, strides {stride} from element {offset} on leaves storage {storage.key!r},"
                f" which has {held} elements"
            )
        if max(size, default=0) > 2**40:
            raise self.fault(f"a tensor has the impossible size {size}")
        self.take(prod(size) * dtype.itemsize, f"a tensor of size {size}")
        strides = tuple(0 if n <= 1 else s for n, s in zip(size, stride, strict=True))
        planned = Planned(storage, dtype, offset, size, strides)
        self.tensors.append(planned)
        return planned

    def take(self, nbytes: int, what: str) -> None:
        self.left -= nbytes
        if self.left < 0:
            raise self.fault(
                f"{what} unfolds to far more than the file's {self.size} bytes can hold; at most {MOST_UNFOLDED} times"
                " that is read"
            )

    def filled(self, value: Any, content: dict[str, bytes], order: ByteOrder) -> Any:
        """The object with arrays in place of planned tensors."""
        arrays: dict[int, np.ndarray] = {}
        for planned in self.tensors:
            arrays[id(planned)] = _array(planned, content[planned.storage.key], order)
        return _replaced(value, arrays)


class _Zip(_File):
    part = "data.pkl"

    def read(self) -> Any:
        try:
            with zipfile.ZipFile(self.file) as archive:
                return self._read(archive)
        except DataError:
            raise
        except ZIP_ERRORS as error:
            raise self.fault(f"not a whole zip archive ({self.size} bytes): truncated or corrupt: {error}") from error

    def _read(self, archive: zipfile.ZipFile) -> Any:
        members = {info.filename: info for info in archive.infolist()}
        found = [name for name in members if name.rpartition("/")[2] == "data.pkl" and name.count("/") <= 1]
        if len(found) != 1:
            raise self.fault(f"a zip archive without one data.pkl, which torch.save writes; it has {_some(members)}")
        folder = found[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            raise self.fault("a TorchScript archive, which holds a program; save the state_dict() instead")
        order = "little"
        if f"{folder}byteorder" in members:
            order = self._member(archive, members[f"{folder}byteorder"]).decode("ascii", "replace")
            if order not in ("little", "big"):
                raise self.fault(f"byteorder is {order!r}; expected little or big")
        value = self.reader(io.BytesIO(self._member(archive, members[found[0]]))).read()
        content = {}
        for key, storage in self.storages.items():
            name, nbytes = f"{folder}data/{key}", storage.numel * (storage.dtype or np.dtype(np.uint8)).itemsize
            if name not in members:
                raise self.fault(f"storage {name} is missing")
            if members[name].file_size != nbytes:
                raise self.fault(f"storage {name} has {members[name].file_size} bytes; data.pkl expects {nbytes}")
            content[key] = self._member(archive, members[name])
        return self.filled(value, content, "<" if order == "little" else ">")

    def _member(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self.fault(f"{info.filename} is compressed by method {info.compress_type}; expected none or deflate")
        self.take(info.file_size, info.filename)
        content = archive.read(info)
        if len(content) != info.file_size:
            raise self.fault(f"{info.filename} has {len(content)} bytes; {info.file_size} expected")
        return content


class _Legacy(_File):
    def read(self) -> Any:
        reader = self.reader(self.file)
        if reader.read() != MAGIC:
            raise self.fault("the magic number of torch.save is damaged")
        version = reader.read()
        if version != VERSION:
            raise self.fault(f"a file of protocol version {version if is_int(version) else '?'}; expected {VERSION}")
        reader.read()  # the machine's byte order and sizes: numbers are written little-endian by all
        value = reader.read()
        keys = reader.read()
        if type(keys) is not list or sorted(map(str, keys)) != sorted(self.storages):
            raise self.fault("the list of storages does not agree with the tensors")
        content = {key: self._storage(self.storages[key]) for key in keys}
        return self.filled(value, content, "<")

    def _storage(self, storage: Storage) -> bytes:
        if storage.dtype is None:
            raise self.fault(f"storage {storage.key!r} has no dtype")
        count = int.from_bytes(self.file.read(8), "little", signed=True)
        if count != storage.numel:
            raise self.fault(f"storage {storage.key!r} has {count} elements; its pickle says {storage.numel}")
        nbytes = count * storage.dtype.itemsize
        if nbytes > self.size - self.file.tell():
            raise self.fault(f"truncated: storage {storage.key!r} should have {nbytes} bytes more")
        return self.file.read(nbytes)


def _array(planned: Planned, content: bytes, order: ByteOrder) -> np.ndarray:
    dtype = planned.dtype
    if dtype.name == "bfloat16":  # NumPy cannot turn its bytes
        flat = np.frombuffer(content, np.dtype(np.uint16).newbyteorder(order)).astype(np.uint16).view(dtype)
    else:
        flat = np.frombuffer(content, dtype.newbyteorder(order), len(content) // dtype.itemsize)
    first = planned.offset + planned.storage.first
    strides = tuple(s * dtype.itemsize for s in planned.strides)
    if 0 in planned.shape:
        return np.empty(planned.shape, dtype)
    view = np.lib.stride_tricks.as_strided(flat[first:], planned.shape, strides, writeable=False)
    return np.array(view, dtype, order="C")


def _replaced(root: Any, arrays: dict[int, np.ndarray]) -> Any:
    """The same containers with arrays in them; iterative, since a file may nest them as deep as it likes."""
    made: dict[int, Any] = {}
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        value, ready = stack.pop()
        if id(value) in made and not ready:
            continue
        if isinstance(value, Planned):
            made[id(value)] = arrays[id(value)]
        elif isinstance(value, tuple) and not ready and value:
            stack.append((value, True))
            stack += [(part, False) for part in value]
        elif isinstance(value, tuple):
            made[id(value)] = tuple(made.get(id(part), part) for part in value)
        elif isinstance(value, list | dict):
            made[id(value)] = value  # filled in place: it may hold itself
            stack += [(part, False) for part in (value.values() if isinstance(value, dict) else value)]
        else:
            made[id(value)] = value
    for value in list(made.values()):
        if isinstance(value, dict):
            for key, part in value.items():
                value[key] = made.get(id(part), part)
        elif isinstance(value, list):
            value[:] = [made.get(id(part), part) for part in value]
    return made[id(root)]


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    if items not in ((), []):
        raise TypeError("an OrderedDict made of arguments")
    return OrderedDict()


def _first(planned: Any, *_: Any) -> Planned:
    if not isinstance(planned, Planned):
        raise TypeError(f"a parameter made of a {type(planned).__name__}")
    return planned


def _some(names: Any) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (", ..." if len(names) > 3 else "") or "nothing"
