"""What a backend must do: the whole contract, on one page.

Arrays are NumPy's (device "cpu") or CuPy's (device "cuda"), C-contiguous; ``functional`` has checked shapes and dtypes
and owns every output. Verbs write into the outputs they are given, overwrite all of them, never allocate results, know
no graph, and raise ``cnnengine.errors.Unsupported`` for what they cannot do. No optional members, no defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from ..shapes import BroadcastShape, Conv2dShape, GemmShape, NormShape, Pool2dShape, ReduceShape
from .epilogue import IDENTITY as IDENTITY
from .epilogue import Array as Array
from .epilogue import Epilogue as Epilogue
from .epilogue import PackedWeight as PackedWeight

ACTIVATION_SAVES = {  # defined in docs/semantics.md; what the backward pass wants: the input "x" or the output "y"
    "identity": "y", "relu": "y", "relu6": "y", "leaky_relu": "y", "silu": "x", "gelu": "x", "gelu_tanh": "x",
    "sigmoid": "y", "tanh": "y", "hardswish": "x", "hardsigmoid": "y", "elu": "y",
}  # fmt: skip
ACTIVATIONS = tuple(ACTIVATION_SAVES)
UNARY = ("neg", "exp", "log", "sqrt")
BINARY = ("add", "sub", "mul", "div", "pow", "equal")  # equal gives 1 or 0 in the operands' dtype
REDUCE = ("sum", "max")  # max: NaN wins, as NumPy's
POOL, OPTIMIZERS = ("max", "avg"), ("sgd", "adam")
Name = str | None  # of an algorithm; None: the backend's own choice
CONV2D_VERBS = ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight")


class Backend(Protocol):
    name: str
    device: str  # "cpu": NumPy arrays; "cuda": CuPy arrays
    dtypes: frozenset[str]  # the floating-point dtypes it computes in
    algorithms: ClassVar[Mapping[str, tuple[str, ...]]]  # verb -> names its ``algorithm`` takes
    notes: ClassVar[Mapping[str, str]]  # verbs without a kernel of their own: "composed: how" or "absent: why"

    # memory
    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array: ...
    def workspace(self, nbytes: int) -> Array: ...  # uint8 scratch of this thread, valid until its next verb
    def to_host(self, a: Array) -> np.ndarray: ...
    def to_device(self, a: np.ndarray) -> Array: ...
    def synchronize(self) -> None: ...
    def fill(self, y: Array, value: float) -> None: ...
    def cast(self, x: Array, y: Array) -> None: ...  # to y's dtype, rounding to nearest even
    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None: ...  # y = x.transpose(axes)

    # convolution: x (N, H, W, C), w (K, R, S, C/groups) or PackedWeight, y (N, P, Q, K); dx, dw, dy likewise
    def conv2d_prepare(self, shape: Conv2dShape, w: Array, algorithm: str | None) -> PackedWeight: ...
    def conv2d_forward(
        self, shape: Conv2dShape, x: Array, w: Array | PackedWeight, y: Array, epilogue: Epilogue, algorithm: str | None
    ) -> None: ...
    def conv2d_backward_input(self, shape: Conv2dShape, dy: Array, w: Array, dx: Array, algorithm: Name) -> None: ...
    def conv2d_backward_weight(self, shape: Conv2dShape, x: Array, dy: Array, dw: Array, algorithm: Name) -> None: ...

    # pooling: index (N, P, Q, C) of ``shape.index_dtype`` holds the winner's r*S + s (the first of equals, a NaN before
    # all), counted from the window's start; None where kind is "avg" or nobody needs it
    def pool2d_forward(self, kind: str, shape: Pool2dShape, x: Array, y: Array, index: Array | None) -> None: ...
    def pool2d_backward(self, kind: str, shape: Pool2dShape, dy: Array, index: Array | None, dx: Array) -> None: ...

    # elementwise; ``saved`` is ACTIVATION_SAVES[kind] of the forward pass, x of leaky_relu with a slope below 0; y may
    # be x, dx may be dy. ``parameter``: the slope of leaky_relu, the scale of elu (backward: at least 0)
    def activation_forward(self, kind: str, x: Array, y: Array, parameter: float) -> None: ...
    def activation_backward(self, kind: str, saved: Array, dy: Array, dx: Array, parameter: float) -> None: ...
    def unary(self, op: str, x: Array, y: Array) -> None: ...
    def binary(self, op: str, shape: BroadcastShape, a: Array, b: Array, y: Array) -> None: ...
    def reduce(self, op: str, shape: ReduceShape, x: Array, y: Array) -> None: ...

    # matrix product, the epilogue over c's last axis; the epilogue alone, y of x's shape may be x
    def gemm(self, shape: GemmShape, a: Array, b: Array, c: Array, epilogue: Epilogue) -> None: ...
    def apply_epilogue(self, x: Array, y: Array, epilogue: Epilogue) -> None: ...

    # normalisation of x (N, L, G, D) over L and D, with gain and offset (G*D,) and a residual of x's shape, or None:
    # y = activation((x - mean) / sqrt(variance + epsilon) * gain + offset + residual), "identity" or "relu"; mean and
    # variance (biased) (N, G), float32 where x is narrower. Backward: dresidual is dy, 0 where relu's y <= 0; a
    # gradient that is None is not wanted; y is None but for relu
    def norm_forward(
        self, shape: NormShape, x: Array, gain: Array | None, offset: Array | None, residual: Array | None, y: Array,
        mean: Array, variance: Array, epsilon: float, activation: str,
    ) -> None: ...  # fmt: skip
    def norm_backward(
        self, shape: NormShape, x: Array, gain: Array | None, mean: Array, variance: Array, y: Array | None, dy: Array,
        dx: Array | None, dgain: Array | None, doffset: Array | None, dresidual: Array | None, epsilon: float,
        activation: str,
    ) -> None: ...  # fmt: skip

    # z = norm_forward of y as (1, N*P*Q, K, 1), y = conv2d_forward with ``bias`` or without; both are written
    def conv2d_norm_forward(
        self, shape: Conv2dShape, x: Array, w: Array | PackedWeight, bias: Array | None, y: Array,
        algorithm: str | None, gain: Array | None, offset: Array | None, residual: Array | None, z: Array,
        mean: Array, variance: Array, epsilon: float, activation: str,
    ) -> None: ...  # fmt: skip

    # x (M, C), labels (M,) int64 in [0, C), loss (M,), probability (M, C); dx = (probability - onehot) * dloss[:, None]
    def softmax_cross_entropy_forward(self, x: Array, labels: Array, loss: Array, probability: Array) -> None: ...
    def softmax_cross_entropy_backward(self, probability: Array, labels: Array, dloss: Array, dx: Array) -> None: ...

    # Philox4x32-10 over the logical index i: key = state[0] (seed), counter = (i // 4, state[1] (offset)), word i % 4;
    # element i is kept where its word >= threshold, times float32(scale), else 0. state: uint64 (2,), on the device
    def dropout(self, x: Array, y: Array, threshold: int, scale: float, state: Array) -> None: ...

    # y = x * factor + offset; x (..., C) uint8, factor and offset (C,) float32 unless y is wider
    def normalize_images(self, x: Array, factor: Array, offset: Array, y: Array) -> None: ...

    # in place, over all parameters at once, by the formulas of numpy/optimizer_step.py; hyper: float32, on the device
    # "sgd": hyper (5,) = lr, momentum, weight decay, nesterov (0 or 1), gradient scale; states = one velocity a
    #   parameter, or none where momentum is 0
    # "adam": hyper (10,) = lr / (1 - beta1**t), beta1, 1 - beta1, beta2, 1 - beta2, 1 / sqrt(1 - beta2**t), epsilon,
    #   weight decay, what is kept of p, gradient scale; states = every parameter's first moment m, then every second v
    def optimizer_step(
        self, kind: str, parameters: Sequence[Array], gradients: Sequence[Array], states: Sequence[Array], hyper: Array
    ) -> None: ...
