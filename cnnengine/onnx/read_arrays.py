"""Operators on values of any rank: arithmetic, activations, reductions, changes of shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from .. import functional as F
from ..functional.activation import activate
from ..tensor import Tensor
from . import host as on_host
from .network import Function, Held, Laid, Node, array, host, like
from .order import Order, channels_last, permuted, plain, same_memory, without

FUNCTIONS: dict[str, Function] = {}
Given = Sequence[Any]


def reader(*kinds: str) -> Callable[[Function], Function]:
    """Decorates what computes operators of these kinds; nodes whose inputs are all NumPy's go to ``host`` first."""

    def decorate(function: Function) -> Function:
        for kind in kinds:
            FUNCTIONS[kind] = function
        return function

    return decorate


def computed(kind: str) -> Function | None:
    """What computes a kind of node, on tensors or on NumPy's arrays; None for one that is not known."""
    on_tensors, on_arrays = FUNCTIONS.get(kind), on_host.HOST.get(kind)
    if on_arrays is None:
        return on_tensors

    def compute(node: Node, given: Given, training: bool) -> Any:
        if all(value is None or isinstance(value, np.ndarray) for value in given):
            return on_arrays(node, given)
        if on_tensors is None:
            raise node.refuse("is computed for sizes and constants alone, its inputs depend on the images' values")
        return on_tensors(node, given, training)

    return compute


# ---- activations


def _keeping(function: Callable[[Node, Tensor], Tensor]) -> Function:
    """An operator that treats all elements alike"""
    return lambda node, given, training: Laid(function(node, given[0].tensor), given[0].order)


for _kind, _name in {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hardswish",
    "Silu": "silu",
    "Swish": "silu",
}.items():
    FUNCTIONS[_kind] = _keeping(lambda node, x, name=_name: activate(name, x))  # type: ignore[misc]
for _kind, _operation in {"Exp": F.exp, "Log": F.log, "Sqrt": F.sqrt, "Neg": F.neg}.items():
    FUNCTIONS[_kind] = _keeping(lambda node, x, operation=_operation: operation(x))  # type: ignore[misc]
FUNCTIONS["LeakyRelu"] = _keeping(lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)))
FUNCTIONS["Elu"] = _keeping(lambda node, x: F.elu(x, node.get("alpha", 1.0)))
FUNCTIONS["Gelu"] = _keeping(lambda node, x: F.gelu(x, node.get("approximate", "none")))
FUNCTIONS["Reciprocal"] = _keeping(lambda node, x: F.div(1.0, x))
FUNCTIONS["Abs"] = _keeping(lambda node, x: F.leaky_relu(x, -1.0))


@reader("HardSigmoid")
def _hard_sigmoid(node: Node, given: Given, training: bool) -> Laid:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    x, order = given[0]
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return Laid(F.hardsigmoid(x), order)
    return Laid(_clipped(F.add(F.mul(x, alpha), beta), 0.0, 1.0), order)


@reader("Clip")
def _clip(node: Node, given: Given, training: bool) -> Laid:
    bounds: list[float | None] = [None, None]
    for i, name in enumerate(("min", "max")):
        bound = given[i + 1] if len(given) > i + 1 else node.get(name)
        bounds[i] = None if bound is None else float(np.asarray(host(node, np.asarray(bound), name)).reshape(()))
    return Laid(_clipped(given[0].tensor, *bounds), given[0].order)


def _clipped(x: Tensor, low: float | None, high: float | None) -> Tensor:
    if low == 0 and high == 6:
        return F.relu6(x)
    if low is not None and low > -np.finfo(np.float32).max:
        x = F.relu(x) if low == 0 else F.add(F.relu(F.sub(x, low)), low)
    if high is not None and high < np.finfo(np.float32).max:
        x = F.sub(high, F.relu(F.sub(high, x)))
    return x


@reader("PRelu")
def _prelu(node: Node, given: Given, training: bool) -> Laid:
    x = given[0]
    below = _arithmetic(F.mul, [Laid(F.neg(F.relu(F.neg(x.tensor))), x.order), given[1]])
    return Laid(F.add(F.relu(x.tensor), array(below, x.order)), x.order)


@reader("Softmax", "LogSoftmax")
def _softmax(node: Node, given: Given, training: bool) -> Laid:
    x = given[0]
    axis = node.get("axis", -1) % len(x.order)
    function = F.softmax if node.kind == "Softmax" else F.log_softmax
    return Laid(function(x.tensor, x.order.index(axis)), x.order)


@reader("Identity")
def _identity(node: Node, given: Given, training: bool) -> Held:
    return given[0]  # type: ignore[no-any-return]


