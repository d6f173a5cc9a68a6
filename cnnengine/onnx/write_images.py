"""Rules for functions of images: convolution, pooling, resizing. Their arrays are (N, C, H, W) in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import Unsupported
from ..functional.conv2d import conv2d, conv2d_norm_act
from ..functional.conv_transpose2d import conv_transpose2d
from ..functional.interpolate import interpolate
from ..functional.local_response_norm import local_response_norm
from ..functional.pool2d import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    global_avg_pool2d,
    global_max_pool2d,
    max_pool2d,
)
from ..shapes import Conv2dShape, Pool2dShape, adaptive_pool2d_shape, conv2d_shape, output_size, pool2d_shape
from .order import channels_second
from .rules import Context, activated, rule
from .writer import Constant, Operand, Value

NCHW = channels_second(4)


@rule(conv2d)
def _conv2d(c: Context) -> None:
    y = _convolved(c, c.operand("w"), c.optional("b"))
    c.done(activated(c, y, c.argument("activation"), c.argument("activation_parameter")), NCHW)


@rule(conv2d_norm_act)
def _conv2d_norm_act(c: Context) -> None:
    """The scale and shift go into the weights where these are constant, as they are once a norm is folded."""
    writer = c.writer
    w, b, scale, shift = c.operand("w"), c.optional("b"), c.optional("scale"), c.optional("shift")
    known = [part.array for part in (w, b, scale, shift) if isinstance(part, Constant)]
    if len(known) == sum(part is not None for part in (w, b, scale, shift)) and len(known) > 1 + (b is not None):
        w, b = _folded(c, *(None if part is None else part.array for part in (b, scale, shift)))  # type: ignore[union-attr]
        scale = shift = None
    y = _convolved(c, w, b)
    y = y if scale is None else writer.node("Mul", [y, c.beside("scale", 2)])
    y = y if shift is None else writer.node("Add", [y, c.beside("shift", 2)])
    residual = c.optional("residual")
    if residual is not None:
        y = writer.node("Add", [y, writer.array(residual, NCHW)])
    c.done(activated(c, y, c.argument("activation"), c.argument("activation_parameter")), NCHW)


def _folded(
    c: Context, b: np.ndarray | None, scale: np.ndarray | None, shift: np.ndarray | None
) -> tuple[Constant, Constant]:
    """Weight and bias of the convolution that also scales and shifts"""
    w = c.operand("w")
    assert isinstance(w, Constant)
    factor = np.ones(w.shape[0], c.dtype) if scale is None else scale
    offset = np.zeros(w.shape[0], c.dtype) if b is None else b * factor
    offset = offset if shift is None else offset + shift
    bias = None if w.name is None else f"{w.name.rpartition('.')[0]}.bias".removeprefix(".")
    return Constant(w.array * factor[:, None, None, None], w.name), Constant(offset, bias)


def _convolved(c: Context, w: Operand, b: Operand | None) -> str:
    writer, x = c.writer, c.value("x")
    given: list[Any] = [c.argument(name) for name in ("stride", "padding", "dilation", "groups")]
    shape = conv2d_shape(x.shape, w.shape, *(tuple(g) if isinstance(g, list) else g for g in given))
    inputs = [writer.array(x, NCHW), writer.array(w, NCHW)] + ([] if b is None else [writer.array(b)])
    return writer.node(
        "Conv",
        inputs,
        kernel_shape=[shape.R, shape.S],
        strides=[shape.stride_h, shape.stride_w],
        dilations=[shape.dilation_h, shape.dilation_w],
        pads=_pads(shape),
        group=shape.groups,
    )


def _pads(s: Conv2dShape | Pool2dShape) -> list[int]:
    """[top, left, bottom, right]: below and right as above and left where that gives the size, else as much as the last
    window needs"""
    bottom = _end(s.H, s.R, s.stride_h, s.pad_h, s.dilation_h, s.P)
    right = _end(s.W, s.S, s.stride_w, s.pad_w, s.dilation_w, s.Q)
    return [s.pad_h, s.pad_w, bottom, right]


def _end(size: int, window: int, stride: int, pad: int, dilation: int, positions: int) -> int:
    if output_size(size, window, stride, pad, pad, dilation) == positions:
        return pad
    return max((positions - 1) * stride + dilation * (window - 1) + 1 - size - pad, 0)


@rule(max_pool2d)
def _max_pool2d(c: Context) -> None:
    x = c.value("x")
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    shape = pool2d_shape("max_pool2d", x.shape, *_hashable(c, names))
    y = _max_pooled(c, x, shape)
    c.done(activated(c, y, c.argument("activation"), c.argument("activation_parameter")), NCHW)


def _max_pooled(c: Context, x: Value, s: Pool2dShape) -> str:
    name, pads = c.writer.array(x, NCHW), _pads(s)
    if max(pads[0], pads[2]) >= s.R or max(pads[1], pads[3]) >= s.S:  # which runtimes refuse
        name, pads = _padded(c, name, pads, -np.inf), [0, 0, 0, 0]
    return c.writer.node(
        "MaxPool",
        [name],
        kernel_shape=[s.R, s.S],
        strides=[s.stride_h, s.stride_w],
        dilations=[s.dilation_h, s.dilation_w],
        pads=pads,
    )


@rule(avg_pool2d)
def _avg_pool2d(c: Context) -> None:
    x = c.value("x")
    names = ("kernel_size", "stride", "padding")
    counted = ("ceil_mode", "count_include_pad", "divisor_override")
    shape = pool2d_shape("avg_pool2d", x.shape, *_hashable(c, names), 1, *_hashable(c, counted))
    c.done(_averaged(c, x, shape), NCHW)


def _averaged(c: Context, x: Value, s: Pool2dShape) -> str:
    """Where windows hang over the padding, or all are divided by one number, each window's sum is divided here: what
    counts there is not the same for all runtimes."""
    writer, name, pads = c.writer, c.writer.array(x, NCHW), _pads(s)
    kernel = {"kernel_shape": [s.R, s.S], "strides": [s.stride_h, s.stride_w]}
    inside = pads[2] <= s.pad_h and pads[3] <= s.pad_w and s.pad_h < s.R and s.pad_w < s.S
    if inside and not s.divisor:
        return writer.node("AveragePool", [name], pads=pads, count_include_pad=s.count_include_pad, **kernel)
    mean = writer.node("AveragePool", [_padded(c, name, pads, 0.0)], **kernel)
    return writer.node("Mul", [mean, writer.constant((s.R * s.S / _divisors(s)).astype(c.dtype))])


def _divisors(s: Pool2dShape) -> np.ndarray:
    """(P, Q): what the sum of each window is divided by"""
    if s.divisor:
        return np.full((s.P, s.Q), s.divisor, np.float64)

    def counted(size: int, window: int, stride: int, pad: int, positions: int) -> np.ndarray:
        start = np.arange(positions) * stride - pad
        end = np.minimum(start + window, size + pad)
        return end - start if s.count_include_pad else np.minimum(end, size) - np.maximum(start, 0)

    return np.outer(counted(s.H, s.R, s.stride_h, s.pad_h, s.P), counted(s.W, s.S, s.stride_w, s.pad_w, s.Q))


def _padded(c: Context, name: str, pads: list[int], value: float) -> str:
    if not any(pads):
        return name
    top, left, bottom, right = pads
    widths = c.writer.integers([0, 0, top, left, 0, 0, bottom, right])
    return c.writer.node("Pad", [name, widths, c.writer.number(value, c.dtype)], mode="constant")


def _hashable(c: Context, names: tuple[str, ...]) -> list[Any]:
    return [tuple(v) if isinstance(v := c.argument(name), list) else v for name in names]


@rule(adaptive_avg_pool2d, adaptive_max_pool2d)
def _adaptive(c: Context) -> None:
    x = c.value("x")
    size = c.argument("output_size")
    kind = "avg" if c.call.name == "adaptive_avg_pool2d" else "max"
    c.done(_covered(c, x, kind, adaptive_pool2d_shape(c.call.name, x.shape, size)), NCHW)


@rule(global_avg_pool2d, global_max_pool2d)
def _global(c: Context) -> None:
    kind = "GlobalAveragePool" if c.call.name == "global_avg_pool2d" else "GlobalMaxPool"
    c.done(c.writer.node("Flatten", [c.writer.node(kind, [c.writer.array(c.value("x"), NCHW)])], axis=1))


def _covered(c: Context, x: Value, kind: str, s: Pool2dShape) -> str:
    """P x Q windows that cover the image: equal ones where the sizes divide; else averages are products with two
    matrices."""
    writer, name = c.writer, c.writer.array(x, NCHW)
    if s.P * s.Q == 1:
        return writer.node("GlobalAveragePool" if kind == "avg" else "GlobalMaxPool", [name])
    if s.H % s.P == 0 and s.W % s.Q == 0:
        size = [s.H // s.P, s.W // s.Q]
        return writer.node("AveragePool" if kind == "avg" else "MaxPool", [name], kernel_shape=size, strides=size)
    if kind == "max":
        raise Unsupported(
            f"onnx.export: adaptive_max_pool2d of {s.H} x {s.W} to {s.P} x {s.Q}: only windows of one size can be"
            " exported"
        )
    rows = writer.constant(_shares(s.H, s.P).astype(c.dtype))
    columns = writer.constant(_shares(s.W, s.Q).T.astype(c.dtype))
    return writer.node("MatMul", [writer.node("MatMul", [rows, name]), columns])


def _shares(size: int, positions: int) -> np.ndarray:
    """(positions, size): what each window takes of each element"""
    shares = np.zeros((positions, size))
    for p in range(positions):
        start, end = p * size // positions, -(-(p + 1) * size // positions)
        shares[p, start:end] = 1 / (end - start)
    return shares


@rule(interpolate)
def _interpolate(c: Context) -> None:
    """The size is given, not the factor, where the factor gives the same positions."""
    writer, x = c.writer, c.value("x")
    mode, corners, factor = (c.argument(name) for name in ("mode", "align_corners", "scale_factor"))
    P, Q = c.call.result.shape[1:3]
    place = "asymmetric" if mode == "nearest" else "align_corners" if corners else "half_pixel"
    if factor is None or corners:
        sizes = [writer.array(x, NCHW), "", "", _sizes(c, x, P, Q)]
    else:
        given = list(factor) if isinstance(factor, tuple | list) else [factor, factor]
        sizes = [writer.array(x, NCHW), "", writer.constant(np.array([1, 1, *given], np.float32))]
    kind = {"mode": "nearest" if mode == "nearest" else "linear", "nearest_mode": "floor"}
    c.done(writer.node("Resize", sizes, coordinate_transformation_mode=place, **kind), NCHW)


def _sizes(c: Context, x: Value, P: int, Q: int) -> str:
    """(N, C, P, Q), N as it is when the network runs"""
    writer = c.writer
    if not x.varies[0]:
        return writer.integers([x.shape[0], x.shape[3], P, Q])
    first = writer.node("Slice", [writer.node("Shape", [writer.array(x, NCHW)]), *map(writer.integers, ([0], [2]))])
    return writer.node("Concat", [first, writer.integers([P, Q])], axis=0)


@rule(conv_transpose2d)
def _conv_transpose2d(c: Context) -> None:
    writer, x, w, b = c.writer, c.value("x"), c.operand("w"), c.optional("b")
    names = ("stride", "dilation", "output_padding")
    stride, dilation, extra = (list(v) if isinstance(v := c.argument(n), tuple | list) else [v, v] for n in names)
    pads = c.argument("padding")
    pads = pads if isinstance(pads, tuple | list) else (pads, pads)
    (top, bottom), (left, right) = (p if isinstance(p, tuple | list) else (p, p) for p in pads)
    y = writer.node(
        "ConvTranspose",
        [writer.array(x, NCHW), writer.array(w, NCHW)] + ([] if b is None else [writer.array(b)]),
        kernel_shape=list(w.shape[1:3]),
        strides=stride,
        dilations=dilation,
        pads=[top, left, bottom, right],
        output_padding=extra,
        group=c.argument("groups"),
    )
    c.done(y, NCHW)


@rule(local_response_norm)
def _local_response_norm(c: Context) -> None:
    x, size = c.value("x"), c.argument("size")
    if len(x.shape) != 4 or size % 2 == 0:  # ONNX's even windows reach one channel further up, ours down
        raise Unsupported(f"onnx.export: local_response_norm of {size} channels, x {x.shape}: odd, of images alone")
    given = {"size": size, "alpha": c.argument("alpha"), "beta": c.argument("beta"), "bias": c.argument("k")}
    c.done(c.writer.node("LRN", [c.writer.array(x, NCHW)], **given), NCHW)
