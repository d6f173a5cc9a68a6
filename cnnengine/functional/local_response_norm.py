"""Local response normalisation: each value divided by a power of the mean square of neighbouring channels.

With m = the sum of x^2 over the ``size`` channels around c, channels beyond the ends being 0, and u = k + alpha/size m:
y = x u^-beta. Krizhevsky, Sutskever, Hinton 2012, section 3.3, which has alpha without the division. Backward:
dx_c = dy_c u_c^-beta - 2 alpha beta / size x_c * (sum of dy_j y_j / u_j over the j in whose window c lies).

Channels are the last axis, so the sums over windows are one matrix product with a band of ones.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np

from .. import replay
from .._arguments import is_int, no_empty_axis
from ..autograd import Function, grad_enabled
from ..backends.contract import Array, Backend, Epilogue
from ..shapes import gemm_shape
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, constant, full, unary_array
from ._autocast import wide
from ._common import autocast_region, backend_of, tensor


class LocalResponseNorm(Function):
    """saved: (x, u, u^-beta, size, alpha, beta)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0,)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        x, u, power, size, alpha, beta = self.saved
        backend = self.backend
        direct = binary_array(backend, "mul", dy, power)
        through = binary_array(backend, "div", binary_array(backend, "mul", direct, x), u)
        sums = _windows(backend, through, size, -2 * alpha * beta / size, None, transposed=True)
        return (binary_array(backend, "add", direct, binary_array(backend, "mul", sums, x)),)


def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x (..., C) / (k + alpha * mean square of the ``size`` channels around each)^beta, of x's shape.

    The mean divides by ``size`` also at the ends; an even window reaches one channel further down. Raises ValueError
    for a size below 1 and an empty x.
    """
    x = tensor(x)
    if autocast_region() is not None:
        x = wide(x)
    if not is_int(size) or size < 1:
        raise ValueError(f"local_response_norm: size must be a number of channels of at least 1, received {size!r}")
    if x.ndim < 2:
        raise ValueError(f"local_response_norm: x must be (..., C) with 2 axes or more, received {x.shape}")
    no_empty_axis("local_response_norm", "x", x.shape)
    backend, data = backend_of("local_response_norm", x), x.data
    u = _windows(backend, binary_array(backend, "mul", data, data), size, alpha / size, k)
    power = _to_minus(backend, u, beta)
    y = binary_array(backend, "mul", data, power)
    if x.requires_grad and grad_enabled():
        return record(y, LocalResponseNorm(backend, (x,), (data, u, power, size, alpha, beta)))
    return wrap(y)


def _windows(
    backend: Backend, x: Array, size: int, factor: float, offset: float | None, transposed: bool = False
) -> Array:
    """offset + factor * the sum of each channel's window; transposed: of the channels in whose window it lies"""
    channels = x.shape[-1]
    band = replay.fresh(backend, partial(_band, channels, size, factor, x.dtype))
    bias = None if offset is None else full(backend, (channels,), x.dtype, offset)
    y = backend.empty(x.shape, x.dtype)
    shape = gemm_shape(1, x.size // channels, channels, channels, False, not transposed, False, False)
    backend.gemm(shape, x.reshape(-1, channels), band, y.reshape(-1, channels), Epilogue(bias))
    return y


def _to_minus(backend: Backend, u: Array, beta: float) -> Array:
    """u^-beta; by square roots, which are quicker than a power, where beta is the paper's 3/4"""
    if beta != 0.75:
        return binary_array(backend, "pow", u, constant(backend, u.dtype, -beta))
    root = unary_array(backend, "sqrt", u)
    power = binary_array(backend, "mul", root, unary_array(backend, "sqrt", root))
    return binary_array(backend, "div", constant(backend, u.dtype, 1.0), power)


@lru_cache(64)
def _band(channels: int, size: int, factor: float, dtype: Any) -> np.ndarray:
    """(c, j): ``factor`` where j lies in c's window, which is size // 2 channels down and (size - 1) // 2 up"""
    distance = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    band = np.where((distance >= -(size // 2)) & (distance <= (size - 1) // 2), factor, 0.0).astype(dtype)
    band.flags.writeable = False
    return band
