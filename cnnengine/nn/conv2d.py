"""Convolution as a module."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..backends.contract import PackedWeight
from ..backends.registry import active
from ..backends.winograd import winograd_allowed
from ..functional._common import autocast_region
from ..shapes import Padding, Pair
from ..tensor import Tensor
from . import init
from .module import Module


class Conv2d(Module):
    """x (N, H, W, in_channels) -> y (N, P, Q, out_channels).

    ``weight`` is (out_channels, R, S, in_channels / groups), ``bias`` (out_channels,) or None; both start uniform in
    +-1 / sqrt(fan_in). ``padding`` is a number, a pair, two pairs, "same" or "valid", as in ``functional.conv2d``;
    ``algorithm`` names a kernel. Called with ``activation`` or ``residual``, which is added before it, it does these on
    the way to memory. Raises ValueError for sizes that cannot be. ``freeze()`` makes the weight read-only and keeps it
    packed for every input size and backend it meets.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: Padding = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        algorithm: str | None = None,
    ) -> None:
        super().__init__()
        size = checked_kernel("Conv2d", in_channels, out_channels, groups, kernel_size)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.algorithm = algorithm
        self.weight = init.layer_weight((out_channels, *size, in_channels // groups))
        self.register_parameter("bias", init.layer_bias(self.weight.shape) if bias else None)
        self._packed: dict[tuple[object, ...], PackedWeight] | None = None  # a dict while frozen

    def forward(self, x: Tensor, activation: str = "identity", residual: Tensor | None = None) -> Tensor:
        filters, geometry = self.operands(x)
        if residual is None:
            return F.conv2d(x, *filters, activation=activation, **geometry)
        return F.conv2d_norm_act(x, *filters, residual=residual, activation=activation, **geometry)

    def operands(self, x: Tensor) -> tuple[tuple[Tensor | PackedWeight, Tensor | None], dict[str, Any]]:
        """What F.conv2d takes beside x: weight and bias, and the rest by name."""
        parameters: Any = self._parameters  # __getattr__ finds them too, after all else
        weight = parameters["weight"] if self._packed is None else self._packed_for(x)
        return (weight, parameters["bias"]), {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "algorithm": self.algorithm,
        }

    def _packed_for(self, x: Tensor) -> PackedWeight | Tensor:
        assert self._packed is not None
        region, backend, dtype = autocast_region(), active(x.data), self.weight.data.dtype
        if region is not None and dtype.itemsize <= 4:
            dtype = region.dtype
        elif x.data.dtype != dtype:
            return self.weight  # conv2d says what is wrong
        key = (backend.name, x.data.shape[1:], winograd_allowed(), dtype)
        packed = self._packed.get(key)
        if packed is not None:
            return packed
        if x.ndim != 4 or x.device != self.weight.device or dtype.name not in backend.dtypes:
            return self.weight
        packed = self._packed[key] = F.conv2d_prepare(
            (x.shape[0], x.shape[1], x.shape[2], x.shape[3]),
            self.weight.astype(dtype),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            algorithm=self.algorithm,
        )
        return packed

    def _set_frozen(self, frozen: bool) -> None:
        super()._set_frozen(frozen)
        self._packed = {} if frozen else None

    def extra_repr(self) -> str:
        return convolution_repr(self, padding=0, dilation=1, groups=1, algorithm=None)


def checked_kernel(
    module: str, in_channels: int, out_channels: int, groups: int, kernel_size: int | Pair
) -> tuple[int, int]:
    """The kernel's height and width. Raises ValueError for sizes that cannot be."""
    if groups < 1 or in_channels < 1 or out_channels < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(
            f"{module}: in_channels and out_channels must be multiples of groups, all at least 1, received"
            f" {in_channels}, {out_channels} and {groups}"
        )
    size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{module}: kernel_size must be one or two numbers of at least 1, received {kernel_size!r}")
    return size


def convolution_repr(module: Module, **usual: object) -> str:
    """What ``repr`` shows of a convolution: of the options only those that differ from the usual."""
    text = f"{module.in_channels}, {module.out_channels}, kernel_size={module.kernel_size}, stride={module.stride}"
    for name, value in usual.items():
        text += f", {name}={getattr(module, name)!r}" if getattr(module, name) != value else ""
    return text if module.bias is not None else f"{text}, bias=False"
