"""A data set of a few embedded digits written as MNIST's four IDX files, for tests that train in seconds."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from cnnengine import data


def idx_bytes(array: np.ndarray) -> bytes:
    """A uint8 array in the IDX format."""
    return struct.pack(f">{1 + array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()


def write(root: Path, train: int = 200, test: int = 60, folder: str = "MNIST") -> Path:
    """ROOT/MNIST/raw with that many rows, images packed with gzip, labels not; returns ROOT."""
    digits = data.digits()
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for part, images, labels, rows in (
        ("train", digits.train_images, digits.train_labels, train),
        ("t10k", digits.test_images, digits.test_labels, test),
    ):
        packed = gzip.compress(idx_bytes(images[:rows, :, :, 0]), 1)
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(packed)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels[:rows].astype(np.uint8)))
    return root
