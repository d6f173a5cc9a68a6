"""Data sets as NumPy arrays: images (N, H, W, C) uint8, labels (N,) int64."""

from .dataset import Dataset, batch_count, batches, normalize
from .idx import read_idx
from .imagenet import imagenet_classes
from .picture import load_digit
from .preprocessing import Preprocessing
from .sets import digits, fashion_mnist, mnist

__all__ = [
    "Dataset",
    "Preprocessing",
    "batch_count",
    "batches",
    "digits",
    "fashion_mnist",
    "imagenet_classes",
    "load_digit",
    "mnist",
    "normalize",
    "read_idx",
]
