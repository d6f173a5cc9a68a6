"""Weights on disk: safetensors written beside and renamed, and PyTorch checkpoints turned to NHWC once on loading."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

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

    ``source`` is a .safetensors file, a .pt / .pth file (read with ``weights_only=True``; needs torch), or a mapping of
    names to arrays or torch tensors. A linear layer that was trained behind a flatten of (C, H, W) keeps its weights:
    give the model ``nn.Flatten(order="CHW")``. Raises DataError for a file that cannot be read.
    """
    if isinstance(source, Mapping):
        state = source
    elif Path(source).suffix == ".safetensors":
        state = load(source)
    else:
        state = _read_pickled(Path(source))
    arrays = {str(name): _foreign_array(str(name), value) for name, value in state.items()}
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


def _read_pickled(path: Path) -> Mapping[str, Any]:
    if find_spec("torch") is None:
        raise DataError(
            f"{path}: reading a PyTorch checkpoint needs torch; convert it to .safetensors where torch is installed"
        )
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and OS errors for a bad file
        raise DataError(f"{path}: cannot be read as a PyTorch checkpoint: {error}") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise DataError(f"{path}: expected a state dict, found {type(state).__name__}")
    return state


def _foreign_array(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor, or ours
        value = value.detach()
        value = value.cpu().float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value.cpu() if hasattr(value, "cpu") else value)
    if array.dtype.kind not in "fiub":
        raise DataError(f"load_torch: {name} is not an array of numbers but {type(value).__name__} ({array.dtype})")
    return array
