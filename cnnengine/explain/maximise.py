"""Activation maximisation: an image that a unit of the network answers to most, made from noise by its gradient.

Erhan, Bengio, Courville and Vincent, "Visualizing higher-layer features of a deep network", Univ. de Montreal 1341,
2009. What keeps the result a picture is from Olah, Mordvintsev and Schubert, "Feature visualization", Distill 2017:
the image is shifted at random before each step, and steps are taken in a space in which natural images are not
correlated: low frequencies move further than high ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.dataset import Numbers
from ..nn import Module
from ..tensor import Tensor
from ._network import BATCH, on_device, undisturbed
from .layers import watching

CONTRAST = 0.5  # standard deviation of the noise that an image begins as, before the sigmoid


def activation_maximisation(
    model: Module,
    layer: str,
    units: Sequence[int],
    size: tuple[int, int, int],
    *,
    mean: Numbers = 0.5,
    std: Numbers = 0.5,
    steps: int = 128,
    rate: float = 0.05,
    jitter: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Images (units, H, W, C) in [0, 1] of ``size`` (H, W, C), each of which makes one unit of ``layer`` large.

    A unit is a channel of the layer's last axis; where the layer makes (P, Q) positions, their mean is meant. The
    network is given (image - mean) / std. Each of the ``steps`` changes the image, before the sigmoid that keeps it in
    [0, 1], by ``rate`` times the gradient over its root mean square; before it the image is shifted by up to ``jitter``
    pixels each way (None: an eighth of the side), round the border. Raises ValueError for unknown layers and units.
    """
    H, W, C = size
    if min(size) < 1 or steps < 1:
        raise ValueError(f"activation_maximisation: expected sizes and steps of at least 1, received {size}, {steps}")
    reach = min(H, W) // 8 if jitter is None else jitter
    rng = np.random.default_rng(seed)
    gain = _gain(H, W)
    pictures = [
        _ascended(model, layer, units[start : start + BATCH], size, (mean, std), steps, rate, reach, gain, rng)
        for start in range(0, len(units), BATCH)
    ]
    return np.concatenate(pictures) if pictures else np.empty((0, H, W, C), np.float32)


def _ascended(
    model: Module,
    layer: str,
    units: Sequence[int],
    size: tuple[int, int, int],
    normal: tuple[Numbers, Numbers],
    steps: int,
    rate: float,
    reach: int,
    gain: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    mean, std = (np.asarray(value, np.float32) for value in normal)
    dtype = next((parameter.dtype for parameter in model.parameters()), np.dtype(np.float32))
    z = np.stack([_noise(size, gain, rng) for _ in units])
    answered = np.zeros(len(units), bool)  # whether a unit's gradient has ever been other than 0
    with undisturbed(model), watching(model, {layer: _stop}):
        for _ in range(steps):
            shift = tuple(rng.integers(-reach, reach + 1, 2)) if reach else (0, 0)
            pixels = 1 / (1 + np.exp(-np.roll(z, shift, (1, 2))))
            x = on_device(model, ((pixels - mean) / std).astype(dtype), requires_grad=True)
            y = _reached(model, x, layer)
            y.backward(_wanted(y, units, layer))
            if x.grad is None:
                raise ValueError(f"activation_maximisation: {layer} does not depend on the image")
            slope = np.roll(x.grad.numpy() / std * pixels * (1 - pixels), (-shift[0], -shift[1]), (1, 2))
            slope = smoothed(slope, gain)
            magnitude = np.sqrt((slope**2).mean((1, 2, 3), keepdims=True))
            z += rate * slope / np.maximum(magnitude, np.finfo(np.float64).tiny)
            answered |= magnitude.ravel() > 0
            for i in np.flatnonzero(~answered):  # to nothing in this image: another
                z[i] = _noise(size, gain, rng)
    found: np.ndarray = (1 / (1 + np.exp(-z))).astype(np.float32)
    return found


class _ReachedError(Exception):
    """The layer was computed; nothing behind it needs to be."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


def _stop(value: Tensor) -> Tensor | None:
    raise _ReachedError(value)


def _reached(model: Module, x: Tensor, layer: str) -> Tensor:
    """What passes at the layer. Raises ValueError where the network does not call it."""
    try:
        model(x)
    except _ReachedError as reached:
        return reached.value
    raise ValueError(f"activation_maximisation: the network did not call {layer}")


def _wanted(y: Tensor, units: Sequence[int], layer: str) -> Tensor:
    """The gradient of the sum over images of the mean of each one's unit. Raises ValueError."""
    if not y.requires_grad:
        raise ValueError(f"activation_maximisation: {layer} does not depend on the image")
    if y.ndim < 2 or y.shape[0] != len(units):
        raise ValueError(f"activation_maximisation: {layer} makes {y.shape}, expected ({len(units)}, ..., units)")
    if not all(0 <= unit < y.shape[-1] for unit in units):
        raise ValueError(f"activation_maximisation: {layer} has units 0 to {y.shape[-1] - 1}, received {list(units)}")
    wanted = np.zeros(y.shape, y.dtype)
    for i, unit in enumerate(units):
        wanted[i, ..., unit] = 1 / np.prod(y.shape[1:-1])
    return Tensor(wanted).to(y.device)


def _noise(size: tuple[int, int, int], gain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, C) with the spectrum of natural images"""
    noise = smoothed(rng.standard_normal((1, *size)), gain)[0]
    found: np.ndarray = CONTRAST * noise / noise.std()
    return found


def _gain(H: int, W: int) -> np.ndarray:
    """What each frequency of a real (H, W) picture is multiplied with: the amplitude that natural images have of it,
    one over the frequency, with that of one period in the picture as 1."""
    frequency = np.hypot(np.fft.fftfreq(H)[:, None], np.fft.rfftfreq(W)) * max(H, W)
    found: np.ndarray = 1 / np.maximum(frequency, 1)
    return found


def smoothed(images: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(N, H, W, C) with each frequency multiplied by its gain"""
    H, W = images.shape[1:3]
    spectrum = np.fft.rfft2(images, axes=(1, 2)) * gain[None, :, :, None]
    return np.fft.irfft2(spectrum, (H, W), axes=(1, 2))
