"""Data sets: labelled images (N, H, W, C) uint8 in memory, or read from their files in batches when asked for."""

from . import transforms
from .arrays import ArrayPart
from .cifar import cifar10, cifar100
from .dataset import Dataset, batches, from_arrays, normalize
from .folder import FileList, FolderDataset, ImageFolder, image_folders
from .idx import read_idx
from .imagenet import imagenet_classes
from .part import ImageDataset, Part, SkippedImage, batch_count
from .picture import load_digit
from .preprocessing import Preprocessing
from .sets import digits, fashion_mnist, mnist
from .shards import TarShards

__all__ = [
    "ArrayPart",
    "Dataset",
    "FileList",
    "FolderDataset",
    "ImageDataset",
    "ImageFolder",
    "Part",
    "Preprocessing",
    "SkippedImage",
    "TarShards",
    "batch_count",
    "batches",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "from_arrays",
    "image_folders",
    "imagenet_classes",
    "load_digit",
    "mnist",
    "normalize",
    "read_idx",
    "transforms",
]
