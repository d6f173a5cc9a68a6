"""Normalisation to mean 0 and variance 1, then gain and offset: over a batch, a layer, groups or an instance.

With u = (x - mean) * rstd, rstd = 1 / sqrt(variance + eps) and du = dy * weight, the statistics being functions of x:
dx = rstd * (du - mean(du) - u * mean(du * u)). With known statistics, in evaluation, dx = rstd * du.

Batch norm: Ioffe and Szegedy, arXiv 1502.03167. Layer norm: Ba, Kiros and Hinton, arXiv 1607.06450. Group norm: Wu and
He, arXiv 1803.08494. Instance norm: Ulyanov, Vedaldi and Lempitsky, arXiv 1607.08022.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import numpy as np

from .. import replay
from .._arguments import is_int, no_empty_axis
from ..autograd import Function, grad_enabled
from ..backends.contract import ACTIVATIONS, Array, Backend, Epilogue
from ..shapes import NormShape, broadcast_shape, norm_shape
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, constant, unary_array
from ._autocast import wide
from ._common import agreed, autocast_region, backend_of, same_kind, tensor
from ._guided import guided
from .activation import DEFAULT_PARAMETERS, activate, gradient
from .reduce import reduce_array


class Norm(Function):
    """Inputs x, weight, bias, residual; saved: (shape, weight's and bias's shape, x, weight, mean, variance, y or None,
    eps, activation)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)
    shares: ClassVar[bool] = True  # without activation the residual's gradient is dy

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, channels, x, weight, mean, variance, y, eps, activation = self.saved
        backend = self.backend

        def wanted(i: int, size: tuple[int, ...]) -> Array | None:
            return backend.empty(size, dy.dtype) if self.needs(i) else None

        dx, dweight, dbias = wanted(0, dy.shape), wanted(1, channels), wanted(2, channels)
        dresidual = wanted(3, dy.shape) if y is not None else None
        gradients = dx, dweight, dbias, dresidual
        dy = guided(backend, activation, dy)
        backend.norm_backward(shape, x, weight, mean, variance, y, dy, *gradients, eps, activation)
        return dx, dweight, dbias, dresidual if y is not None else dy


class NormRelu(Norm):
    """With y, whose zeros say where ReLU let nothing through"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True
    shares: ClassVar[bool] = False


class KnownNorm(Function):
    """y = activation((x - mean) * scale + bias + residual), scale = weight * rstd, with constant mean and rstd.
    Inputs x, weight, bias, residual; saved: (x, -mean, rstd, scale, y or None)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)
    shares: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, minus_mean, rstd, scale, y = self.saved
        backend = self.backend
        if y is not None:
            dy = gradient(backend, ("relu", y, 0.0), dy)
        all_but_last = tuple(range(dy.ndim - 1))
        dx = dweight = dbias = None
        if self.needs(0):
            dx = backend.empty(dy.shape, dy.dtype)
            backend.apply_epilogue(dy, dx, Epilogue(scale=scale))
        if self.needs(1):
            u = backend.empty(dy.shape, dy.dtype)
            backend.apply_epilogue(x, u, Epilogue(bias=minus_mean, scale=rstd))
            dweight = reduce_array(backend, "sum", binary_array(backend, "mul", dy, u), all_but_last)
        if self.needs(2):
            dbias = reduce_array(backend, "sum", dy, all_but_last)
        return dx, dweight, dbias, dy


