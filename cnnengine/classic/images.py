"""What every feature takes: images (N, H, W, C) uint8, and how they become grey."""

from __future__ import annotations

import numpy as np

from ._library import library


def checked(what: str, images: np.ndarray) -> np.ndarray:
    """The images. Raises TypeError where they are not bytes, ValueError where they are not (N, H, W, 1) or
    (N, H, W, 3) with at least one image."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"{what}: images must be uint8 in [0, 255], received {images.dtype}")
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"{what}: images must be (N, H, W, 1) or (N, H, W, 3), received {images.shape}")
    if not images.size:
        raise ValueError(f"{what}: there are no images: {images.shape}")
    return images


def grey(images: np.ndarray) -> np.ndarray:
    """(N, H, W) float64 in [0, 1] of images uint8 (N, H, W, C); colour by ITU-R BT.709: .2125 R + .7154 G + .0721 B."""
    if images.shape[3] == 1:
        return images[..., 0] / 255.0
    return library("skimage.color").rgb2gray(images)  # type: ignore[no-any-return]


def in_cells(maps: np.ndarray, cell: int) -> np.ndarray:
    """The mean of each ``cell`` x ``cell`` square of ``maps`` (N, H, W): (N, H // cell * (W // cell)) float32, row by
    row. Rows and columns that fill no square are left out. Raises ValueError for maps smaller than a square."""
    n, height, width = maps.shape
    rows, columns = height // cell, width // cell
    if not rows or not columns:
        raise ValueError(f"images of {height} x {width} are smaller than a cell of {cell} x {cell}")
    squares = maps[:, : rows * cell, : columns * cell].reshape(n, rows, cell, columns, cell)
    return squares.mean((2, 4)).reshape(n, -1).astype(np.float32)  # type: ignore[no-any-return]
