"""A masked autoencoder: three quarters of a picture's patches are hidden, and painted from the others.

He, Chen, Xie, Li, Dollár, Girshick: Masked autoencoders are scalable vision learners, CVPR 2022; here small, for
pictures of 28 to 64 pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..data import Dataset, transforms
from ..models.transformer import Block, initialise_linear, normal
from ..nn import LayerNorm, Linear, Module, Sequential
from ..tensor import Tensor
from .tasks import Task

HIDDEN = 0.75  # of the patches
FLAT = 1e-6  # what is added to a patch's variance


class PatchEncoder(Module):
    """A transformer over patches: images (N, side, side, C) -> features (N, dim), the mean of its tokens."""

    def __init__(self, side: int, channels: int, patch: int = 4, dim: int = 96, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        if side % patch:
            raise ValueError(f"PatchEncoder: the side must be a multiple of {patch}, received {side}")
        self.side, self.channels, self.patch, self.dim = side, channels, patch, dim
        self.embed = Linear(patch * patch * channels, dim)
        self.register_buffer("positions", Tensor(positions(side // patch, dim)))
        self.blocks = Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = LayerNorm(dim, eps=1e-6)
        initialise_linear(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != (self.side, self.side, self.channels):
            expected = f"(N, {self.side}, {self.side}, {self.channels})"
            raise ValueError(f"PatchEncoder: expected images {expected}, received {x.shape}")
        n, rows, p = x.shape[0], self.side // self.patch, self.patch
        cut = x.reshape(n, rows, p, rows, p, self.channels).permute(0, 1, 3, 2, 4, 5)
        tokens = self.embed(cut.reshape(n, rows * rows, p * p * self.channels)) + self.positions
        return self.norm(self.blocks(tokens)).mean(axis=1)  # type: ignore[no-any-return]

    def seen(self, cut: Tensor, visible: Tensor) -> Tensor:
        """Tokens (N, kept, dim) of the patches (N, L, numbers) that the rows of ``visible`` (N, kept, L) choose."""
        tokens: Tensor = self.norm(self.blocks(visible @ (self.embed(cut) + self.positions)))
        return tokens


class MaskedAutoencoder(Task):
    """The encoder sees a quarter of the patches; a smaller decoder gets its tokens where they belong, one learned token
    wherever a patch is hidden, and paints the hidden patches. The loss is the mean squared error of these, each patch
    having been brought to mean 0 and deviation 1 (section 3 and table 1d). Raises ValueError for pictures that are not
    square or no multiple of the patch."""

    def __init__(self, dataset: Dataset, patch: int = 4, dim: int = 96, depth: int = 4, decoder: int = 48) -> None:
        super().__init__()
        _, height, width, channels = dataset.train_images.shape
        if height != width:
            raise ValueError(
                f"MaskedAutoencoder: pictures must be square, those of {dataset.name} are {height} x {width}"
            )
        self.encoder: PatchEncoder = PatchEncoder(height, channels, patch, dim, depth)
        self.width, self.patch = dim, patch
        self.narrow = Linear(dim, decoder)
        self.hidden = normal((1, 1, decoder), 0.02)
        self.register_buffer("places", Tensor(positions(height // patch, decoder)))
        self.decoder = Block(decoder, 4)
        self.norm = LayerNorm(decoder, eps=1e-6)
        self.paint = Linear(decoder, patch * patch * channels)
        for part in (self.narrow, self.decoder, self.paint):
            initialise_linear(part)
        crop = transforms.RandomCrop()
        self.transform = transforms.Compose(crop, transforms.HorizontalFlip()) if channels == 3 else crop

    def loss(
        self, images: np.ndarray, normalize: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
    ) -> Tensor:
        cut = patches(normalize(images), self.patch)
        visible = chosen(len(cut), cut.shape[1], round((1 - HIDDEN) * cut.shape[1]), rng)
        mask = 1 - visible.sum(1)[..., np.newaxis]  # (N, L, 1): 1 where hidden
        mean, variance = cut.mean(2, keepdims=True), cut.var(2, keepdims=True)
        target = ((cut - mean) / np.sqrt(variance + FLAT)).astype(np.float32)
        painted = self.painted(
            Tensor(cut).to(self.device), Tensor(visible).to(self.device), Tensor(mask).to(self.device)
        )
        error = (painted - Tensor(target).to(self.device)) * Tensor(mask).to(self.device)
        return (error * error).sum() * float(1 / (mask.sum() * cut.shape[2]))

    def painted(self, cut: Tensor, visible: Tensor, mask: Tensor) -> Tensor:
        """(N, L, numbers) of patches (N, L, numbers), of which the encoder sees those that ``visible`` chooses."""
        tokens = self.narrow(self.encoder.seen(cut, visible))
        everywhere = visible.permute(0, 2, 1) @ tokens + mask * self.hidden + self.places
        return self.paint(self.norm(self.decoder(everywhere)))  # type: ignore[no-any-return]


def patches(images: np.ndarray, patch: int) -> np.ndarray:
    """(N, L, patch * patch * C) of images (N, H, W, C): row by row, L = H / patch * W / patch."""
    n, height, width, channels = images.shape
    rows, columns = height // patch, width // patch
    cut = images.reshape(n, rows, patch, columns, patch, channels).swapaxes(2, 3)
    return np.ascontiguousarray(cut.reshape(n, rows * columns, patch * patch * channels))


def chosen(n: int, length: int, kept: int, rng: np.random.Generator) -> np.ndarray:
    """(n, kept, length) float32: each row has one 1, at one of ``kept`` different random places in rising order."""
    places = np.sort(rng.permuted(np.tile(np.arange(length), (n, 1)), axis=1)[:, :kept], axis=1)
    rows: np.ndarray = np.eye(length, dtype=np.float32)[places]
    return rows


def positions(side: int, dim: int) -> np.ndarray:
    """(1, side * side, dim) float32: sines and cosines of a patch's row in one half of the features, of its column in
    the other, at ``dim / 4`` frequencies from 1 down to 1 / 10,000. Raises ValueError unless 4 divides ``dim``."""
    if dim % 4:
        raise ValueError(f"positions: dim must be a multiple of 4, received {dim}")
    frequency = 1 / 10_000 ** (np.arange(dim // 4) / (dim // 4))
    angle = np.arange(side)[:, np.newaxis] * frequency
    wave = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)  # (side, dim / 2)
    rows, columns = np.repeat(wave, side, axis=0), np.tile(wave, (side, 1))
    return np.concatenate([rows, columns], axis=1)[np.newaxis].astype(np.float32)