class KnownNormRelu(KnownNorm):
    """With y, whose zeros say where ReLU let nothing through"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True
    shares: ClassVar[bool] = False


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """x (..., C) normalised for each channel of the last axis: activation(u * weight + bias + residual).

    In training by the mean and (biased) variance of all other axes, which move the running ones, in place, by
    ``momentum``: running = (1 - momentum) * running + momentum * batch, with the unbiased variance. Else by the running
    ones. weight, bias, running_mean, running_var (C,); ``residual`` of x's shape; ``activation`` any that
    ``functional`` has. Raises ValueError for shapes, and in training for one value a channel; TypeError for dtypes.
    """
    x, region = tensor(x), autocast_region()
    if region is not None:
        if residual is not None:
            x, residual = agreed(x, tensor(residual))
        weight, bias = region.like("batch_norm", x, weight, bias)
    weight, bias, residual = norm_operands("batch_norm", x, (x.shape[-1],) if x.ndim else (), weight, bias, residual)
    if x.ndim < 2:
        raise ValueError(f"batch_norm: x must be (..., C) with 2 axes or more, received {x.shape}")
    channels = x.shape[-1]
    count = x.size // channels
    check_running("batch_norm", x, channels, running_mean, running_var)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: running_mean and running_var are needed where training is False")
        return _known(x, running_mean.data, running_var.data, weight, bias, residual, eps, activation)
    check_count("batch_norm", count, x.shape)
    y, mean, variance = _normalise(
        "batch_norm", norm_shape(1, count, channels, 1), x, weight, bias, residual, eps, activation
    )
    move_running(backend_of("batch_norm", x), count, momentum, (running_mean, mean), (running_var, variance))
    return y


def layer_norm(
    x: Tensor,
    normalized_shape: int | tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """x normalised over its last axes, which are ``normalized_shape``, as are weight and bias. Raises ValueError."""
    x = tensor(x)
    if autocast_region() is not None:
        x, weight, bias = wide(x), wide(weight), wide(bias)
    shape = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
    if not shape or not all(map(is_int, shape)) or x.shape[-len(shape) :] != shape:
        raise ValueError(f"layer_norm: x must end in normalized_shape {shape}, received {x.shape}")
    weight, bias, _ = norm_operands("layer_norm", x, shape, weight, bias, None)
    return _normalise("layer_norm", norm_shape(x.size // prod(shape), 1, 1, prod(shape)), x, weight, bias, None, eps)[0]


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """x (N, ..., C) normalised for each n and each of ``num_groups`` groups of neighbouring channels, over the group
    and all axes between; weight and bias (C,). Raises ValueError."""
    x = tensor(x)
    if autocast_region() is not None:
        x, weight, bias = wide(x), wide(weight), wide(bias)
    return _grouped("group_norm", x, num_groups, weight, bias, eps)


def instance_norm(x: Tensor, *, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """x (N, ..., C) normalised for each n and channel over all axes between; weight and bias (C,). Raises
    ValueError."""
    x, region = tensor(x), autocast_region()
    if region is not None:
        weight, bias = region.like("instance_norm", x, weight, bias)
    if x.ndim > 1 and prod(x.shape[1:-1]) == 1:
        raise ValueError(f"instance_norm: Expected more than 1 spatial element, got input size {x.shape}")
    return _grouped("instance_norm", x, x.shape[-1] if x.ndim else 1, weight, bias, eps)


def _grouped(operation: str, x: Tensor, groups: int, weight: Any, bias: Any, eps: float) -> Tensor:
    if x.ndim < 2:
        raise ValueError(f"{operation}: x must be (N, ..., C) with 2 axes or more, received {x.shape}")
    N, C = x.shape[0], x.shape[-1]
    weight, bias, _ = norm_operands(operation, x, (C,), weight, bias, None)
    if not is_int(groups) or groups < 1 or C % groups:
        raise ValueError(f"{operation}: {C} channels do not divide into {groups!r} groups")
    shape = norm_shape(N, prod(x.shape[1:-1]), groups, C // groups)
    if shape.reduction == 1 and N == 1:
        raise ValueError(f"{operation}: Expected more than 1 value per channel when training, got input size {x.shape}")
    return _normalise(operation, shape, x, weight, bias, None, eps)[0]


def check_running(operation: str, x: Tensor, channels: int, mean: Tensor | None, variance: Tensor | None) -> None:
    """Raises ValueError unless running statistics are one of the right dtype a channel."""
    kind = statistics_dtype(x)
    for name, running in (("running_mean", mean), ("running_var", variance)):
        if running is not None and (running.shape != (channels,) or running.dtype != kind):
            raise ValueError(
                f"{operation}: {name} must be ({channels},) {kind}, received {running.shape} {running.dtype}"
            )


def check_count(operation: str, count: int, shape: tuple[int, ...]) -> None:
    """Raises ValueError where a channel has one value, which has no variance."""
    if count == 1:
        raise ValueError(f"{operation}: Expected more than 1 value per channel when training, got input size {shape}")


def move_running(
    backend: Backend,
    count: int,
    momentum: float,
    mean: tuple[Tensor | None, Array],
    variance: tuple[Tensor | None, Array],
) -> None:
    """Moves running statistics, where they are kept, towards those of a batch of ``count`` values a channel, in
    place."""
    for (running, batch), share in ((mean, momentum), (variance, momentum * count / (count - 1))):
        if running is not None:
            _move(backend, running, batch.reshape(-1), momentum, share)


def norm_operands(
    operation: str,
    x: Tensor,
    channels: tuple[int, ...],
    weight: Any,
    bias: Any,
    residual: Any,
    whole: tuple[int, ...] | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """weight and bias of shape ``channels``, and residual of ``whole``, which is x's shape if it is None, as Tensors
    where they are there."""
    no_empty_axis(operation, "x", x.shape)
    found: list[Tensor | None] = []
    for name, value, shape in (
        ("weight", weight, channels),
        ("bias", bias, channels),
        ("residual", residual, whole or x.shape),
    ):
        operand = None if value is None else tensor(value)
        if operand is not None:
            same_kind(operation, x, name, operand)
            if operand.shape != shape:
                raise ValueError(f"{operation}: {name} must have shape {shape}, received {operand.shape}")
        found.append(operand)
    return found[0], found[1], found[2]


def fused_activation(operation: str, activation: str | None) -> tuple[str, str]:
    """(what the kernel does, what is left for a pass of its own)"""
    kind = activation or "identity"
    if kind not in ACTIVATIONS:
        raise ValueError(f"{operation}: unknown activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
    return (kind, "identity") if kind in ("identity", "relu") else ("identity", kind)


def _activated(kind: str, y: Tensor) -> Tensor:
    return y if kind == "identity" else activate(kind, y, DEFAULT_PARAMETERS.get(kind, 0.0))


def statistics_dtype(x: Tensor) -> np.dtype[Any]:
    """float32 where x is narrower"""
    return np.dtype("float32") if x.dtype.itemsize < 4 else x.dtype


def array_of(t: Tensor | None) -> Array | None:
    return None if t is None else t.data


def _normalise(
    operation: str,
    shape: NormShape,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str | None = None,
) -> tuple[Tensor, Array, Array]:
    """(y, mean, variance) by the statistics of x itself"""
    backend = backend_of(operation, x)
    fused, rest = fused_activation(operation, activation)
    mean = backend.empty(shape.statistics, statistics_dtype(x))
    variance = backend.empty(shape.statistics, mean.dtype)
    y = backend.empty(x.shape, x.dtype)
    operands = x.data, array_of(weight), array_of(bias), array_of(residual)
    backend.norm_forward(shape, *operands, y, mean, variance, eps, fused)
    inputs = x, weight, bias, residual
    return recorded_norm(backend, shape, inputs, y, mean, variance, eps, (fused, rest)), mean, variance


def recorded_norm(
    backend: Backend,
    shape: NormShape,
    inputs: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None],
    y: Array,
    mean: Array,
    variance: Array,
    eps: float,
    activation: tuple[str, str],
) -> Tensor:
    """y, recorded as norm_forward's result of inputs x, weight, bias, residual where a gradient is wanted. activation:
    what it has done, and what is left to do"""
    fused, rest = activation
    if not (grad_enabled() and any(t is not None and t.requires_grad for t in inputs)):
        return _activated(rest, wrap(y))
    x, weight, bias, _ = inputs
    channels = next((t.shape for t in (weight, bias) if t is not None), ())
    kept = (shape, channels, x.data, array_of(weight), mean, variance)
    if fused == "relu":
        return record(y, NormRelu(backend, inputs, (*kept, y, eps, fused)))
    return _activated(rest, record(y, Norm(backend, inputs, (*kept, None, eps, fused))))


def _known(
    x: Tensor,
    mean: Array,
    variance: Array,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str | None,
) -> Tensor:
    """By statistics that are given: one pass over x; the rest is arithmetic on (C,)."""
    backend = backend_of("batch_norm", x)
    fused, rest = fused_activation("batch_norm", activation)
    deviation = unary_array(
        backend, "sqrt", binary_array(backend, "add", variance, constant(backend, variance.dtype, eps))
    )
    rstd = _rounded(backend, binary_array(backend, "div", constant(backend, deviation.dtype, 1.0), deviation), x.dtype)
    minus_mean = _rounded(backend, unary_array(backend, "neg", mean), x.dtype)
    scale = rstd if weight is None else binary_array(backend, "mul", rstd, weight.data)
    y = backend.empty(x.shape, x.dtype)
    backend.apply_epilogue(x.data, y, Epilogue(minus_mean, scale, array_of(bias), array_of(residual), fused))
    inputs = x, weight, bias, residual
    if grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        kept = (x.data, minus_mean, rstd, scale)
        if fused == "relu":
            result = record(y, KnownNormRelu(backend, inputs, (*kept, y)))
        else:
            result = record(y, KnownNorm(backend, inputs, (*kept, None)))
    else:
        result = wrap(y)
    return _activated(rest, result)


def _rounded(backend: Backend, a: Array, dtype: np.dtype[Any]) -> Array:
    if a.dtype == dtype:
        return a
    y = backend.empty(a.shape, dtype)
    backend.cast(a, y)
    return y


def _move(backend: Backend, running: Tensor, batch: Array, momentum: float, share: float) -> None:
    """running = (1 - momentum) * running + share * batch, in place"""
    kept = binary_array(backend, "mul", running.data, constant(backend, batch.dtype, 1.0 - momentum))
    added = binary_array(backend, "mul", batch, constant(backend, batch.dtype, share))
    backend.binary("add", broadcast_shape("add", kept.shape, added.shape)[1], kept, added, running.data)
    replay.every_time(running.bump_version)
