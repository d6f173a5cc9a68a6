"""Softmax, and cross-entropy against class labels: one kernel, since the softmax alone would lose range."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .. import replay
from .._border import FLOATS, any_array
from ..autograd import Function, grad_enabled
from ..backends.contract import Array, Backend
from ..backends.registry import device_of
from ..shapes import broadcast_shape, reduce_shape
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, constant, full
from ._autocast import wide
from ._common import autocast_region, backend_of, same_kind, tensor
from .binary import add, div, exp, log, mul, neg, sub
from .layout import cast, reshape, to
from .reduce import max as largest
from .reduce import sum as total

REDUCTIONS = ("mean", "sum", "none")
SCALARS = broadcast_shape("mul", (), ())[1]
INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)


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


def cross_entropy(
    logits: Tensor,
    labels: Any,
    reduction: str = "mean",
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(logits)[label] of logits (..., classes) and integer labels (...) in [0, classes); of targets
    (..., classes), floating-point probabilities of the classes, -sum(target * log softmax(logits)).

    ``reduction``: "mean" or "sum" over the rows, or "none" for all their losses. ``weight`` (classes,) says how much a
    row of each label counts, in the mean too. Rows labelled ``ignore_index`` do not count. With ``label_smoothing`` s a
    row's target is 1 - s of its label and s / classes of every class (Szegedy et al. 2016). With probabilities the mean
    is over all rows, ``weight`` weighs their terms, and no rows are ignored. Raises ValueError for shapes and labels
    out of range, TypeError for labels that are neither integers nor probabilities of all classes.
    """
    logits = tensor(logits)
    if autocast_region() is not None:
        logits, weight = wide(logits), wide(weight)
    x = logits.data
    shape, dtype = x.shape, x.dtype
    if not shape or not x.size:
        raise ValueError(f"cross_entropy: logits must be (..., classes) and not empty, received {shape}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"cross_entropy: reduction must be one of {', '.join(REDUCTIONS)}, received {reduction!r}")
    if (targets := _probabilities(labels, shape)) is not None:
        return _soft(logits, targets, reduction, weight, ignore_index, label_smoothing)
    if len(shape) != 2 or weight is not None or ignore_index is not None or label_smoothing:
        return _composed(logits, labels, reduction, weight, ignore_index, label_smoothing)
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
            loss = backend.empty((), dtype)
            backend.binary("mul", SCALARS, summed, constant(backend, dtype, 1.0 / rows), loss)
    if logits.requires_grad and grad_enabled():
        return record(loss, CrossEntropy(backend, (logits,), (probability, checked, reduction)))
    return wrap(loss)


def _probabilities(labels: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The labels as a Tensor, where they are floating-point numbers of the logits' shape."""
    if isinstance(labels, Tensor):
        return labels if labels.shape == shape else None
    if type(labels) is np.ndarray and labels.dtype == INT64:  # as most are
        return None
    array = any_array(labels)
    return Tensor(array) if array.shape == shape and array.dtype in FLOATS else None


def _soft(
    logits: Tensor,
    targets: Tensor,
    reduction: str,
    weight: Tensor | None,
    ignore_index: int | None,
    smoothing: float,
) -> Tensor:
    """``cross_entropy`` against probabilities of the classes."""
    if ignore_index is not None:
        raise ValueError("cross_entropy: ignore_index is for integer labels, not for probabilities")
    _check_smoothing(smoothing)
    if autocast_region() is None and targets.dtype != logits.dtype and not targets.requires_grad:
        targets = cast(targets, logits.dtype)  # a table of numbers, such as NumPy's float64
    targets = to(targets, logits.device)
    classes = logits.shape[-1]
    if smoothing:
        targets = add(mul(targets, 1 - smoothing), smoothing / classes)
    terms = mul(targets, log_softmax(logits))
    if weight is not None:
        terms = mul(terms, _class_weight(logits, weight))
    loss = neg(total(terms, axis=-1))
    if reduction == "none":
        return loss
    return total(loss) if reduction == "sum" else mul(total(loss), 1.0 / loss.size)


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], received {smoothing!r}")


def _class_weight(logits: Tensor, weight: Any) -> Tensor:
    each, classes = tensor(weight), logits.shape[-1]
    same_kind("cross_entropy", logits, "weight", each)
    if each.shape != (classes,):
        raise ValueError(f"cross_entropy: weight must be ({classes},), one a class, received {each.shape}")
    return each


def _composed(
    logits: Tensor, labels: Any, reduction: str, weight: Tensor | None, ignore_index: int | None, smoothing: float
) -> Tensor:
    """``cross_entropy`` whose rows count differently or have leading axes of their own: the losses of all rows, each
    times what it counts for."""
    replay.refuse_deferred("cross_entropy with weights, ignore_index, label_smoothing or leading axes")
    _check_smoothing(smoothing)
    *lead, classes = logits.shape
    labels = _integers(labels, classes)
    if labels.shape != tuple(lead):
        raise ValueError(f"cross_entropy: expected labels {tuple(lead)}, one a row of logits, received {labels.shape}")
    labels, logits = labels.reshape(-1), reshape(logits, (-1, classes))
    backend, dtype = backend_of("cross_entropy", logits), logits.dtype
    kept = None  # (M,) 1 or 0
    if ignore_index is not None:
        kept = wrap(_on(backend, (labels != ignore_index).astype(dtype)))
        labels = labels * (labels != ignore_index)
    labels = _labels(backend, labels, len(labels), classes)
    counts = wrap(full(backend, labels.shape, dtype, 1.0))  # (M,) what each row counts for
    if weight is not None:
        weight = _class_weight(logits, weight)
        counts = wrap(weight.data[labels])
    if kept is not None:
        counts = mul(counts, kept)
    loss = mul(cross_entropy(logits, labels, "none"), counts)
    if smoothing:
        every = log_softmax(logits)
        every = neg(total(every if weight is None else mul(every, weight.detach()), axis=-1))
        every = every if kept is None else mul(every, kept)
        loss = add(mul(loss, 1 - smoothing), mul(every, smoothing / classes))
    if reduction == "none":
        return reshape(loss, tuple(lead))
    return total(loss) if reduction == "sum" else div(total(loss), total(counts))


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum of exp(x) along an axis, shifted by the largest for range. Raises ValueError."""
    x = tensor(x)
    if autocast_region() is not None:
        x = wide(x)
    e = exp(sub(x, largest(x, axis, keepdims=True).detach()))
    return div(e, total(e, axis, keepdims=True))


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """x - log(sum of exp(x)) along an axis, shifted by the largest for range. Raises ValueError."""
    x = tensor(x)
    if autocast_region() is not None:
        x = wide(x)
    shifted = sub(x, largest(x, axis, keepdims=True).detach())
    return sub(shifted, log(total(exp(shifted), axis, keepdims=True)))


def _integers(labels: Any, classes: int) -> Array:
    """The labels as an array of integers. Raises TypeError."""
    labels = labels.data if isinstance(labels, Tensor) else any_array(labels)
    if labels.dtype.kind not in "iu":
        nan = labels.dtype.kind == "f" and bool((labels != labels).any())
        raise TypeError(
            f"cross_entropy: labels must be integers in [0, {classes}), received {labels.dtype}"
            f"{', with NaN among them' if nan else ''}"
        )
    return labels


def _labels(backend: Backend, labels: Any, rows: int, classes: int) -> Array:
    """A copy of the labels, int64 (M,) on the backend's device; on the CPU they are checked against the number of
    classes."""
    if replay.deferring():  # a device's labels are not checked either
        given = _integers(labels, classes)
        labels = np.empty(given.shape, INT64)
        replay.on_arrays(partial(np.copyto, labels, given))
        if labels.shape != (rows,):
            raise ValueError(f"cross_entropy: expected {rows} labels, one a row of logits, received {labels.shape}")
        return labels
    if type(labels) is np.ndarray and labels.dtype == INT64:  # as most are
        given, labels = labels, labels.copy()  # the backward pass reads them again
    else:
        given = _integers(labels, classes)
        labels = given.astype(INT64, order="C")
    if labels.shape != (rows,):
        raise ValueError(f"cross_entropy: expected {rows} labels, one a row of logits, received shape {labels.shape}")
    if isinstance(labels, np.ndarray):
        unsigned = labels.view(UINT64)  # a negative label is a large one
        bad = unsigned.argmax()  # of a few labels in a third of the time that the largest takes
        if unsigned.item(bad) >= classes:
            raise ValueError(
                f"cross_entropy: label {given[bad]} at row {bad} is out of range [0, {classes}); ignore_index=... names"
                " one whose rows do not count"
            )
        if backend.device == "cpu":
            return labels
    return _on(backend, labels)


def _on(backend: Backend, array: Array) -> Array:
    """The array, moved to the backend's device from the CPU. Raises ValueError for the other way."""
    on = device_of(array)
    if on == "cuda" and backend.device == "cpu":
        raise ValueError("cross_entropy: labels are on cuda, logits on cpu")
    return array if on == backend.device else backend.to_device(array)
