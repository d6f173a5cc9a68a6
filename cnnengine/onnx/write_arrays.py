"""Rules for arithmetic, reductions and changes of shape: they work in whatever order their operand's array has."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..errors import Unsupported
from ..functional.activation import activate
from ..functional.binary import add, div, exp, log, mul, neg, pow, sqrt, sub
from ..functional.layout import cast, concatenate, flatten, index, permute, reshape
from ..functional.reduce import max as largest
from ..functional.reduce import mean
from ..functional.reduce import sum as total
from ..functional.softmax_cross_entropy import log_softmax, softmax
from ..functional.split import pad, split
from .order import Order, channels_second, path, permuted, plain, same_memory, without
from .rules import Context, activated, rule
from .writer import Constant, Operand, Value

NCHW = channels_second(4)
LAST = np.iinfo(np.int64).max  # the end of an axis, whatever its size


@rule(activate)
def _activate(c: Context) -> None:
    x = c.value("x")
    c.done(activated(c, x.name, c.argument("kind"), c.argument("parameter")), x.order)


@rule(neg, exp, log, sqrt)
def _unary(c: Context) -> None:
    x = c.value("x")
    c.done(c.writer.node(c.call.name.capitalize(), [x.name]), x.order)


@rule(add, sub, mul, div, pow)
def _binary(c: Context) -> None:
    a, b = (_number(c, name) for name in ("a", "b"))
    rank = c.call.result.ndim
    values = [v for v in (a, b) if isinstance(v, Value) and len(v.shape) == rank]
    order = max(values, key=lambda v: np.prod(v.shape)).order if values else plain(rank)
    names = [_broadcast(c, operand, order) for operand in (a, b)]
    c.done(c.writer.node(c.call.name.capitalize(), names), order)


def _number(c: Context, name: str) -> Operand:
    """An operand; a Python number takes the result's dtype"""
    operand = c.operand(name)
    if isinstance(operand, Constant) and operand.array.dtype != c.dtype:
        return Constant(operand.array.astype(c.dtype), operand.name)
    return operand


def _broadcast(c: Context, operand: Operand, order: Order) -> str:
    """The array of an operand that is broadcast to the order's rank"""
    more = len(order) - len(operand.shape)
    if isinstance(operand, Constant):
        if operand.array.size == 1:
            return c.writer.constant(operand.array.reshape(()), operand.name)
        array = operand.array.reshape((1,) * more + operand.shape).transpose(order)
        while array.ndim > 1 and array.shape[0] == 1:
            array = array[0]
        return c.writer.constant(array, operand.name)
    if not more:
        return c.writer.array(operand, order)
    if order == plain(len(order)):
        return c.writer.array(operand)
    name = c.writer.node("Unsqueeze", [c.writer.array(operand), c.writer.integers(range(more))])
    shape, varies = (1,) * more + operand.shape, (False,) * more + operand.varies
    return c.writer.array(Value(name, shape, varies, plain(len(order))), order)


@rule(total, mean, largest)
def _reduce(c: Context) -> None:
    x, axis, keep = c.value("x"), c.argument("axis"), bool(c.argument("keepdims"))
    rank = len(x.shape)
    given = range(rank) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    axes = sorted(operator.index(a) % rank for a in given)
    inside = [x.order.index(a) for a in axes]
    if c.call.name == "sum":
        y = c.writer.node("ReduceSum", [x.name, c.writer.integers(inside)], keepdims=int(keep))
    else:
        y = c.writer.node("ReduceMean" if c.call.name == "mean" else "ReduceMax", [x.name], axes=inside, keepdims=keep)
    c.done(y, x.order if keep else without(x.order, axes))


@rule(softmax, log_softmax)
def _softmax(c: Context) -> None:
    x = c.value("x")
    axis = x.order.index(c.argument("axis") % len(x.shape))
    c.done(c.writer.node("Softmax" if c.call.name == "softmax" else "LogSoftmax", [x.name], axis=axis), x.order)


@rule(reshape, flatten)
def _reshape(c: Context) -> None:
    reshaped(c, c.value("x"))


def reshaped(c: Context, x: Value) -> None:
    """x in the shape of the call's result: moved into the plain order only where its elements do not lie so already"""
    shape, other = c.call.result.shape, c.twin.result.shape
    varies = [m != n for m, n in zip(shape, other, strict=True)]
    if sum(varies) > 1:
        raise Unsupported(
            f"onnx.export: {c.call.name} from {x.shape} to {shape} has several sizes that vary with the batch; export"
            " with dynamic_batch=False"
        )
    name = x.name if same_memory(x.order, _sizes(x)) else c.writer.array(x)
    order = plain(len(shape))
    if len(shape) == 4 and shape[1:3] == (1, 1):  # an image of one pixel, which is the same either way
        order = NCHW
    sizes = [-1 if varies[a] else shape[a] for a in order]
    c.done(c.writer.node("Reshape", [name, c.writer.integers(sizes)]), order)


def _sizes(x: Value) -> tuple[int, ...]:
    """x's shape, an axis that varies being longer than 1"""
    return tuple(2 if varies else n for n, varies in zip(x.shape, x.varies, strict=True))


