"""Transposed convolution: the convolution's gradient with respect to its input, as a layer that makes images larger.

Of the convolution that takes y back to x it is ``conv2d_backward_input``; its own gradients are that convolution's
forward pass and ``conv2d_backward_weight``. So every algorithm of the convolution serves it. Dumoulin and Visin, "A
guide to convolution arithmetic for deep learning", arXiv 1603.07285, section 4.
"""

from __future__ import annotations

from typing import ClassVar

from .._arguments import is_int, no_empty_axis, to_pair
from ..autograd import Function, grad_enabled
from ..backends.contract import IDENTITY, Array, Epilogue
from ..shapes import Conv2dShape, Pair, conv2d_shape, reduce_shape
from ..tensor import Tensor, record, wrap
from ._common import algorithm_for, autocast_region, backend_of, same_kind, shape_of, tensor

Pads = int | Pair | tuple[Pair, Pair]


class ConvTranspose2d(Function):
    """saved: (shape of the convolution from y to x, x, w, algorithms of the forward pass and of backward_weight)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, x, w, forward_algorithm, weight_algorithm = self.saved
        backend = self.backend
        dx = dw = db = None
        if self.needs(0):
            dx = backend.empty(shape.y, dy.dtype)
            backend.conv2d_forward(shape, dy, w, dx, IDENTITY, forward_algorithm)
        if self.needs(1):
            dw = backend.empty(shape.w, dy.dtype)
            backend.conv2d_backward_weight(shape, dy, x, dw, weight_algorithm)
        if self.needs(2):
            db = backend.empty((shape.C,), dy.dtype)
            backend.reduce("sum", reduce_shape(1, shape.N * shape.H * shape.W, shape.C), dy, db)
        return dx, dw, db


def conv_transpose2d(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    stride: int | Pair = 1,
    padding: Pads = 0,
    output_padding: int | Pair = 0,
    groups: int = 1,
    dilation: int | Pair = 1,
) -> Tensor:
    """Transposed convolution of x (N, H, W, C) with w (C, R, S, K/groups), plus b (K,): y (N, P, Q, K).

    P = (H - 1) * stride - top - bottom + dilation * (R - 1) + output_padding + 1, and Q likewise. ``padding`` is a
    number, ``(h, w)`` or ``((top, bottom), (left, right))``, of the convolution from y to x: rows and columns that y
    lacks. ``output_padding``, less than ``stride``, says which of the sizes that the convolution would round to H is
    meant. w is PyTorch's (C, K/groups, R, S) with the channels last. Raises ValueError for shapes, TypeError for
    dtypes.
    """
    x, w, region = tensor(x), tensor(w), autocast_region()
    if region is not None:
        x, w, b = region.low("conv_transpose2d", x, w, b)
    backend = backend_of("conv_transpose2d", x)
    same_kind("conv_transpose2d", x, "w", w)
    shape = _shape(x.shape, w.shape, stride, padding, output_padding, dilation, groups)
    if b is not None:
        b = tensor(b)
        same_kind("conv_transpose2d", x, "b", b)
        if b.shape != (shape.C,):
            raise ValueError(f"conv_transpose2d: b must be ({shape.C},), one an output channel, received {b.shape}")
    y = backend.empty(shape.x, x.dtype)
    algorithm = algorithm_for(backend, "conv2d_backward_input", None, shape, x.dtype)
    backend.conv2d_backward_input(shape, x.data, w.data, y, algorithm)
    if b is not None:
        backend.apply_epilogue(y, y, Epilogue(bias=b.data))
    if grad_enabled() and any(t is not None and t.requires_grad for t in (x, w, b)):
        forward_algorithm = algorithm_for(backend, "conv2d_forward", None, shape, x.dtype)
        weight_algorithm = algorithm_for(backend, "conv2d_backward_weight", None, shape, x.dtype)
        saved = shape, x.data, w.data, forward_algorithm, weight_algorithm
        return record(y, ConvTranspose2d(backend, (x, w, b), saved))
    return wrap(y)


def _shape(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: int | Pair,
    padding: Pads,
    output_padding: int | Pair,
    dilation: int | Pair,
    groups: int,
) -> Conv2dShape:
    """Shape of the convolution from y to x. Raises ValueError."""
    where = f"x {x}, w {w}"
    if len(x) != 4 or len(w) != 4:
        raise ValueError(f"conv_transpose2d: expected x (N, H, W, C) and w (C, R, S, K/groups), received {where}")
    no_empty_axis("conv_transpose2d", "x", x)
    no_empty_axis("conv_transpose2d", "w", w)
    if not is_int(groups) or groups < 1 or x[3] % groups:
        raise ValueError(f"conv_transpose2d: {x[3]} channels of x do not divide into {groups!r} groups: {where}")
    if w[0] != x[3]:
        raise ValueError(f"conv_transpose2d: w expects {w[0]} input channels, x has {x[3]}: {where}")
    strides = to_pair(stride, "conv_transpose2d", "stride", 1)
    dilations = to_pair(dilation, "conv_transpose2d", "dilation", 1)
    extra = to_pair(output_padding, "conv_transpose2d", "output_padding", 0)
    if isinstance(padding, tuple) and any(isinstance(p, tuple) for p in padding):
        pads = tuple(to_pair(p, "conv_transpose2d", "padding", 0) for p in padding)
    else:
        pads = tuple((p, p) for p in to_pair(padding, "conv_transpose2d", "padding", 0))  # type: ignore[arg-type]
    if extra[0] >= strides[0] or extra[1] >= strides[1]:
        raise ValueError(f"conv_transpose2d: output_padding {extra} must be less than stride {strides}")
    P, Q = (
        (n - 1) * s - before - after + d * (r - 1) + e + 1
        for n, s, (before, after), d, r, e in zip(x[1:3], strides, pads, dilations, w[1:3], extra, strict=True)
    )
    if P < 1 or Q < 1:
        raise ValueError(f"conv_transpose2d: the output would be {max(P, 0)} x {max(Q, 0)}, padding {padding}: {where}")
    y = (x[0], P, Q, w[3] * groups)
    return shape_of(conv2d_shape, y, w, strides, pads, dilations, int(groups))
