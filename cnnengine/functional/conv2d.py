"""Convolution: y[n, p, q, k] = b[k] + sum over r, s, c of x[n, p*stride - pad + r*dilation, ..., c] * w[k, r, s, c].

The backward passes are the contract's other two verbs. Definition and names: Dumoulin and Visin, "A guide to
convolution arithmetic for deep learning", arXiv 1603.07285.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ..autograd import Function, grad_enabled
from ..backends.contract import IDENTITY, Array, Backend, Epilogue, PackedWeight
from ..backends.winograd import check as check_winograd
from ..shapes import Conv2dShape, Padding, Pair, conv2d_shape, reduce_shape
from ..tensor import Tensor, record, wrap
from ._common import algorithm_for, autocast_region, backend_of, same_kind, shape_of, tensor
from .activation import activate, gradient, parameter_of, reads_result
from .binary import add, mul


class Conv2d(Function):
    """saved: (shape, x, w, algorithm of backward_input, algorithm of backward_weight)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1)

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, x, w, input_algorithm, weight_algorithm = self.saved
        backend = self.backend
        dx = dw = db = None
        if self.needs(0):
            dx = backend.empty(shape.x, dy.dtype)
            backend.conv2d_backward_input(shape, dy, w, dx, input_algorithm)
        if self.needs(1):
            dw = backend.empty(shape.w, dy.dtype)
            backend.conv2d_backward_weight(shape, x, dy, dw, weight_algorithm)
        if self.needs(2):
            db = backend.empty((shape.K,), dy.dtype)
            backend.reduce("sum", reduce_shape(1, shape.N * shape.P * shape.Q, shape.K), dy, db)
        return dx, dw, db