@rule(permute)
def _permute(c: Context) -> None:
    x, rank = c.value("x"), len(c.call.result.shape)
    axes = [operator.index(a) % rank for a in c.argument("axes")]
    c.done(x.name, permuted(x.order, axes))


@rule(cast)
def _cast(c: Context) -> None:
    x = c.value("x")
    c.done(c.writer.node("Cast", [x.name], to=c.writer.kind(c.dtype)), x.order)


@rule(concatenate)
def _concatenate(c: Context) -> None:
    given = zip(c.call.arguments["tensors"], c.twin.arguments["tensors"], strict=True)
    parts = [c.writer.operand("concatenate", a, b) for a, b in given]
    order = next(part.order for part in parts if isinstance(part, Value))
    axis = c.argument("axis") % len(order)
    c.done(c.writer.node("Concat", [c.writer.array(part, order) for part in parts], axis=order.index(axis)), order)


@rule(split)
def _split(c: Context) -> None:
    x, rank = c.value("x"), len(c.value("x").shape)
    axis = c.argument("axis") % rank
    if x.varies[axis]:
        raise Unsupported("onnx.export: split of the axis that varies with the batch")
    sizes = [part.shape[axis] for part in c.call.result]
    names = c.writer.nodes_of("Split", [x.name, c.writer.integers(sizes)], len(sizes), axis=x.order.index(axis))
    for part, twin, name in zip(c.call.result, c.twin.result, names, strict=True):
        c.writer.put(part, twin, name, x.order)


@rule(pad)
def _pad(c: Context) -> None:
    x, widths = c.value("x"), [tuple(pair) for pair in c.argument("widths")]
    sizes = [widths[a][side] for side in (0, 1) for a in x.order]
    value = c.writer.number(c.argument("value"), c.dtype)
    c.done(c.writer.node("Pad", [x.name, c.writer.integers(sizes), value], mode="constant"), x.order)


@rule(index)
def _index(c: Context) -> None:
    x = c.value("x")
    key, twin = (_expanded(call.arguments["key"], len(x.shape)) for call in (c.call, c.twin))
    if any(isinstance(part, np.ndarray | list) for part in key):
        _gather(c, x, key, twin)
        return
    bounds: list[tuple[int, int, int, int]] = []  # start, end, axis of the array, step
    dropped: list[int] = []
    added: list[int] = []
    name, axis = x.name, 0
    for place, (part, other) in enumerate(zip(key, twin, strict=True)):
        if part is None:
            added.append(place - sum(isinstance(p, int | np.integer) for p in key[:place]))
            continue
        n = x.shape[axis]
        if isinstance(part, slice):
            if part == slice(None) or (part.indices(n) == (0, n, 1) and part.stop in (None, n) and x.varies[axis]):
                axis += 1
                continue
            start, stop, step = part.indices(n)
            if x.varies[axis] or part != other or step < 1:
                raise Unsupported(f"onnx.export: index {part} of an axis that varies with the batch, or backwards")
        elif isinstance(part, int | np.integer):
            if part < 0 and x.varies[axis]:
                raise Unsupported(f"onnx.export: index {part} of an axis that varies with the batch")
            start, step = int(part) % n, 1
            stop = start + 1
            dropped.append(axis)
        else:
            raise Unsupported(f"onnx.export: an index of type {type(part).__name__}")
        bounds.append((start, stop, x.order.index(axis), step))
        axis += 1
    writer = c.writer
    if bounds:
        name = writer.node("Slice", [name, *map(writer.integers, zip(*bounds, strict=True))])
    order = x.order
    if dropped:
        name = writer.node("Squeeze", [name, writer.integers([order.index(a) for a in dropped])])
        order = without(order, dropped)
    if added:
        rest = plain(len(order))
        if order != rest:
            name, order = writer.node("Transpose", [name], perm=path(order, rest)), rest
        name = writer.node("Unsqueeze", [name, writer.integers(added)])
        order = plain(c.call.result.ndim)
    c.done(name, order)


def _gather(c: Context, x: Value, key: list[Any], twin: list[Any]) -> None:
    """Along one axis, by an array of integers"""
    places = [i for i, part in enumerate(key) if not (isinstance(part, slice) and part == slice(None))]
    wanted = np.asarray(key[places[0]])
    if len(places) > 1 or wanted.dtype.kind not in "iu" or not np.array_equal(wanted, np.asarray(twin[places[0]])):
        raise Unsupported("onnx.export: an index by arrays, other than by one of integers that are always the same")
    indices = c.writer.constant(wanted.astype(np.int64) % x.shape[places[0]])
    c.done(c.writer.node("Gather", [c.writer.array(x), indices], axis=places[0]))


def _expanded(key: Any, rank: int) -> list[Any]:
    """The key with a slice for every axis that it leaves out"""
    parts = list(key) if isinstance(key, tuple) else [key]
    missing = rank - sum(part is not None and part is not Ellipsis for part in parts)
    place = next((i for i, part in enumerate(parts) if part is Ellipsis), None)
    if place is None:
        return parts + [slice(None)] * missing
    return parts[:place] + [slice(None)] * missing + parts[place + 1 :]
