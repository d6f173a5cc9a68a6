"""Operators on sizes, indices and constants: NumPy computes them, once when a file is read or at each call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .network import Node

Arrays = Sequence[Any]


def axes_of(node: Node, given: Arrays, at: int = 1) -> list[int] | None:
    """``axes``, an input since opset 13 or 18 and an attribute before."""
    if len(given) > at and given[at] is not None:
        return [int(a) for a in given[at]]
    axes = node.get("axes")
    return None if axes is None else [int(a) for a in axes]


def _squeeze(node: Node, given: Arrays) -> np.ndarray:
    axes = axes_of(node, given)
    return np.asarray(np.squeeze(given[0], None if axes is None else tuple(axes)))


def _unsqueeze(node: Node, given: Arrays) -> np.ndarray:
    return np.asarray(np.expand_dims(given[0], tuple(axes_of(node, given) or ())))


def slices(node: Node, given: Arrays, rank: int) -> list[slice]:
    """One slice an axis: starts, ends, axes and steps are inputs."""
    starts, ends = given[1], given[2]
    axes = given[3] if len(given) > 3 and given[3] is not None else range(len(starts))
    steps = given[4] if len(given) > 4 and given[4] is not None else [1] * len(starts)
    key = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop: int | None = int(end)
        if step < 0 and end < -(2**31):  # "to the beginning" is a very small number
            stop = None
        key[int(axis)] = slice(int(start), stop, int(step))
    return key


def sizes_of(node: Node, given: Arrays, length: int, outputs: int) -> list[int]:
    """The sizes of Split."""
    if len(given) > 1 and given[1] is not None:
        return [int(n) for n in given[1]]
    if node.get("split") is not None:
        return [int(n) for n in node.get("split")]
    size = -(-length // outputs)
    return [min(size, length - i * size) for i in range(outputs)]


def reshaped(node: Node, shape: Sequence[int], wanted: Any) -> tuple[int, ...]:
    """The shape that Reshape asks for: 0 keeps a size, -1 takes the rest."""
    keep = not node.get("allowzero", 0)
    sizes = [shape[i] if n == 0 and keep else int(n) for i, n in enumerate(wanted)]
    if -1 in sizes:
        sizes[sizes.index(-1)] = prod(shape) // max(prod(n for n in sizes if n != -1), 1)
    return tuple(sizes)


def _split(node: Node, given: Arrays) -> list[np.ndarray]:
    axis = node.get("axis", 0)
    sizes = sizes_of(node, given, given[0].shape[axis], len(node.outputs))
    return np.split(given[0], np.cumsum(sizes)[:-1], axis)


def _divided(node: Node, given: Arrays) -> np.ndarray:
    a, b = given
    if a.dtype.kind in "iu":
        return np.asarray(np.trunc(np.true_divide(a, b))).astype(a.dtype)
    return np.asarray(a / b)


def _constant_of_shape(node: Node, given: Arrays) -> np.ndarray:
    value = node.get("value")
    value = np.zeros(1, np.float32) if value is None else value
    return np.full(tuple(int(n) for n in given[0]), value.reshape(-1)[0], value.dtype)


def _reduced(function: Callable[..., Any]) -> Callable[[Node, Arrays], np.ndarray]:
    def reduce(node: Node, given: Arrays) -> np.ndarray:
        axes = axes_of(node, given)
        if not axes and node.get("noop_with_empty_axes", 0):
            return np.asarray(given[0])
        made = function(given[0], axis=tuple(axes) if axes else None, keepdims=bool(node.get("keepdims", 1)))
        return np.asarray(made)

    return reduce


def _elementwise(function: Callable[..., Any]) -> Callable[[Node, Arrays], np.ndarray]:
    return lambda node, given: np.asarray(function(*given))


HOST: dict[str, Callable[[Any, Arrays], Any]] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": lambda node, given: given[0].astype(node.get("to")),
    "Ceil": _elementwise(np.ceil),
    "Concat": lambda node, given: np.concatenate(given, node.get("axis")),
    "ConstantOfShape": _constant_of_shape,
    "Div": _divided,
    "Equal": _elementwise(np.equal),
    "Exp": _elementwise(np.exp),
    "Expand": lambda node, given: given[0] * np.ones([int(n) for n in given[1]], given[0].dtype),
    "Floor": _elementwise(np.floor),
    "Gather": lambda node, given: np.asarray(np.take(given[0], given[1], node.get("axis", 0))),
    "Greater": _elementwise(np.greater),
    "Identity": lambda node, given: given[0],
    "Less": _elementwise(np.less),
    "Max": lambda node, given: np.asarray(np.maximum.reduce(given)),
    "Min": lambda node, given: np.asarray(np.minimum.reduce(given)),
    "Mod": _elementwise(np.mod),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pow": lambda node, given: np.power(given[0], given[1]).astype(given[0].dtype),
    "Range": lambda node, given: np.arange(*(v.item() for v in given), dtype=given[0].dtype),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Reshape": lambda node, given: given[0].reshape(reshaped(node, given[0].shape, given[1])),
    "Shape": lambda node, given: np.array(given[0].shape[node.get("start", 0) : node.get("end")], np.int64),
    "Size": lambda node, given: np.array(given[0].size, np.int64),
    "Slice": lambda node, given: given[0][tuple(slices(node, given, given[0].ndim))],
    "Split": _split,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Tile": lambda node, given: np.tile(given[0], [int(n) for n in given[1]]),
    "Transpose": lambda node, given: np.transpose(given[0], node.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(np.where),
}
