"""Weights on disk: safetensors written beside and renamed, and PyTorch checkpoints turned to NHWC once on loading."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from . import torch_file
from .errors import DataError
from .tensor import Tensor

DTYPES = {  # what safetensors calls them
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
NESTED = ("state_dict", "model")  # where checkpoints keep a state dict beside other things
WRAPPERS = ("module.", "_orig_mod.")  # torch.nn.DataParallel and DistributedDataParallel, torch.compile


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes ``content`` to a file beside ``path`` and renames it, so that ``path`` is never half-written. Raises
    OSError naming ``path``."""
    path = Path(path)
    try:
        _write_beside(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_beside(path: Path, content: bytes) -> None:
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, path.stat().st_mode if path.exists() else 0o644)  # mkstemp's 0o600 is for secrets
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def save(
    tensors: Mapping[str, Any], path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named arrays or Tensors, such as a ``state_dict()``, to a safetensors file.

    ``metadata`` is a mapping of strings kept in the file's header. The same input gives the same bytes. Raises
    TypeError for a dtype that safetensors does not know.
    """
    arrays = {str(name): _host_array(str(name), value) for name, value in tensors.items()}
    write_atomically(path, _in_fixed_order(safetensors.numpy.save(arrays, dict(metadata) if metadata else None)))


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name. Raises DataError for a missing, truncated or corrupt file."""
    return load_with_metadata(path)[0]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a safetensors file. Raises DataError as ``load`` does."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        entries = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise DataError(
            f"{path}: not a whole safetensors file ({len(content)} bytes): truncated or corrupt: {error}"
        ) from error
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise DataError(f"{path}: {name} has dtype {entry['dtype']}; expected one of {', '.join(DTYPES)}")
        arrays[name] = np.frombuffer(entry["data"], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return dict(sorted(arrays.items())), _header(content).get("__metadata__", {})


def load_torch(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A PyTorch state dict with every 4-D convolution weight turned from (K, C/groups, R, S) to (K, R, S, C/groups).

    ``source`` is a .safetensors file, a .pt / .pth file, or a mapping of names to arrays or torch tensors. A file is
    read without torch, and nothing in it is run (see docs/weights.md): it may hold a state dict, or one under
    "state_dict" or "model". bfloat16 stays bfloat16. Where every name begins with "module." or "_orig_mod.", which
    PyTorch's DataParallel and compile put before all names, it is left out. A linear layer that was trained behind a
    flatten of (C, H, W) keeps its weights: give the model ``nn.Flatten(order="CHW")``. Raises DataError for a file that
    cannot be read and for an entry that is no array of numbers.
    """
    if isinstance(source, Mapping):
        state = source
    elif Path(source).suffix == ".safetensors":
        state = load(source)
    else:
        state = _state_dict(torch_file.read(source), source)
    arrays = {name: _foreign_array(name, value) for name, value in _bare_names(state).items()}
    return {n: np.ascontiguousarray(a.transpose(0, 2, 3, 1)) if a.ndim == 4 else a for n, a in arrays.items()}


def _host_array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        array = value.numpy()
    else:
        array = value.get() if hasattr(value, "__cuda_array_interface__") else np.asarray(value)  # CuPy's own way
    if array.dtype not in {np.dtype(dtype) for dtype in DTYPES.values()}:
        raise TypeError(f"save: {name} has dtype {array.dtype}; expected a floating-point, integer or boolean array")
    return np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray makes a 0-D array 1-D


def _header(content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])  # type: ignore[no-any-return]


def _in_fixed_order(content: bytes) -> bytes:
    """The same file with its header sorted by name: the library writes metadata in the order of a hash map."""
    length = int.from_bytes(content[:8], "little")
    text = json.dumps(_header(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _state_dict(content: Any, path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The state dict in a checkpoint: itself, or under one of the names it is usually kept by."""
    if isinstance(content, Mapping):
        for name in NESTED:
            if isinstance(content.get(name), Mapping):
                return content[name]  # type: ignore[no-any-return]
        return content
    raise DataError(f"{path}: expected a state dict, found {type(content).__name__}")


def _bare_names(state: Mapping[Any, Any]) -> dict[str, Any]:
    """The state without a prefix that a wrapper of the whole network put before every name."""
    named = {str(name): value for name, value in state.items()}
    for prefix in WRAPPERS * 2:  # one wrapper in another, in either order
        if named and all(name.startswith(prefix) for name in named):
            named = {name.removeprefix(prefix): value for name, value in named.items()}
    return named


def _foreign_array(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, or ours
        value = value.detach()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy cannot share; float32 holds the same numbers
            return np.asarray(value.cpu().float()).astype(ml_dtypes.bfloat16)
    array = np.asarray(value.cpu() if hasattr(value, "cpu") else value)
    if array.dtype.kind not in "fiub" and array.dtype != ml_dtypes.bfloat16:
        raise DataError(f"load_torch: {name} is not an array of numbers but {type(value).__name__} ({array.dtype})")
    return array
