"""conv2d, rung ``direct``: one thread an output element, channels of neighbouring threads are neighbours in memory.

Sums run in the order r, s, channel (backward_weight: n, p, q), as in conv2d_tiled.py. conv2d.py has the formulas.
"""

from numba import cuda, float32

from .common import ZERO, Conv2dShape, Fused, activate, ints, per_channel


@cuda.jit
def conv2d_forward_direct(x, w, y, bias, scale, shift, residual, fused, shape):
    index = cuda.grid(1)  # of y: the threads of a warp share a pixel of x and differ in k
    if index >= y.size:
        return
    k = index % shape.K
    q = index // shape.K % shape.Q
    p = index // shape.K // shape.Q % shape.P
    n = index // shape.K // shape.Q // shape.P
    Cg = shape.C // shape.groups  # channels a group reads
    Kg = shape.K // shape.groups  # channels a group makes
    first_c = k // Kg * Cg  # of the group's input channels

    total = ZERO
    for r in range(shape.R):
        h = p * shape.stride_h - shape.pad_h + r * shape.dilation_h  # [-pad_h, H + what is padded below)
        if h < 0 or h >= shape.H:
            continue
        for s in range(shape.S):
            column = q * shape.stride_w - shape.pad_w + s * shape.dilation_w
            if column < 0 or column >= shape.W:
                continue
            for c in range(Cg):
                total += x[n, h, column, first_c + c] * w[k, r, s, c]

    before, factor, after = per_channel(k, bias, scale, shift, fused)
    total = (total + before) * factor + after
    if fused.residual:
        total += residual[n, p, q, k]
    y[n, p, q, k] = activate(total, fused)


@cuda.jit
def conv2d_backward_input_direct(dy, w, dx, shape):
    index = cuda.grid(1)  # of dx: neighbours in c read neighbours in w
    if index >= dx.size:
        return
    channel = index % shape.C
    column = index // shape.C % shape.W
    h = index // shape.C // shape.W % shape.H
    n = index // shape.C // shape.W // shape.H
    Cg = shape.C // shape.groups
    Kg = shape.K // shape.groups
    first_k = channel // Cg * Kg  # of the group's output channels
    c = channel % Cg

    total = ZERO
    for r in range(shape.R):
        reach_h = h + shape.pad_h - r * shape.dilation_h  # = p * stride_h, where tap r of output row p lies on row h
        p = reach_h // shape.stride_h
        if reach_h < 0 or p >= shape.P or p * shape.stride_h != reach_h:
            continue
        for s in range(shape.S):
            reach_w = column + shape.pad_w - s * shape.dilation_w
            q = reach_w // shape.stride_w
            if reach_w < 0 or q >= shape.Q or q * shape.stride_w != reach_w:
                continue
            for k in range(first_k, first_k + Kg):
                total += dy[n, p, q, k] * w[k, r, s, c]
    dx[n, h, column, channel] = total


@cuda.jit
def conv2d_backward_weight_direct(x, dy, dw, shape):
    index = cuda.grid(1)  # of dw: neighbours in c read neighbours in x; few threads, each with N*P*Q products
    if index >= dw.size:
        return
    Cg = shape.C // shape.groups
    Kg = shape.K // shape.groups
    c = index % Cg
    s = index // Cg % shape.S
    r = index // Cg // shape.S % shape.R
    k = index // Cg // shape.S // shape.R
    channel = k // Kg * Cg + c

    total = ZERO
    for n in range(shape.N):
        for p in range(shape.P):
            h = p * shape.stride_h - shape.pad_h + r * shape.dilation_h
            if h < 0 or h >= shape.H:
                continue
            for q in range(shape.Q):
                column = q * shape.stride_w - shape.pad_w + s * shape.dilation_w
                if column < 0 or column >= shape.W:
                    continue
                total += dy[n, p, q, k] * x[n, h, column, channel]
    dw[k, r, s, c] = total


_image = float32[:, :, :, ::1]
_channels = (float32[::1],) * 3  # bias, scale, shift
SIGNATURES = [
    (conv2d_forward_direct, (*(_image,) * 3, *_channels, _image, ints(Fused), ints(Conv2dShape))),
    (conv2d_backward_input_direct, (*(_image,) * 3, ints(Conv2dShape))),
    (conv2d_backward_weight_direct, (*(_image,) * 3, ints(Conv2dShape))),
]
