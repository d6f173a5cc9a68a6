"""NumPy as its users write these operations: one copy to columns, then one matrix product (BLAS); shifts and adds for
depthwise filters; whole-array maxima for pooling. Layouts are ours, so nothing is transposed."""

from __future__ import annotations

import numpy as np

from cnnengine.shapes import Conv2dShape, Pool2dShape, conv2d_shape

from ..task import Prepared, Task


class Numpy:
    name = "NumPy"
    device = "cpu"

    def unavailable(self) -> str | None:
        return None

    def prepare(self, task: Task) -> Prepared | None:
        return None if task.numpy is None else Prepared(task.numpy(task.arrays), np.asarray)


def conv2d_forward(shape: Conv2dShape, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """y (N, P, Q, K)"""
    if _depthwise(shape):
        padded = _pad(shape, x, 0)
        return sum(_shifted(shape, padded, r, s) * w[:, r, s, 0] for r in range(shape.R) for s in range(shape.S))
    y = np.matmul(_columns(shape, x), _filters(shape, w))  # (groups, N*P*Q, K/groups)
    return y.transpose(1, 0, 2).reshape(shape.y)


def conv2d_backward_input(shape: Conv2dShape, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """dx (N, H, W, C): at stride 1 a convolution of dy with the turned filter, else the columns' gradient, added back
    tap by tap."""
    turned = _turned(shape)
    if turned is not None:
        return conv2d_forward(turned, dy, np.ascontiguousarray(w[:, ::-1, ::-1].transpose(3, 1, 2, 0)))
    padded = np.zeros((shape.N, *_padded_size(shape), shape.C), np.float32)
    if _depthwise(shape):
        for r in range(shape.R):
            for s in range(shape.S):
                _shifted(shape, padded, r, s)[...] += dy * w[:, r, s, 0]
    else:
        dcolumns = np.matmul(_by_group(shape, dy), _filters(shape, w).transpose(0, 2, 1))
        taps = dcolumns.reshape(shape.groups, shape.N, shape.P, shape.Q, shape.R, shape.S, -1)
        for r in range(shape.R):
            for s in range(shape.S):
                tap = taps[:, :, :, :, r, s].transpose(1, 2, 3, 0, 4).reshape(shape.N, shape.P, shape.Q, shape.C)
                _shifted(shape, padded, r, s)[...] += tap
    return padded[:, shape.pad_h : shape.pad_h + shape.H, shape.pad_w : shape.pad_w + shape.W]


def conv2d_backward_weight(shape: Conv2dShape, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dw (K, R, S, C/groups)"""
    if _depthwise(shape):
        padded, dw = _pad(shape, x, 0), np.empty(shape.w, np.float32)
        for r in range(shape.R):
            for s in range(shape.S):
                dw[:, r, s, 0] = np.einsum("npqc,npqc->c", _shifted(shape, padded, r, s), dy)
        return dw
    dw = np.matmul(_by_group(shape, dy).transpose(0, 2, 1), _columns(shape, x))
    return dw.reshape(shape.w)


def max_pool2d_forward(shape: Pool2dShape, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y and the index (N, P, Q, C) of the winner's r*S + s"""
    padded = _pad(shape, x, -np.inf)
    y, index = np.full(shape.y, -np.inf, np.float32), np.zeros(shape.y, np.uint8)
    for r in range(shape.R):
        for s in range(shape.S):
            candidate = _shifted(shape, padded, r, s)
            index[candidate > y] = r * shape.S + s
            np.maximum(y, candidate, out=y)
    return y, index


def max_pool2d_backward(shape: Pool2dShape, dy: np.ndarray, index: np.ndarray) -> np.ndarray:
    """dx (N, H, W, C)"""
    padded = np.zeros((shape.N, *_padded_size(shape), shape.C), np.float32)
    for r in range(shape.R):
        for s in range(shape.S):
            _shifted(shape, padded, r, s)[...] += dy * (index == r * shape.S + s)
    return padded[:, shape.pad_h : shape.pad_h + shape.H, shape.pad_w : shape.pad_w + shape.W]


def _turned(shape: Conv2dShape) -> Conv2dShape | None:
    """The convolution of dy that gives dx, where there is one without cropping or gaps."""
    pad_h, pad_w = (shape.R - 1) * shape.dilation_h - shape.pad_h, (shape.S - 1) * shape.dilation_w - shape.pad_w
    if shape.groups > 1 or shape.stride_h > 1 or shape.stride_w > 1 or pad_h < 0 or pad_w < 0:
        return None
    below, right = shape.H - shape.P + shape.pad_h, shape.W - shape.Q + shape.pad_w
    if below < 0 or right < 0:
        return None
    w = (shape.C, shape.R, shape.S, shape.K)
    return conv2d_shape(shape.y, w, 1, ((pad_h, below), (pad_w, right)), (shape.dilation_h, shape.dilation_w))


def _depthwise(shape: Conv2dShape) -> bool:
    return shape.groups == shape.C == shape.K > 1


def _padded_size(shape: Conv2dShape | Pool2dShape) -> tuple[int, int]:
    """Rows and columns up to the last window's end."""
    rows = (shape.P - 1) * shape.stride_h + (shape.R - 1) * shape.dilation_h + 1
    columns = (shape.Q - 1) * shape.stride_w + (shape.S - 1) * shape.dilation_w + 1
    return max(rows, shape.H + shape.pad_h), max(columns, shape.W + shape.pad_w)


def _pad(shape: Conv2dShape | Pool2dShape, x: np.ndarray, value: float) -> np.ndarray:
    height, width = _padded_size(shape)
    below, right = height - shape.H - shape.pad_h, width - shape.W - shape.pad_w
    if not (shape.pad_h or shape.pad_w or below or right):
        return x
    return np.pad(x, ((0, 0), (shape.pad_h, below), (shape.pad_w, right), (0, 0)), constant_values=value)


def _shifted(shape: Conv2dShape | Pool2dShape, padded: np.ndarray, r: int, s: int) -> np.ndarray:
    """View (N, P, Q, C) of what tap (r, s) of every window sees."""
    top, left = r * shape.dilation_h, s * shape.dilation_w
    rows = slice(top, top + (shape.P - 1) * shape.stride_h + 1, shape.stride_h)
    columns = slice(left, left + (shape.Q - 1) * shape.stride_w + 1, shape.stride_w)
    return padded[:, rows, columns]


def _columns(shape: Conv2dShape, x: np.ndarray) -> np.ndarray:
    """(groups, N*P*Q, R*S*C/groups), the one copy; a 1x1 filter of stride 1 needs none"""
    if shape.R == shape.S == shape.stride_h == shape.stride_w == shape.groups == 1 and not (shape.pad_h or shape.pad_w):
        return x.reshape(1, -1, shape.C)
    span = ((shape.R - 1) * shape.dilation_h + 1, (shape.S - 1) * shape.dilation_w + 1)
    windows = np.lib.stride_tricks.sliding_window_view(_pad(shape, x, 0), span, axis=(1, 2))
    windows = windows[:, :: shape.stride_h, :: shape.stride_w, :, :: shape.dilation_h, :: shape.dilation_w]
    windows = windows[:, : shape.P, : shape.Q]  # (N, P, Q, C, R, S)
    split = (
        windows.reshape(*windows.shape[:3], shape.groups, -1, shape.R, shape.S)
        if shape.groups > 1
        else windows[:, :, :, None]
    )
    return split.transpose(3, 0, 1, 2, 5, 6, 4).reshape(shape.groups, shape.N * shape.P * shape.Q, -1)


def _filters(shape: Conv2dShape, w: np.ndarray) -> np.ndarray:
    """(groups, R*S*C/groups, K/groups)"""
    return w.reshape(shape.groups, shape.K // shape.groups, -1).transpose(0, 2, 1)


def _by_group(shape: Conv2dShape, dy: np.ndarray) -> np.ndarray:
    """(groups, N*P*Q, K/groups)"""
    return dy.reshape(-1, shape.groups, shape.K // shape.groups).transpose(1, 0, 2)
