"""Augmentation, one picture at a time: ``transform(picture, rng)`` gives a picture.

A picture is an array uint8 (H, W, C) or a Pillow image; what comes back is of the same kind. All random numbers come
from ``rng``, a NumPy generator.
"""

from .affine import RandomAffine
from .basic import Compose, HorizontalFlip, RandomApply, RandomCrop
from .colour import ColorJitter, RandomDarken, RandomGrayscale
from .erasing import RandomErasing
from .policies import OPERATIONS, RandAugment, TrivialAugment
from .sizes import CenterCrop, RandomResizedCrop, Resize

__all__ = [
    "OPERATIONS",
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "HorizontalFlip",
    "RandAugment",
    "RandomAffine",
    "RandomApply",
    "RandomCrop",
    "RandomDarken",
    "RandomErasing",
    "RandomGrayscale",
    "RandomResizedCrop",
    "Resize",
    "TrivialAugment",
]
