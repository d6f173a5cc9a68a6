"""A convolution and the batch norm behind it: where the convolution's kernel leaves the mean and variance of what it
stores, the norm need not read its result for them.

Two nodes of the tape, a convolution's and a norm's: backward is theirs.
"""

from __future__ import annotations

from typing import Any

from ..autograd import grad_enabled
from ..backends.contract import PackedWeight
from ..shapes import Padding, Pair, conv2d_shape, norm_shape
from ..tensor import Tensor, record, wrap
from ._common import agreed, algorithm_for, autocast_region, backend_of, shape_of, tensor
from .conv2d import Conv2d, check_channels, conv2d, conv2d_weight, saved_for_backward
from .norm import (
    array_of,
    batch_norm,
    check_count,
    check_running,
    fused_activation,
    move_running,
    norm_operands,
    recorded_norm,
    statistics_dtype,
)

NAME = "conv2d_batch_norm"


def conv2d_batch_norm(
    x: Tensor,
    w: Tensor | PackedWeight,
    b: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
    residual: Tensor | None = None,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> Tensor:
    """``batch_norm`` of ``conv2d(x, w, b)``, whose arguments these are; results are those of the two functions up to
    the order in which a batch's sums are added. Raises as they do."""
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if not training:
        y = conv2d(x, w, b, algorithm=algorithm, **geometry)
        running = running_mean, running_var
        return batch_norm(y, *running, weight, bias, False, momentum, eps, activation, residual)

    x, region = tensor(x), autocast_region()
    if region is not None:
        x, w, b = region.low(NAME, x, w, b)
        if residual is not None and tensor(residual).dtype != x.dtype:  # a norm of float32, of what is stored in less
            y = conv2d(x, w, b, algorithm=algorithm, **geometry)
            y, residual = agreed(y, tensor(residual))
            running = running_mean, running_var
            return batch_norm(y, *running, weight, bias, True, momentum, eps, activation, residual)
        weight, bias = region.like(NAME, x, weight, bias)
    backend = backend_of(NAME, x)
    w_data, filters = conv2d_weight(NAME, backend, x, w)
    shape = shape_of(conv2d_shape, x.shape, w_data.shape, stride, padding, dilation, groups)
    if b is not None:
        b = tensor(b)
        check_channels("b", b, x, shape)
    weight, bias, residual = norm_operands(NAME, x, (shape.K,), weight, bias, residual, shape.y)
    check_running(NAME, x, shape.K, running_mean, running_var)
    count = shape.N * shape.P * shape.Q
    check_count(NAME, count, shape.y)
    fused, rest = fused_activation(NAME, activation)

    walk = norm_shape(1, count, shape.K, 1)
    y, z = backend.empty(shape.y, x.dtype), backend.empty(shape.y, x.dtype)
    mean, variance = (backend.empty(walk.statistics, statistics_dtype(x)) for _ in range(2))
    chosen = algorithm_for(backend, "conv2d_forward", algorithm, None if filters is None else shape, x.data.dtype)
    operand = w if isinstance(w, PackedWeight) else w_data
    norm = array_of(weight), array_of(bias), array_of(residual), z, mean, variance, eps, fused
    backend.conv2d_norm_forward(shape, x.data, operand, array_of(b), y, chosen, *norm)

    inputs = x, wrap(w_data) if filters is None else filters, b
    middle = wrap(y)
    if grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        middle = record(y, Conv2d(backend, inputs, saved_for_backward(backend, shape, x, w_data, algorithm)))
    result = recorded_norm(backend, walk, (middle, weight, bias, residual), z, mean, variance, eps, (fused, rest))
    move_running(backend, count, momentum, (running_mean, mean), (running_var, variance))
    return result