@reader("Dropout")
def _dropout(node: Node, given: Given, training: bool) -> Laid:
    ratio = node.get("ratio", 0.5)
    if len(given) > 1 and given[1] is not None:
        ratio = float(host(node, given[1], "ratio").reshape(()))
    return Laid(F.dropout(given[0].tensor, ratio, training), given[0].order)


@reader("Cast")
def _cast(node: Node, given: Given, training: bool) -> Laid:
    dtype = node.get("to")
    if dtype.kind not in "fV":
        raise node.refuse(f"images become {dtype}; tensors hold floating-point numbers")
    return Laid(F.cast(given[0].tensor, dtype), given[0].order)


# ---- arithmetic


def _arithmetic(operation: Callable[[Any, Any], Tensor], given: Given) -> Laid:
    """Broadcast as NumPy does, in the order of the operand that has most axes and elements."""
    laid = [value for value in given if isinstance(value, Laid)]
    rank = max(len(np.shape(v) if isinstance(v, np.ndarray) else v.order) for v in given)
    full = [value for value in laid if len(value.order) == rank]
    order = max(full, key=lambda v: v.tensor.size).order if full else plain(rank)
    a, b = (_operand(value, order, laid[0].tensor) for value in given)
    return Laid(operation(a, b), order)


def _operand(value: Held, order: Order, other: Tensor) -> Any:
    if isinstance(value, np.ndarray):
        if value.size == 1 and value.ndim <= len(order):
            return float(value.reshape(()))
        value = Laid(like(value, other), plain(value.ndim))
    more = len(order) - len(value.order)
    if more:
        x = array(value)
        value = Laid(F.reshape(x, (1,) * more + x.shape), plain(len(order)))
    return array(value, order)


for _kind, _function in {"Add": F.add, "Sub": F.sub, "Mul": F.mul, "Div": F.div}.items():
    FUNCTIONS[_kind] = lambda node, given, training, function=_function: _arithmetic(function, given)  # type: ignore[misc]


@reader("Sum")
def _sum(node: Node, given: Given, training: bool) -> Held:
    total = given[0]
    for value in given[1:]:
        total = _arithmetic(F.add, [total, value])
    return total  # type: ignore[no-any-return]


@reader("Pow")
def _pow(node: Node, given: Given, training: bool) -> Laid:
    base, exponent = given
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and isinstance(base, Laid):
        power = float(exponent.reshape(()))
        if power == 2:
            return Laid(F.mul(base.tensor, base.tensor), base.order)
        if power == 0.5:
            return Laid(F.sqrt(base.tensor), base.order)
        return Laid(F.pow(base.tensor, power), base.order)
    return _arithmetic(F.pow, given)


# ---- reductions


@reader("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare")
def _reduce(node: Node, given: Given, training: bool) -> Held:
    x: Laid = given[0]
    rank = len(x.order)
    axes = on_host.axes_of(node, given)
    if not axes:
        if node.get("noop_with_empty_axes", 0):
            return x
        axes = list(range(rank))
    axes = sorted(a % rank for a in axes)
    inside = tuple(x.order.index(a) for a in axes)
    keep = bool(node.get("keepdims", 1))
    t = x.tensor
    if node.kind in ("ReduceL2", "ReduceSumSquare"):
        y = F.sum(F.mul(t, t), inside, keep)
        y = F.sqrt(y) if node.kind == "ReduceL2" else y
    elif node.kind == "ReduceMin":
        y = F.neg(F.max(F.neg(t), inside, keep))
    else:
        y = {"ReduceMean": F.mean, "ReduceSum": F.sum, "ReduceMax": F.max}[node.kind](t, inside, keep)
    return Laid(y, x.order if keep else without(x.order, axes))


# ---- shapes


@reader("Shape")
def _shape(node: Node, given: Given, training: bool) -> np.ndarray:
    return np.array(given[0].shape[node.get("start", 0) : node.get("end")], np.int64)


@reader("Size")
def _size(node: Node, given: Given, training: bool) -> np.ndarray:
    return np.array(given[0].tensor.size, np.int64)


@reader("Transpose")
def _transpose(node: Node, given: Given, training: bool) -> Laid:
    x: Laid = given[0]
    perm = node.get("perm") or tuple(reversed(range(len(x.order))))
    return Laid(x.tensor, permuted(x.order, perm))


@reader("Reshape")
def _reshape(node: Node, given: Given, training: bool) -> Laid:
    x: Laid = given[0]
    return in_shape(x, on_host.reshaped(node, x.shape, host(node, given[1], "shape").tolist()))


@reader("Flatten")
def _flatten(node: Node, given: Given, training: bool) -> Laid:
    x: Laid = given[0]
    axis = node.get("axis", 1)
    axis += len(x.order) if axis < 0 else 0
    return in_shape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


