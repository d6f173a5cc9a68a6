"""A network read from an ONNX file: its nodes in order, over weights that can be trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..backends.registry import active_on
from ..errors import Unsupported
from ..nn import Module
from ..tensor import Tensor
from .order import Order, channels_last, path, plain, same_memory, shape_of


class Laid(NamedTuple):
    """A value of the network: an array, axis i of which is axis ``order[i]`` of the value as ONNX names them."""

    tensor: Tensor
    order: Order

    @property
    def shape(self) -> tuple[int, ...]:
        """As ONNX names the axes"""
        sizes = self.tensor.shape
        return tuple(sizes[self.order.index(axis)] for axis in range(len(sizes)))


Held = Laid | np.ndarray  # sizes, indices and single numbers are NumPy's, and computed there
Function = Callable[["Node", Sequence[Any], bool], Any]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: what computes it, the names of what it reads and makes, and what may be forgotten after it."""

    kind: str
    name: str
    function: Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    last: tuple[str, ...] = ()

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def refuse(self, why: str) -> Unsupported:
        return Unsupported(f"onnx.load: {self.kind} {self.name!r}: {why}")


@dataclass(frozen=True, slots=True)
class Weight:
    """Where a named array of the file is in the module, and in what order."""

    owner: Module
    attribute: str
    order: Order

    def laid(self) -> Laid:
        return Laid(getattr(self.owner, self.attribute), self.order)


class Network(Module):
    """What ``onnx.load`` returns: called with the file's inputs in their order, 4-D ones (N, H, W, C) where the file
    has (N, C, H, W), it returns its outputs likewise, one or a tuple.

    Weights are parameters under the names they have in the file, running statistics buffers. ``describe()`` lists the
    nodes.
    """

    def __init__(self, nodes: Sequence[Node], inputs: Mapping[str, Order], outputs: Mapping[str, bool]) -> None:
        """inputs: the order of each input's array; outputs: whether a 4-D one is given channels last"""
        super().__init__()
        self._nodes = tuple(nodes)
        self._inputs, self._outputs = dict(inputs), dict(outputs)
        self._weights: dict[str, Weight] = {}
        self._constants: dict[str, np.ndarray] = {}

    def forward(self, *inputs: Tensor) -> Any:
        if len(inputs) != len(self._inputs):
            raise ValueError(f"this network takes {', '.join(self._inputs)}; received {len(inputs)} inputs")
        values: dict[str, Any] = {"": None}
        for (name, order), x in zip(self._inputs.items(), inputs, strict=True):
            if x.ndim != len(order):
                raise ValueError(f"input {name} must have {len(order)} axes, received {x.shape}")
            values[name] = Laid(x, order)
        weights, constants, training = self._weights, self._constants, self.training
        for node in self._nodes:
            given: list[Any] = []
            for name in node.inputs:
                if name in weights:
                    given.append(weights[name].laid())
                else:
                    given.append(constants[name] if name in constants else values[name])
            made = node.function(node, given, training)
            values.update(zip(node.outputs, made if type(made) is list else (made,), strict=False))
            for name in node.last:
                values.pop(name, None)
        results = [self._output(name, values) for name in self._outputs]
        return results[0] if len(results) == 1 else tuple(results)

    def _output(self, name: str, values: Mapping[str, Any]) -> Tensor:
        value = values[name] if name in values else self._weights[name].laid()
        rank = len(value.shape)
        return array(value, channels_last(rank) if rank == 4 and self._outputs[name] else plain(rank))

    def describe(self) -> str:
        """One line a node: its kind, its name, what it reads and makes."""
        return "\n".join(f"{n.kind:24s} {', '.join(n.inputs)} -> {', '.join(n.outputs)}" for n in self._nodes)

    def extra_repr(self) -> str:
        return f"{len(self._nodes)} nodes, {', '.join(self._inputs)} -> {', '.join(self._outputs)}"


def array(value: Held, order: Order | None = None) -> Tensor:
    """The tensor that holds a value in an order (None: as ONNX names the axes), moved only where it has to be."""
    if isinstance(value, np.ndarray):
        value = Laid(Tensor(value), plain(value.ndim))
    order = order or plain(len(value.order))
    if value.order == order:
        return value.tensor
    shape = value.shape
    if same_memory(value.order, shape, order):
        return F.reshape(value.tensor, shape_of(order, shape))
    return F.permute(value.tensor, path(value.order, order))


def like(value: np.ndarray, other: Tensor) -> Tensor:
    """An array on another tensor's device in its dtype."""
    return Tensor(active_on(other.device).to_device(np.ascontiguousarray(value, other.dtype)))


def host(node: Node, value: Any, what: str) -> np.ndarray:
    """Numbers that must be known apart from the images. Raises Unsupported."""
    if not isinstance(value, np.ndarray):
        raise node.refuse(f"{what} depends on the images' values; only sizes can be computed with")
    return value
