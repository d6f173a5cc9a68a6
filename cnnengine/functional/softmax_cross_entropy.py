"""Softmax, and cross-entropy against class labels: one kernel, since the softmax alone would lose range."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._border import any_array
from ..autograd import Function, grad_enabled
from ..backends.contract import Array, Backend
from ..backends.registry import device_of
from ..shapes import reduce_shape
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, constant, full
from ._common import backend_of, tensor
from .binary import div, exp, sub
from .reduce import max as largest
from .reduce import sum as total

REDUCTIONS = ("mean", "sum", "none")


class CrossEntropy(Function):
    """saved: (probability, labels, reduction)"""

    __slots__ = ()

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        probability, labels, reduction = self.saved
        backend, rows = self.backend, len(labels)
        if reduction != "none":
            share = full(backend, (rows,), dy.dtype, 1.0 / rows if reduction == "mean" else 1.0)
            dy = binary_array(backend, "mul", share, dy)
        dx = backend.empty(probability.shape, dy.dtype)
        backend.softmax_cross_entropy_backward(probability, labels, dy, dx)
        return (dx,)


def cross_entropy(logits: Tensor, labels: Any, reduction: str = "mean") -> Tensor:
    """-log softmax(logits)[label] of logits (M, classes) and integer labels (M,) in [0, classes).

    ``reduction``: "mean" or "sum" over the rows, or "none" for all M losses. Raises ValueError for shapes and labels
    out of range, TypeError for labels that are no integers.
    """
    logits = tensor(logits)
    x = logits.data
    shape, dtype = x.shape, x.dtype
    if len(shape) != 2 or not x.size:
        raise ValueError(f"cross_entropy: logits must be (M, classes) and not empty, received {shape}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"cross_entropy: reduction must be one of {', '.join(REDUCTIONS)}, received {reduction!r}")
    backend = backend_of("cross_entropy", logits)
    rows, classes = shape
    checked = _labels(backend, labels, rows, classes)
    loss = backend.empty((rows,), dtype)
    probability = backend.empty(shape, dtype)
    backend.softmax_cross_entropy_forward(x, checked, loss, probability)
    if reduction != "none":
        summed = backend.empty((), dtype)
        backend.reduce("sum", reduce_shape(1, rows, 1), loss, summed)
        loss = summed
        if reduction == "mean":
            loss = binary_array(backend, "mul", summed, constant(backend, dtype, 1.0 / rows))
    if logits.requires_grad and grad_enabled():
        return record(loss, CrossEntropy(backend, (logits,), (probability, checked, reduction)))
    return wrap(loss)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum of exp(x) along an axis, shifted by the largest for range. Raises ValueError."""
    x = tensor(x)
    e = exp(sub(x, largest(x, axis, keepdims=True).detach()))
    return div(e, total(e, axis, keepdims=True))


def _labels(backend: Backend, labels: Any, rows: int, classes: int) -> Array:
    """A copy of the labels, int64 (M,) on the backend's device; on the CPU they are checked against the number of
    classes."""
    labels = labels.data if isinstance(labels, Tensor) else any_array(labels)
    if labels.dtype.kind not in "iu":
        nan = labels.dtype.kind == "f" and bool((labels != labels).any())
        raise TypeError(
            f"cross_entropy: labels must be integers in [0, {classes}), received {labels.dtype}"
            f"{', with NaN among them' if nan else ''}"
        )
    if labels.shape != (rows,):
        raise ValueError(f"cross_entropy: expected {rows} labels, one a row of logits, received shape {labels.shape}")
    on = device_of(labels)
    given, labels = labels, labels.astype(np.int64, order="C")  # copied: the backward pass reads them again
    if on == "cpu" and np.maximum.reduce(labels.view(np.uint64)) >= classes:  # a negative label is a large unsigned one
        bad = int(labels.view(np.uint64).argmax())
        raise ValueError(f"cross_entropy: label {given[bad]} at row {bad} is out of range [0, {classes})")
    if on == "cuda" and backend.device == "cpu":
        raise ValueError("cross_entropy: labels are on cuda, logits on cpu")
    return backend.to_device(labels) if on != backend.device else labels
