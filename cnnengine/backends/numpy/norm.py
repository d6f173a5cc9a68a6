"""Normalisation by its definition, in float64: x (N, L, G, D), mean and variance (N, G) over L and D."""

from __future__ import annotations

import numpy as np

from ...shapes import NormShape
from ..contract import Array, Epilogue
from . import epilogue as ending
from .activation import activate


def _wide(a: Array, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(a).astype(np.float64).reshape(shape)


@np.errstate(all="ignore")
def forward(
    shape: NormShape,
    x: Array,
    gain: Array | None,
    offset: Array | None,
    residual: Array | None,
    y: Array,
    mean: Array,
    variance: Array,
    epsilon: float,
    activation: str,
) -> None:
    wide = _wide(x, shape.x)
    m = wide.mean(axis=(1, 3), keepdims=True)
    v = np.square(wide - m).mean(axis=(1, 3), keepdims=True)
    mean[...], variance[...] = m.reshape(mean.shape), v.reshape(variance.shape)
    z = (wide - m) / np.sqrt(v + epsilon)
    if gain is not None:
        z = z * _wide(gain, (shape.G, shape.D))
    if offset is not None:
        z = z + _wide(offset, (shape.G, shape.D))
    if residual is not None:
        z = z + _wide(residual, shape.x)
    y[...] = activate(activation, z, 0.0).reshape(y.shape)


@np.errstate(all="ignore")
def backward(
    shape: NormShape,
    x: Array,
    gain: Array | None,
    mean: Array,
    variance: Array,
    y: Array | None,
    dy: Array,
    dx: Array | None,
    dgain: Array | None,
    doffset: Array | None,
    dresidual: Array | None,
    epsilon: float,
    activation: str,
) -> None:
    """With u the normalised x and dz what arrives behind the activation:
    dx = (dz * gain - mean of (dz * gain) - u * mean of (dz * gain * u)) / sqrt(variance + epsilon)."""
    dz = _wide(dy, shape.x)
    if activation == "relu":
        dz = np.where(_wide(y, shape.x) <= 0, 0.0, dz)
    if dresidual is not None:
        dresidual[...] = dz.reshape(dresidual.shape)
    per_statistic = (shape.N, 1, shape.G, 1)
    rstd = 1 / np.sqrt(_wide(variance, per_statistic) + epsilon)
    u = (_wide(x, shape.x) - _wide(mean, per_statistic)) * rstd
    if dgain is not None:
        dgain[...] = (dz * u).sum(axis=(0, 1)).reshape(dgain.shape)
    if doffset is not None:
        doffset[...] = dz.sum(axis=(0, 1)).reshape(doffset.shape)
    if dx is not None:
        du = dz if gain is None else dz * _wide(gain, (shape.G, shape.D))
        average = du.mean(axis=(1, 3), keepdims=True)
        slope = (du * u).mean(axis=(1, 3), keepdims=True)
        dx[...] = ((du - average - u * slope) * rstd).reshape(dx.shape)


@np.errstate(all="ignore")
def apply_epilogue(x: Array, y: Array, epilogue: Epilogue) -> None:
    y[...] = ending.apply(np.asarray(x).astype(np.float64), epilogue)
