"""Normalisation as modules; functions of the same name in ``functional`` say what is computed."""

from __future__ import annotations

import operator
from functools import partial
from typing import ClassVar

import numpy as np

from .. import functional as F
from .. import replay
from .._arguments import is_int
from ..tensor import Tensor
from .conv2d import Conv2d
from .module import Module, is_plain
from .parameter import Parameter


class BatchNorm2d(Module):
    """x (N, H, W, num_features) normalised for each channel: by the batch in training, else by running statistics.

    ``weight`` and ``bias`` (num_features,) start as 1 and 0; ``affine=False`` does without. The buffers
    ``running_mean``, ``running_var`` and ``num_batches_tracked`` move in training by ``momentum``, or where it is None
    as the average of all batches; ``track_running_stats=False`` does without and always uses the batch. Called with
    ``activation`` or ``residual`` it does these in the same pass. Called with a Conv2d behind these it normalises the
    convolution of x, whose kernel takes the batch's statistics along where it can: ``norm(x, "relu", None, conv)`` is
    ``norm(conv(x), "relu")``, by ``F.conv2d_batch_norm``. Raises ValueError for sizes that do not fit, and in training
    for one value a channel.
    """

    axes: ClassVar[int] = 4

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        if not is_int(num_features) or num_features < 1:
            raise ValueError(
                f"{type(self).__name__}: num_features must be an int of at least 1, received {num_features!r}"
            )
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        _register_affine(self, (num_features,), affine)
        if track_running_stats:
            self.register_buffer("running_mean", Tensor(np.zeros(num_features, np.float32)))
            self.register_buffer("running_var", Tensor(np.ones(num_features, np.float32)))
            self.register_buffer("num_batches_tracked", Tensor(np.zeros((), np.float64)))  # Tensors hold no integers

    def forward(
        self, x: Tensor, activation: str | None = None, residual: Tensor | None = None, conv: Conv2d | None = None
    ) -> Tensor:
        if conv is not None:
            return self._behind(conv, x, activation, residual)
        if x.ndim != self.axes or x.shape[-1] != self.num_features:
            axes = "N, H, W, " if self.axes == 4 else "N, "
            raise ValueError(f"{type(self).__name__}: expected x ({axes}{self.num_features}), received {x.shape}")
        y = F.batch_norm(x, *self._operands(), self.eps, activation, residual)
        self._count()
        return y

    def _behind(self, conv: Conv2d, x: Tensor, activation: str | None, residual: Tensor | None) -> Tensor:
        """forward of ``conv(x)``"""
        together = type(conv) is Conv2d and is_plain(conv) and conv.out_channels == self.num_features
        if not together or not (self.training or not self.track_running_stats):
            return self.forward(conv(x), activation, residual)
        (weight, bias), geometry = conv.operands(x)
        norm = self._operands()
        y = F.conv2d_batch_norm(x, weight, bias, *norm, self.eps, activation, residual, **geometry)
        self._count()
        return y

    def _operands(self) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, bool, float]:
        """Running mean and variance, weight, bias, whether by the batch, momentum"""
        if not self.track_running_stats:
            return None, None, self.weight, self.bias, True, 0.0
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / (self.num_batches_tracked.item() + 1.0)
        return self.running_mean, self.running_var, self.weight, self.bias, self.training, momentum

    def _count(self) -> None:
        """One batch more"""
        if self.training and self.track_running_stats:
            batches = self.num_batches_tracked
            replay.on_arrays(partial(operator.iadd, batches.data, 1))
            replay.every_time(batches.bump_version)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(BatchNorm2d):
    """x (N, num_features), as ``BatchNorm2d``."""

    axes: ClassVar[int] = 2


class LayerNorm(Module):
    """x (..., *normalized_shape) normalised over these last axes. ``weight`` and ``bias`` of that shape start as 1 and
    0; ``elementwise_affine=False`` does without both, ``bias=False`` without the bias."""

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        shape = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
        if not shape or not all(is_int(n) and n >= 1 for n in shape):
            raise ValueError(f"LayerNorm: normalized_shape must be sizes of at least 1, received {normalized_shape!r}")
        self.normalized_shape = tuple(int(n) for n in shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        _register_affine(self, self.normalized_shape, elementwise_affine, bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """x (N, ..., num_channels) normalised for each n and each of ``num_groups`` groups of neighbouring channels.
    ``weight`` and ``bias`` (num_channels,) start as 1 and 0; ``affine=False`` does without."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        known = is_int(num_groups) and is_int(num_channels)
        if not known or num_groups < 1 or num_channels < 1 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_channels must be a multiple of num_groups, received {num_channels} and {num_groups}"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        _register_affine(self, (num_channels,), affine)

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


def _register_affine(module: Module, shape: tuple[int, ...], affine: bool, bias: bool = True) -> None:
    """``weight`` of ones and ``bias`` of zeros, or None."""
    module.register_parameter("weight", Parameter(np.ones(shape, np.float32)) if affine else None)
    module.register_parameter("bias", Parameter(np.zeros(shape, np.float32)) if affine and bias else None)
