"""Data sets as NumPy arrays: images (N, H, W, C) uint8, labels (N,) int64."""

from .dataset import Dataset, batch_count, batches, normalize
from .idx import read_idx
from .picture import load_digit
from .sets import digits, fashion_mnist, mnist

__all__ = [
    "Dataset",
    "batch_count",
    "batches",
    "digits",
    "fashion_mnist",
    "load_digit",
    "mnist",
    "normalize",
    "read_idx",
]