class Conv2dActivation(Conv2d):
    """A convolution and an activation whose derivative is a function of its result; saved: (Conv2d's, Activation's)"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        self.saved, activation = self.saved
        return super().backward(gradient(self.backend, activation, dy))


def conv2d(
    x: Tensor,
    w: Tensor | PackedWeight,
    b: Tensor | None = None,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    activation: str = "identity",
    activation_parameter: float | None = None,
    algorithm: str | None = None,
) -> Tensor:
    """Convolution of x (N, H, W, C) with w (K, R, S, C/groups), plus b (K,): y (N, P, Q, K).

    ``padding``: a number, ``(h, w)``, ``((top, bottom), (left, right))``, "same" or "valid". ``w`` may be what
    ``conv2d_prepare`` made. ``activation``, one of the contract's ACTIVATIONS, is applied on the way to memory; its
    slope or scale is ``activation_parameter`` (None: F.leaky_relu's and F.elu's default). ``algorithm`` names a kernel
    of the active backend, for the forward pass and for those backward passes that have one of the name. Raises
    ValueError for shapes and names, TypeError for dtypes.
    """
    x, region = tensor(x), autocast_region()
    if region is not None:
        x, w, b = region.low("conv2d", x, w, b)
    data = x.data
    backend = backend_of("conv2d", x)
    w_data, weight = conv2d_weight("conv2d", backend, x, w)
    shape = shape_of(conv2d_shape, data.shape, w_data.shape, stride, padding, dilation, groups)
    if b is not None:
        b = tensor(b)
        check_channels("b", b, x, shape)
    recorded = grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (b is not None and b.requires_grad)
    )
    parameter, fused = 0.0, activation != "identity"
    if fused:
        parameter = parameter_of("conv2d", activation, activation_parameter)
        fused = not recorded or reads_result(activation, parameter)
    measured = None if weight is None else shape  # a prepared weight has been
    forward_algorithm = algorithm_for(backend, "conv2d_forward", algorithm, measured, data.dtype)
    y = backend.empty(shape.y, data.dtype)
    epilogue = IDENTITY
    if b is not None or fused:
        epilogue = Epilogue(
            None if b is None else b.data, None, None, None, activation if fused else "identity", parameter
        )
    backend.conv2d_forward(shape, data, w if weight is None else w_data, y, epilogue, forward_algorithm)
    if not recorded:
        return wrap(y)
    inputs = (x, wrap(w_data) if weight is None else weight, b)
    saved = saved_for_backward(backend, shape, x, w_data, algorithm)
    if fused:
        return record(y, Conv2dActivation(backend, inputs, (saved, (activation, y, parameter))))
    result = record(y, Conv2d(backend, inputs, saved))
    return result if activation == "identity" else activate(activation, result, parameter)


def saved_for_backward(
    backend: Backend, shape: Conv2dShape, x: Tensor, w: Array, algorithm: str | None
) -> tuple[Any, ...]:
    """What Conv2d saves."""
    needed = shape if x.requires_grad else None
    input_algorithm = _backward_algorithm(backend, "conv2d_backward_input", algorithm, needed, x.data.dtype)
    weight_algorithm = _backward_algorithm(backend, "conv2d_backward_weight", algorithm, shape, x.data.dtype)
    return shape, x.data, w, input_algorithm, weight_algorithm


def conv2d_norm_act(
    x: Tensor,
    w: Tensor | PackedWeight,
    b: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "identity",
    activation_parameter: float | None = None,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> Tensor:
    """activation((conv2d(x, w, b)) * scale + shift + residual): a convolution, a normalisation whose statistics are
    known, a skip connection and an activation.

    ``scale``, ``shift`` (K,); ``residual`` of y's shape; ``activation`` and ``activation_parameter`` as in ``conv2d``.
    One pass over memory where no gradient is recorded; the same composed of its operations where one is. Raises as
    ``conv2d``.
    """
    parameter = parameter_of("conv2d_norm_act", activation, activation_parameter)
    x, region = tensor(x), autocast_region()
    if region is not None:
        x, w, b, scale, shift, residual = region.low("conv2d_norm_act", x, w, b, scale, shift, residual)
    extra = {"b": b, "scale": scale, "shift": shift, "residual": residual}
    given = {name: tensor(value) for name, value in extra.items() if value is not None}
    everything = [x, *given.values()] + ([w] if isinstance(w, Tensor) else [])
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    backend = backend_of("conv2d_norm_act", x)
    w_data, weight = conv2d_weight("conv2d_norm_act", backend, x, w)
    shape = shape_of(conv2d_shape, x.shape, w_data.shape, stride, padding, dilation, groups)
    for name, value in given.items():
        if name != "residual":
            check_channels(name, value, x, shape)
        else:
            same_kind("conv2d_norm_act", x, name, value)
            if value.shape != shape.y:
                raise ValueError(f"conv2d_norm_act: residual must have y's shape {shape.y}, received {value.shape}")
    if grad_enabled() and any(t.requires_grad for t in everything):
        y = conv2d(x, w, given.get("b"), algorithm=algorithm, **geometry)
        y = mul(y, given["scale"]) if "scale" in given else y
        for name in ("shift", "residual"):
            y = add(y, given[name]) if name in given else y
        return y if activation == "identity" else activate(activation, y, parameter)
    arrays = {("bias" if name == "b" else name): value.data for name, value in given.items()}
    out = backend.empty(shape.y, x.dtype)
    chosen = algorithm_for(backend, "conv2d_forward", algorithm, None if weight is None else shape, x.dtype)
    operand = w_data if weight is not None else w
    epilogue = Epilogue(activation=activation, parameter=parameter, **arrays)
    backend.conv2d_forward(shape, x.data, operand, out, epilogue, chosen)
    return wrap(out)


def conv2d_prepare(
    x_shape: tuple[int, int, int, int],
    w: Tensor,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> PackedWeight:
    """w in the order the active backend's kernel reads it, for inputs of ``x_shape`` with any N.

    The holder must not change w afterwards, and uses the result in place of w under the same backend.
    """
    w = tensor(w)
    backend = backend_of("conv2d_prepare", w)
    shape = shape_of(conv2d_shape, tuple(x_shape), w.shape, stride, padding, dilation, groups)
    chosen = algorithm_for(backend, "conv2d_forward", algorithm, shape, w.dtype)
    return backend.conv2d_prepare(shape, w.data, chosen)


def conv2d_weight(operation: str, backend: Backend, x: Tensor, w: Any) -> tuple[Array, Tensor | None]:
    """The weight's array, and its Tensor unless it is packed."""
    packed = isinstance(w, PackedWeight)
    if packed and w.backend != backend.name:
        raise ValueError(
            f"{operation}: the weight was prepared for backend {w.backend!r}, the active one is {backend.name!r}"
        )
    if packed:
        check_winograd(operation, w.algorithm)
    weight = wrap(w.w) if packed else tensor(w)
    same_kind(operation, x, "w", weight)
    return weight.data, None if packed else weight


def check_channels(name: str, value: Tensor, x: Tensor, shape: Conv2dShape) -> None:
    same_kind("conv2d", x, name, value)
    if value.data.shape != (shape.K,):
        raise ValueError(f"conv2d: {name} must be ({shape.K},), one value an output channel, received {value.shape}")


def _backward_algorithm(
    backend: Backend, verb: str, name: str | None, shape: Conv2dShape | None, dtype: Any
) -> str | None:
    named = name is not None and name in backend.algorithms[verb]
    return algorithm_for(backend, verb, name if named else None, shape, dtype)
