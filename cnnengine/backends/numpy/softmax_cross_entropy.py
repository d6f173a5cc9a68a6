"""Softmax and cross-entropy of x (M, C) against labels (M,), shifted by the row's largest for range."""

from __future__ import annotations

import numpy as np

from ..contract import Array


@np.errstate(all="ignore")
def forward(x: Array, labels: Array, loss: Array, probability: Array) -> None:
    shifted = x.astype(np.float64) - x.astype(np.float64).max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1)
    loss[...] = np.log(total) - shifted[np.arange(len(x)), labels]
    probability[...] = np.exp(shifted) / total[:, None]


@np.errstate(all="ignore")
def backward(probability: Array, labels: Array, dloss: Array, dx: Array) -> None:
    difference = probability.astype(np.float64)
    difference[np.arange(len(labels)), labels] -= 1
    dx[...] = difference * dloss.astype(np.float64)[:, None]
