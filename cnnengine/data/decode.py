"""One picture file to pixels, with one kind of error for everything that can be wrong with it."""

from __future__ import annotations

import io
import os
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError

MODES = {1: "L", 3: "RGB"}  # Pillow's name for so many channels of 8 bits
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def decode(source: str | os.PathLike[str] | bytes, name: str, channels: int = 3) -> Image.Image:
    """The picture in a file, or in the bytes of one, wholly read, in 3 channels (RGB) or 1 (grey).

    Any format and mode that Pillow reads; transparency is laid on white; a photograph is turned as the camera noted
    (EXIF); the first frame of several. Raises DataError that begins with ``name`` for a missing, truncated, corrupt or
    overly large picture (Pillow's MAX_IMAGE_PIXELS).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of TIFF tags and EXIF; what matters is raised
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                image.load()
                return _converted(_upright(image), MODES[channels])
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such image") from error
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image in a format Pillow reads") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError, MemoryError) as error:
        raise DataError(f"{name}: the picture is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:  # SyntaxError: a broken PNG chunk
        raise DataError(f"{name}: the image is truncated or corrupt: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as the camera's EXIF entry says; as it is where that entry cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, struct.error):
        return image


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if image.mode[0] in "IF":
        image = Image.fromarray(eight_bits(np.asarray(image, np.float64), image.mode))
    return image if image.mode == mode and type(image) is Image.Image else image.convert(mode)


def eight_bits(wide: np.ndarray, mode: str) -> np.ndarray:
    """Grey of 16 bits, or of 32 whose range only its largest value tells: 1 (floats only), 255 or 65535."""
    if not np.isfinite(wide).all():
        raise ValueError("some of its pixels are not finite")
    white = 65535
    if mode in ("I", "F") and wide.max() <= 255:
        white = 1 if mode == "F" and wide.max() <= 1 else 255
    return (wide * (255 / white)).clip(0, 255).round().astype(np.uint8)
