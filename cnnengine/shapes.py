"""Every size the engine computes: the only output-size formulas, with flops and bytes for the roofline.

A shape is made by its factory (``conv2d_shape(...)``), checked there, and interned: equal arguments give the same
object, so identity is a cheap cache key. ``shape.packed`` holds the members as consecutive int32, in the order of the C
struct of the same name in ``csrc/shapes.h`` (a test compares the two): the native backend reads it in place, the CUDA
and emulator backends pass it by value as a kernel argument. Kernels receive P and Q, they never recompute them.

Letters: N batch, H W input, C in-channels, K out-channels, R S filter, P Q output.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

from ._arguments import INT32_MAX as INT32_MAX
from ._arguments import Pair as Pair
from ._arguments import fits_int32, is_int, lies_outside, nchw_hint, no_empty_axis, to_divisor, to_pair
from ._packed import CACHED_SHAPES as CACHED_SHAPES
from ._packed import Packed, PackedShape
from .walks import BroadcastShape as BroadcastShape
from .walks import GemmShape as GemmShape
from .walks import NormShape as NormShape
from .walks import ReduceShape as ReduceShape
from .walks import broadcast_shape as broadcast_shape
from .walks import gemm_shape as gemm_shape
from .walks import norm_shape as norm_shape
from .walks import reduce_shape as reduce_shape

Padding = int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Conv2dShape(PackedShape):
    """x (N, H, W, C), w (K, R, S, C/groups), y (N, P, Q, K). ``pad_h``, ``pad_w`` count the rows above and the columns
    left; what is padded below and right shows only in P and Q."""

    N: int
    H: int
    W: int
    C: int
    K: int
    R: int
    S: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    P: int
    Q: int
    packed: Packed = field(init=False, repr=False)

    @property
    def x(self) -> tuple[int, int, int, int]:
        return (self.N, self.H, self.W, self.C)

    @property
    def w(self) -> tuple[int, int, int, int]:
        return (self.K, self.R, self.S, self.C // self.groups)

    @property
    def y(self) -> tuple[int, int, int, int]:
        return (self.N, self.P, self.Q, self.K)

    @property
    def reduction(self) -> int:
        """Products summed into one output."""
        return self.R * self.S * (self.C // self.groups)

    def flops(self) -> int:
        """Floating-point operations of any of the three passes, 2 per multiply-add, padding counted."""
        return 2 * self.N * self.P * self.Q * self.K * self.reduction

    def bytes(self, itemsize: int = 4) -> int:
        """Least traffic of any of the three passes: every array once."""
        return itemsize * (prod(self.x) + prod(self.w) + prod(self.y))


@dataclass(frozen=True, slots=True, eq=False)
class Pool2dShape(PackedShape):
    """x (N, H, W, C), y (N, P, Q, C). ``adaptive`` windows cover rows floor(p*H/P) to ceil((p+1)*H/P) - 1. An average
    is over ``divisor``, or where that is 0 over the elements that count."""

    N: int
    H: int
    W: int
    C: int
    R: int
    S: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    P: int
    Q: int
    adaptive: int
    count_include_pad: int
    divisor: int
    packed: Packed = field(init=False, repr=False)

    @property
    def x(self) -> tuple[int, int, int, int]:
        return (self.N, self.H, self.W, self.C)

    @property
    def y(self) -> tuple[int, int, int, int]:
        return (self.N, self.P, self.Q, self.C)

    @property
    def index_dtype(self) -> str:
        """Max-pooling remembers r*S + s of the winner; one byte where it fits."""
        return "uint8" if self.R * self.S <= 256 else "int32"

    def flops(self) -> int:
        return self.N * self.P * self.Q * self.C * self.R * self.S

    def bytes(self, itemsize: int = 4) -> int:
        return itemsize * (prod(self.x) + prod(self.y))


def output_size(size: int, window: int, stride: int, pad_before: int, pad_after: int, dilation: int) -> int:
    """Positions of a window of ``dilation * (window - 1) + 1`` in ``size`` padded; 0 or less where it does not fit."""
    return (size + pad_before + pad_after - dilation * (window - 1) - 1) // stride + 1


def pooled_size(size: int, window: int, stride: int, pad: int, dilation: int, ceil_mode: bool) -> int:
    """As ``output_size``; ``ceil_mode`` adds a last window that starts inside the input or the padding before it."""
    if not ceil_mode:
        return output_size(size, window, stride, pad, pad, dilation)
    n = -(-(size + 2 * pad - dilation * (window - 1) - 1) // stride) + 1
    return n - 1 if (n - 1) * stride >= size + pad else n


@lru_cache(CACHED_SHAPES)
def conv2d_shape(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Conv2dShape:
    """Checked shape of a convolution.

    ``padding`` is rows and columns on each side, ``(h, w)``, ``((top, bottom), (left, right))``, ``"valid"`` (none) or
    ``"same"`` (P = ceil(H / stride); an odd rest goes below and right, as in TensorFlow). Raises ValueError.
    """
    where = f"x {x}, w {w}"
    if len(x) != 4:
        raise ValueError(f"conv2d: x must have 4 axes (N, H, W, C), received {len(x)}: {where}")
    if len(w) != 4:
        raise ValueError(f"conv2d: w must have 4 axes (K, R, S, C/groups), received {len(w)}: {where}")
    N, H, W, C = x
    K, R, S, Cg = w
    stride_h, stride_w = to_pair(stride, "conv2d", "stride", 1)
    dilation_h, dilation_w = to_pair(dilation, "conv2d", "dilation", 1)
    if not is_int(groups) or groups < 1:
        raise ValueError(f"conv2d: groups must be an int of at least 1, received {groups!r}")
    groups = int(groups)
    no_empty_axis("conv2d", "x", x)
    no_empty_axis("conv2d", "w", w)
    if Cg * groups != C:
        raise ValueError(
            f"conv2d: weight expects {Cg} input channels per group ({groups} group{'s' * (groups > 1)}, {Cg * groups}"
            f" in all), x has {C}: {where}{nchw_hint(x, w, Cg * groups)}"
        )
    if K % groups:
        raise ValueError(f"conv2d: {K} output channels do not divide into {groups} groups: {where}")
    (top, bottom), (left, right) = _paddings(padding, (H, W), (R, S), (stride_h, stride_w), (dilation_h, dilation_w))
    P = output_size(H, R, stride_h, top, bottom, dilation_h)
    Q = output_size(W, S, stride_w, left, right, dilation_w)
    if P < 1 or Q < 1:
        raise ValueError(
            f"conv2d: the output would be {max(P, 0)} x {max(Q, 0)}: a filter of {R} x {S}, dilation "
            f"{(dilation_h, dilation_w)}, does not fit {H} x {W} padded by {(top, bottom)}, {(left, right)}: {where}"
        )
    members = (N, H, W, C, K, R, S, stride_h, stride_w, top, left, dilation_h, dilation_w, groups, P, Q)
    fits_int32("conv2d", members)
    return Conv2dShape(*members)


@lru_cache(CACHED_SHAPES)
def pool2d_shape(
    operation: str,
    x: tuple[int, ...],
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Pool2dShape:
    """Checked shape of a pooling with fixed windows; ``operation`` names the caller in errors. Raises ValueError."""
    if len(x) != 4:
        raise ValueError(f"{operation}: x must have 4 axes (N, H, W, C), received {len(x)}: x {x}")
    no_empty_axis(operation, "x", x)
    N, H, W, C = x
    R, S = to_pair(kernel_size, operation, "kernel_size", 1)
    stride_h, stride_w = (R, S) if stride is None else to_pair(stride, operation, "stride", 1)
    pad_h, pad_w = to_pair(padding, operation, "padding", 0)
    dilation_h, dilation_w = to_pair(dilation, operation, "dilation", 1)
    divisor = 0 if divisor_override is None else to_divisor(divisor_override, operation)
    if pad_h > R // 2 or pad_w > S // 2:
        raise ValueError(
            f"{operation}: padding {(pad_h, pad_w)} is more than half of kernel_size {(R, S)}, so that a window could"
            f" lie outside the input: x {x}"
        )
    P = pooled_size(H, R, stride_h, pad_h, dilation_h, ceil_mode)
    Q = pooled_size(W, S, stride_w, pad_w, dilation_w, ceil_mode)
    if P < 1 or Q < 1:
        raise ValueError(
            f"{operation}: the output would be {max(P, 0)} x {max(Q, 0)}: a window of {R} x {S}, dilation "
            f"{(dilation_h, dilation_w)}, does not fit {H} x {W} padded by {(pad_h, pad_w)}: x {x}"
        )
    if lies_outside(H, R, stride_h, pad_h, dilation_h, P) or lies_outside(W, S, stride_w, pad_w, dilation_w, Q):
        raise ValueError(
            f"{operation}: with dilation {(dilation_h, dilation_w)} and padding {(pad_h, pad_w)} a window of {R} x {S}"
            f" holds no element of the input: x {x}"
        )
    members = (N, H, W, C, R, S, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, P, Q)
    fits_int32(operation, (*members, divisor))
    return Pool2dShape(*members, 0, int(count_include_pad), divisor)


@lru_cache(CACHED_SHAPES)
def adaptive_pool2d_shape(operation: str, x: tuple[int, ...], output_size: int | Pair) -> Pool2dShape:
    """Checked shape of a pooling to a given output. Where P divides H and Q divides W the windows are equal and the
    shape is that of the fixed pooling; else R and S are the largest window. Raises ValueError."""
    if len(x) != 4:
        raise ValueError(f"{operation}: x must have 4 axes (N, H, W, C), received {len(x)}: x {x}")
    no_empty_axis(operation, "x", x)
    N, H, W, C = x
    P, Q = to_pair(output_size, operation, "output_size", 1)
    if H % P == 0 and W % Q == 0:
        return pool2d_shape(operation, x, (H // P, W // Q))
    R = max(-(-(p + 1) * H // P) - p * H // P for p in range(P))
    S = max(-(-(q + 1) * W // Q) - q * W // Q for q in range(Q))
    fits_int32(operation, (P * (H + 1), Q * (W + 1)))
    return Pool2dShape(N, H, W, C, R, S, 1, 1, 0, 0, 1, 1, P, Q, 1, 0, 0)


def _paddings(padding: Padding, size: Pair, window: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right))"""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        total = [
            max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, k, s, d in zip(size, window, stride, dilation, strict=True)
        ]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    if isinstance(padding, str):
        raise ValueError(f"conv2d: padding must be numbers, 'same' or 'valid', received {padding!r}")
    if isinstance(padding, tuple) and len(padding) == 2 and any(isinstance(p, tuple) for p in padding):
        h, w = (to_pair(p, "conv2d", "padding", 0) for p in padding)
        return h, w
    pad_h, pad_w = to_pair(padding, "conv2d", "padding", 0)  # type: ignore[arg-type]
    return (pad_h, pad_h), (pad_w, pad_w)
