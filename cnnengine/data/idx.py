"""The IDX format of MNIST: a magic number (type, rank), big-endian sizes, then the elements."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import DataError

UNSIGNED_BYTE = 0x08  # the type code MNIST's files have; magic = type << 8 | rank


def read_idx(path: str | os.PathLike[str], *, rank: int) -> np.ndarray:
    """The uint8 array in the IDX file ``path``, packed with gzip or not (told by its first bytes, not by its name).

    ``rank`` is the number of axes expected: 3 for images (count, rows, columns), 1 for labels. The result is read-only.
    Raises DataError naming the file, what was expected and what it holds.
    """
    path = Path(path)
    content = unpacked(path)
    magic = UNSIGNED_BYTE << 8 | rank
    header = 4 + 4 * rank  # bytes
    if len(content) < header:
        raise DataError(f"{path}: truncated: an IDX header has {header} bytes, the file holds {len(content)} bytes")
    found, *shape = struct.unpack_from(f">{1 + rank}I", content)
    if found != magic:
        raise DataError(
            f"{path}: not an IDX file of unsigned bytes of rank {rank}: magic 0x{magic:08x} expected,"
            f" 0x{found:08x} found"
        )
    expected = header + math.prod(shape)
    if len(content) != expected:
        fault = "truncated" if len(content) < expected else "too long"
        raise DataError(
            f"{path}: {fault}: {expected} bytes expected for shape {tuple(shape)}, {len(content)} bytes found"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def unpacked(path: Path) -> bytes:
    """The file's bytes, without gzip if it is packed. Raises DataError for a missing or corrupt file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: truncated or corrupt gzip file of {len(content)} bytes: {error}") from error