def in_shape(x: Laid, shape: tuple[int, ...]) -> Laid:
    """x with another shape. Where N and C stay, channels stay last; else the elements come into ONNX's order, where
    they are not in it."""
    before, rank = x.shape, len(shape)
    images = rank > 2 and len(before) > 2 and shape[:2] == before[:2]
    if images and x.order == channels_last(len(before)):
        return Laid(F.reshape(x.tensor, (shape[0], *shape[2:], shape[1])), channels_last(rank))
    t = x.tensor if same_memory(x.order, before) else array(x)
    if rank == 4 and shape[2:] == (1, 1):  # an image of one pixel
        return Laid(F.reshape(t, (shape[0], 1, 1, shape[1])), channels_last(4))
    return Laid(F.reshape(t, shape), plain(rank))


@reader("Squeeze")
def _squeeze(node: Node, given: Given, training: bool) -> Laid:
    x: Laid = given[0]
    rank, shape = len(x.order), x.shape
    axes = on_host.axes_of(node, given)
    dropped = [a for a in range(rank) if shape[a] == 1] if axes is None else [a % rank for a in axes]
    sizes = [shape[a] for a in x.order if a not in dropped]
    return Laid(F.reshape(x.tensor, tuple(sizes)), without(x.order, dropped))


@reader("Unsqueeze")
def _unsqueeze(node: Node, given: Given, training: bool) -> Laid:
    x: Laid = given[0]
    axes = on_host.axes_of(node, given) or []
    rank = len(x.order) + len(axes)
    added = {a % rank for a in axes}
    old = iter(x.shape)
    return in_shape(x, tuple(1 if a in added else next(old) for a in range(rank)))


@reader("Concat")
def _concat(node: Node, given: Given, training: bool) -> Laid:
    laid = [value for value in given if isinstance(value, Laid)]
    order = max(laid, key=lambda v: v.tensor.size).order
    parts = [array(like_laid(value, laid[0].tensor), order) for value in given]
    return Laid(F.concatenate(parts, order.index(node.get("axis") % len(order))), order)


def like_laid(value: Held, other: Tensor) -> Laid:
    """A constant as a value beside others."""
    return Laid(like(value, other), plain(value.ndim)) if isinstance(value, np.ndarray) else value


@reader("Split")
def _split(node: Node, given: Given, training: bool) -> list[Laid]:
    x: Laid = given[0]
    axis = node.get("axis", 0) % len(x.order)
    sizes = on_host.sizes_of(node, given, x.shape[axis], len(node.outputs))
    return [Laid(part, x.order) for part in F.split(x.tensor, sizes, x.order.index(axis))]


@reader("Slice")
def _slice(node: Node, given: Given, training: bool) -> Laid:
    x: Laid = given[0]
    key = on_host.slices(node, [None, *(v if v is None else host(node, v, "a bound") for v in given[1:])], len(x.order))
    return Laid(F.index(x.tensor, tuple(key[a] for a in x.order)), x.order)


@reader("Gather")
def _gather(node: Node, given: Given, training: bool) -> Laid:
    x, indices = given[0], host(node, given[1], "an index")
    axis = node.get("axis", 0) % len(x.order)
    if not indices.ndim:
        key: list[Any] = [slice(None)] * len(x.order)
        key[x.order.index(axis)] = int(indices)
        return Laid(F.index(x.tensor, tuple(key)), without(x.order, [axis]))
    index = np.where(indices < 0, indices + x.shape[axis], indices)
    return Laid(F.index(array(x), (slice(None),) * axis + (index,)), plain(len(x.order) + indices.ndim - 1))


@reader("Expand")
def _expand(node: Node, given: Given, training: bool) -> Laid:
    x: Laid = given[0]
    shape = np.broadcast_shapes(x.shape, tuple(host(node, given[1], "shape").tolist()))
    if shape == x.shape:
        return x
    return _arithmetic(F.add, [x, Laid(like(np.zeros(shape), x.tensor), plain(len(shape)))])


@reader("Pad")
def _pad(node: Node, given: Given, training: bool) -> Laid:
    x: Laid = given[0]
    mode = node.get("mode", "constant")
    pads = node.get("pads") if len(given) < 2 else host(node, given[1], "pads").tolist()
    value = 0.0
    if len(given) > 2 and given[2] is not None:
        value = float(host(node, given[2], "the padding's value").reshape(()))
    if mode != "constant" or min(pads) < 0 or (len(given) > 3 and given[3] is not None):
        raise node.refuse(f"mode {mode!r}, pads {pads}; expected constant, at least 0, of all axes")
    rank = len(x.order)
    return Laid(F.pad(x.tensor, [(int(pads[a]), int(pads[a + rank])) for a in x.order], value), x.order)
