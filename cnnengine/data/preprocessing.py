"""What a trained network expects of a picture: its size, how that is cut out, and the range of the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from .dataset import Numbers, normalize
from .transforms.pictures import FILTERS, to_array

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PADDING = 32  # pixels that EfficientNet's rule leaves out around the crop, of the side they make together


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From a picture of any size to the square that a network was trained on.

    ``size``: its side in pixels. ``crop`` says how it is cut out. A number: the shorter side is first resized to that
    many pixels, then the centre of ``size`` x ``size`` is cut out (torchvision's rule; 256 for 224). "padded": the
    centre square of ``size / (size + 32)`` of the shorter side is cut out, then resized (EfficientNet's rule).
    ``interpolation``: "nearest", "bilinear", "bicubic" or "lanczos", all with Pillow's anti-aliasing. ``mean`` and
    ``std`` are of pixels divided by 255, one number or one a channel. Raises ValueError for what cannot be.
    """

    size: int = 224
    crop: int | Literal["padded"] = 256
    interpolation: str = "bilinear"
    mean: Numbers = IMAGENET_MEAN
    std: Numbers = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"Preprocessing: size must be at least 1, received {self.size}")
        if self.crop != "padded" and not (isinstance(self.crop, int) and self.crop >= self.size):
            raise ValueError(
                f"Preprocessing: crop must be 'padded' or at least the size of {self.size}, received {self.crop!r}"
            )
        if self.interpolation not in FILTERS:
            raise ValueError(
                f"Preprocessing: interpolation must be one of {', '.join(FILTERS)}, received {self.interpolation!r}"
            )

    def __call__(self, image: Image.Image, rng: np.random.Generator | None = None) -> np.ndarray:
        """The (size, size, C) uint8 cut of ``image``. ``rng`` is not used: the loaders give one to every transform."""
        filter_, (width, height) = FILTERS[self.interpolation], image.size
        shorter = min(width, height)
        if self.crop == "padded":
            side = max(1, int(self.size / (self.size + PADDING) * shorter))
            left, top = (width - side + 1) // 2, (height - side + 1) // 2
            image = image.crop((left, top, left + side, top + side)).resize((self.size, self.size), filter_)
        else:
            width, height = int(self.crop * width / shorter), int(self.crop * height / shorter)
            left, top = round((width - self.size) / 2), round((height - self.size) / 2)
            image = image.resize((width, height), filter_).crop((left, top, left + self.size, top + self.size))
        return to_array(image)

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """``(images / 255 - mean) / std`` as float32; ``images`` uint8 (..., C)."""
        return normalize(images, self.mean, self.std)


def default_preprocessing(image: tuple[int, int, int]) -> Preprocessing:
    """ImageNet's usual preprocessing for a network that takes (H, W, C) images: 7/8 of the shorter side, bilinear."""
    return Preprocessing(size=image[0], crop=round(image[0] / 0.875))
