"""Data sets as NumPy arrays: images (N, H, W, C) uint8, labels (N,) int64."""

from .dataset import Dataset, batch_count, batches, normalize
from .idx import read_idx
from .mnist import digits, fashion_mnist, mnist
from .picture import load_digit

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
