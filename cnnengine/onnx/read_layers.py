"""Operators with weights and of images: convolution, pooling, matrix products, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import functional as F
from ..shapes import Pair
from ..tensor import Tensor
from .network import Laid, Node, array, host, like
from .order import channels_last, plain
from .read_arrays import like_laid, reader

Given = Sequence[Any]
NHWC = channels_last(4)
Pads = tuple[Pair, Pair]


def _image(node: Node, x: Laid) -> Tensor:
    if len(x.order) != 4:
        raise node.refuse(f"its input has {len(x.order)} axes; only images (N, C, H, W) are computed")
    return array(x, NHWC)


def _pads(node: Node, x: Tensor, window: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Pads:
    """((top, bottom), (left, right))"""
    automatic = node.get("auto_pad", "NOTSET")
    if automatic in ("NOTSET", ""):
        top, left, bottom, right = node.get("pads") or (0, 0, 0, 0)
        return (top, bottom), (left, right)
    if automatic == "VALID":
        return (0, 0), (0, 0)
    pairs = []
    for size, n, stride, dilation in zip(x.shape[1:3], window, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + dilation * (n - 1) + 1 - size, 0)
        pairs.append(
            (total // 2, total - total // 2) if automatic == "SAME_UPPER" else (total - total // 2, total // 2)
        )
    return pairs[0], pairs[1]


@reader("Conv")
def _conv(node: Node, given: Given, training: bool) -> Laid:
    x, w, b = (*given, None)[:3]
    image, filters = _image(node, x), array(w, NHWC)
    strides, dilations = node.get("strides") or (1, 1), node.get("dilations") or (1, 1)
    pads = _pads(node, image, filters.shape[1:3], strides, dilations)
    bias = None if b is None else array(b)
    geometry: dict[str, Any] = {"stride": tuple(strides), "dilation": tuple(dilations), "groups": node.get("group", 1)}
    return Laid(F.conv2d(image, filters, bias, padding=pads, **geometry), NHWC)


@reader("ConvTranspose")
def _conv_transpose(node: Node, given: Given, training: bool) -> Laid:
    x, w, b = (*given, None)[:3]
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or node.get("output_shape"):
        raise node.refuse("auto_pad and output_shape; expected pads")
    image = _image(node, x)
    strides, dilations = node.get("strides") or (1, 1), node.get("dilations") or (1, 1)
    top, left, bottom, right = node.get("pads") or (0, 0, 0, 0)
    y = F.conv_transpose2d(
        image,
        array(w, NHWC),
        None if b is None else array(b),
        stride=tuple(strides),
        padding=((top, bottom), (left, right)),
        output_padding=tuple(node.get("output_padding") or (0, 0)),
        dilation=tuple(dilations),
        groups=node.get("group", 1),
    )
    return Laid(y, NHWC)


@reader("MaxPool", "AveragePool")
def _pool(node: Node, given: Given, training: bool) -> Laid:
    x = _image(node, given[0])
    window = tuple(node.get("kernel_shape"))
    strides, dilations = tuple(node.get("strides") or (1, 1)), tuple(node.get("dilations") or (1, 1))
    (top, bottom), (left, right) = _pads(node, x, window, strides, dilations)
    ceil, counts = bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0))
    even = (top, left) == (bottom, right) and 2 * top <= window[0] and 2 * left <= window[1]
    if node.kind == "MaxPool":
        if not even:
            x = F.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)], -np.inf)
            top = left = 0
        return Laid(F.max_pool2d(x, window, strides, (top, left), dilations, ceil), NHWC)
    if dilations != (1, 1):
        raise node.refuse("an average with dilations")
    if even:
        return Laid(F.avg_pool2d(x, window, strides, (top, left), ceil, counts), NHWC)
    if ceil:
        raise node.refuse("an average with uneven pads and ceil_mode")
    around = [(0, 0), (top, bottom), (left, right), (0, 0)]
    y = F.avg_pool2d(F.pad(x, around), window, strides)
    if counts:
        return Laid(y, NHWC)
    inside = np.pad(np.ones((1, *x.shape[1:3], 1), np.float32), around)  # the share of each window that is no padding
    return Laid(F.div(y, like(F.avg_pool2d(Tensor(inside), window, strides).numpy(), y)), NHWC)


@reader("GlobalAveragePool")
def _global_average(node: Node, given: Given, training: bool) -> Laid:
    return Laid(F.adaptive_avg_pool2d(_image(node, given[0]), 1), NHWC)


@reader("GlobalMaxPool")
def _global_max(node: Node, given: Given, training: bool) -> Laid:
    return Laid(F.adaptive_max_pool2d(_image(node, given[0]), 1), NHWC)


@reader("Resize")
def _resize(node: Node, given: Given, training: bool) -> Laid:
    x = _image(node, given[0])
    mode, place = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    scales = given[2] if len(given) > 2 and given[2] is not None and given[2].size else None
    sizes = given[3] if len(given) > 3 and given[3] is not None and given[3].size else None
    if node.get("axes") or (scales is None) == (sizes is None):
        raise node.refuse("expected scales or sizes of all axes")
    wanted = host(node, scales if sizes is None else sizes, "the size").tolist()
    if any(a != b for a, b in zip(wanted[:2], given[0].shape[:2] if scales is None else (1, 1), strict=True)):
        raise node.refuse("N or C change size")
    size: dict[str, Any] = {"size": tuple(wanted[2:])} if scales is None else {"scale_factor": tuple(wanted[2:])}
    rounding = node.get("nearest_mode", "round_prefer_floor")
    if mode == "nearest" and place == "asymmetric" and rounding == "floor":
        return Laid(F.interpolate(x, **size), NHWC)
    centres = ("half_pixel", "pytorch_half_pixel", "align_corners")
    if mode == "linear" and place in centres and not node.get("antialias"):
        corners = place == "align_corners"
        if corners and scales is not None:
            size = {"size": tuple(int(n * s) for n, s in zip(x.shape[1:3], wanted[2:], strict=True))}
        return Laid(F.interpolate(x, **size, mode="bilinear", align_corners=corners), NHWC)
    raise node.refuse(f"mode {mode!r} with coordinates {place!r} and rounding {rounding!r}")


@reader("DepthToSpace", "SpaceToDepth")
def _rearranged(node: Node, given: Given, training: bool) -> Laid:
    """Blocks of b x b pixels from channels, or into them: DCR puts the block's place before the channel, CRD behind."""
    x, b = _image(node, given[0]), node.get("blocksize")
    n, h, w, c = x.shape
    if node.kind == "SpaceToDepth":
        blocks = F.permute(F.reshape(x, (n, h // b, b, w // b, b, c)), (0, 1, 3, 2, 4, 5))
        return Laid(F.reshape(blocks, (n, h // b, w // b, b * b * c)), NHWC)
    if node.get("mode", "DCR") == "DCR":
        blocks = F.permute(F.reshape(x, (n, h, w, b, b, c // b**2)), (0, 1, 3, 2, 4, 5))
    else:
        blocks = F.permute(F.reshape(x, (n, h, w, c // b**2, b, b)), (0, 1, 4, 2, 5, 3))
    return Laid(F.reshape(blocks, (n, h * b, w * b, c // b**2)), NHWC)


# ---- matrix products


@reader("Gemm")
def _gemm(node: Node, given: Given, training: bool) -> Laid:
    a, b, c = (*given, None)[:3]
    left = array(a, (1, 0) if node.get("transA", 0) else (0, 1))
    w = array(like_laid(b, left), (0, 1) if node.get("transB", 0) else (1, 0))
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    if c is not None and alpha == beta == 1 and c.shape in ((w.shape[0],), (1, w.shape[0])):
        return Laid(F.linear(left, w, F.reshape(array(like_laid(c, left)), (-1,))), plain(2))
    y = F.linear(left, w)
    y = y if alpha == 1 else F.mul(y, alpha)
    if c is not None:
        added = array(like_laid(c, left))
        y = F.add(y, added if beta == 1 else F.mul(added, beta))
    return Laid(y, plain(2))


@reader("MatMul")
def _matmul(node: Node, given: Given, training: bool) -> Laid:
    tensors = [value.tensor for value in given if isinstance(value, Laid)]
    a, b = (like_laid(value, tensors[0]) for value in given)
    if len(b.order) == 2:
        y = F.linear(array(a), array(b, (1, 0)))
        return Laid(y, plain(y.ndim))
    left, right = array(a), array(b)
    if left.ndim > 2 and left.shape[:-2] != right.shape[:-2]:
        lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        left, right = (F.add(t, like(np.zeros((*lead, *t.shape[-2:])), t)) for t in (left, right))
    return Laid(F.matmul(left, right), plain(max(left.ndim, right.ndim)))


# ---- normalisation


@reader("BatchNormalization")
def _batch_norm(node: Node, given: Given, training: bool) -> Laid:
    x, scale, bias, mean, variance = given
    order = channels_last(len(x.order))
    momentum, eps = 1.0 - node.get("momentum", 0.9), node.get("epsilon", 1e-5)
    mean, variance, scale, bias = (array(value) for value in (mean, variance, scale, bias))
    return Laid(F.batch_norm(array(x, order), mean, variance, scale, bias, training, momentum, eps), order)


@reader("LayerNormalization")
def _layer_norm(node: Node, given: Given, training: bool) -> Laid:
    x, scale, bias = (*given, None)[:3]
    axis = node.get("axis", -1) % len(x.order)
    shape = x.shape[axis:]
    gain, offset = (None if v is None else F.reshape(array(v), shape) for v in (scale, bias))
    return Laid(F.layer_norm(array(x), shape, gain, offset, node.get("epsilon", 1e-5)), plain(len(x.order)))


@reader("InstanceNormalization")
def _instance_norm(node: Node, given: Given, training: bool) -> Laid:
    x, scale, bias = given
    eps, rank = node.get("epsilon", 1e-5), len(x.order)
    if rank == 3 and x.order == plain(3):  # groups of channels made one, all elements of which lie together
        y = F.layer_norm(x.tensor, x.shape[2:], None, None, eps)
        scaled = F.mul(y, F.reshape(array(scale), (-1, 1)))
        return Laid(F.add(scaled, F.reshape(array(bias), (-1, 1))), plain(3))
    order = channels_last(rank)
    return Laid(F.instance_norm(array(x, order), weight=array(scale), bias=array(bias), eps=eps), order)


@reader("GroupNormalization")
def _group_norm(node: Node, given: Given, training: bool) -> Laid:
    x, scale, bias = given
    order, channels = channels_last(len(x.order)), x.shape[1]
    if scale.shape != (channels,):
        raise node.refuse("one scale a group, as opset 18 has it; expected one a channel, as in opset 21")
    groups, eps = node.get("num_groups"), node.get("epsilon", 1e-5)
    return Laid(F.group_norm(array(x, order), groups, array(scale), array(bias), eps), order)


@reader("LRN")
def _lrn(node: Node, given: Given, training: bool) -> Laid:
    """x / (bias + alpha / size * sum of squares over ``size`` channels) ** beta; an even window reaches one further up
    than ours"""
    x, size = _image(node, given[0]), node.get("size")
    numbers = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    if size % 2:
        return Laid(F.local_response_norm(x, size, *numbers), NHWC)
    squares = F.pad(F.mul(x, x), [(0, 0)] * 3 + [((size - 1) // 2, size // 2)])
    channels = x.shape[3]
    total = F.index(squares, (..., slice(0, channels)))
    for start in range(1, size):
        total = F.add(total, F.index(squares, (..., slice(start, start + channels))))
    alpha, beta, bias = numbers
    scaled = F.add(F.mul(total, alpha / size), bias)
    return Laid(F.div(x, F.pow(scaled, beta)), NHWC)
