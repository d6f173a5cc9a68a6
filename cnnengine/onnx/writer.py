"""An ONNX graph under construction: names, weights, and values whose axes may lie in another order than here.

A value's axes are named as in the engine, images N, H, W, C; ONNX's operators on images want arrays N, C, H, W. Each
value remembers the order of the array that holds it (see ``order``), transpositions are made only where an operator
needs another order than there is, and each at most once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.contract import PackedWeight
from ..errors import Unsupported
from ..tensor import Tensor, wrap
from ._library import library
from .order import Order, path, plain, shape_of
from .trace import Trace

OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Value:
    """What a node makes, or the input: its array's name, its shape, which sizes vary with the batch, its order."""

    name: str
    shape: tuple[int, ...]
    varies: tuple[bool, ...]
    order: Order


@dataclass(frozen=True, slots=True)
class Constant:
    """A weight, or a number; ``name`` is a weight's in the state dict."""

    array: np.ndarray
    name: str | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


Operand = Value | Constant


class Writer:
    """Nodes and weights of one graph, from two traces of the same module on batches of different size."""

    def __init__(self, weights: Mapping[int, str], first: Trace, second: Trace) -> None:
        self.onnx = library()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.inputs: list[Any] = []
        self._weights = weights  # the name of a parameter's array, by its id
        self._first, self._second = first, second
        self._values: dict[int, Value] = {}  # by the id of the array that the first trace holds
        self._taken: set[str] = set()
        self._written: dict[Any, str] = {}  # constants and transposed arrays that are there already
        self._counts: dict[str, int] = {}
        self._named: set[str] = set()  # initializers that are weights
        self._batch: tuple[str, int] | None = None  # the graph's input and the first trace's batch

    # ---- values

    def begin(self, first: Tensor, second: Tensor, name: str, order: Order, batch: str | None) -> None:
        """Declares the graph's input."""
        shape = first.shape
        varies = tuple(a != b for a, b in zip(shape, second.shape, strict=True))
        value = Value(self.fresh(name), shape, varies, order)
        self._values[id(first.data)] = value
        sizes: list[Any] = list(shape_of(order, shape))
        if batch is not None:
            sizes[order.index(0)] = batch
        self.inputs.append(self.onnx.helper.make_tensor_value_info(value.name, self.kind(first.dtype), sizes))
        self._batch = (value.name, shape[0])

    def knows(self, tensor: Any) -> bool:
        """Whether it is, or holds, something that depends on the input."""
        if isinstance(tensor, list | tuple):
            return any(map(self.knows, tensor))
        return isinstance(tensor, Tensor) and id(tensor.data) in self._values

    def concerns(self, argument: Any) -> bool:
        """Whether it depends on the input, or is a weight, or holds one of these: what is computed from them is
        written, so that weights can be trained where the file is read."""
        if isinstance(argument, list | tuple):
            return any(map(self.concerns, argument))
        return isinstance(argument, Tensor) and (
            id(argument.data) in self._values or id(argument.data) in self._weights
        )

    def value(self, tensor: Tensor) -> Value:
        return self._values[id(tensor.data)]

    def operand(self, operation: str, given: Any, twin: Any) -> Operand:
        """An argument of the first trace and the same one of the second: a value, or a constant that is equal in
        both. Raises Unsupported for a tensor that came from the input some other way."""
        if isinstance(given, PackedWeight):
            given, twin = wrap(given.w), wrap(twin.w)
        if self.knows(given):
            return self.value(given)
        a, b = (np.asarray(t.numpy() if isinstance(t, Tensor) else t) for t in (given, twin))
        name = self._weights.get(id(given.data)) if isinstance(given, Tensor) else None
        if name is None and not (a is b or (a.shape == b.shape and np.array_equal(a, b, equal_nan=True))):
            repeated = self._repeated(a, b)
            if repeated is not None:
                return repeated
            raise Unsupported(
                f"onnx.export: an operand of {operation}, shape {a.shape}, depends on the input but was"
                f" {self.origin(given)}"
            )
        return Constant(a, name)

    def origin(self, given: Any) -> str:
        """Who made a tensor that no rule did."""
        name = self._first.others.get(id(given.data)) if isinstance(given, Tensor) else None
        return f"made by F.{name}, which has no counterpart" if name else "made outside cnnengine.functional"

    def _repeated(self, a: np.ndarray, b: np.ndarray) -> Value | None:
        """A constant of one row for each image, all of them equal, as a value."""
        axes = [i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=False)) if m != n]
        if a.ndim != b.ndim or len(axes) != 1 or self._batch is None:
            return None
        axis = axes[0]
        row = a.take([0], axis)
        if not (np.array_equal(np.broadcast_to(row, a.shape), a) and np.array_equal(row, b.take([0], axis))):
            return None
        input_name, batch = self._batch
        if a.shape[axis] % batch:
            return None
        size = self.node("Gather", [self.node("Shape", [input_name]), self.integers([0])], axis=0)
        if a.shape[axis] != batch:
            size = self.node("Mul", [size, self.integers([a.shape[axis] // batch])])
        sizes = [self.integers([n]) if i != axis else size for i, n in enumerate(a.shape)]
        name = self.node("Expand", [self.constant(row), self.node("Concat", sizes, axis=0)])
        return Value(name, a.shape, tuple(i == axis for i in range(a.ndim)), plain(a.ndim))

    def put(self, tensor: Tensor, other: Tensor, name: str, order: Order | None = None) -> None:
        """A tensor of the first trace, another in the second, is the array of that name."""
        varies = tuple(a != b for a, b in zip(tensor.shape, other.shape, strict=True))
        self._values[id(tensor.data)] = Value(name, tensor.shape, varies, order or plain(tensor.ndim))

    # ---- arrays

    def array(self, operand: Operand, order: Order | None = None) -> str:
        """The name of the operand's array in that order; None is the plain one."""
        order = order or plain(len(operand.shape))
        if isinstance(operand, Constant):
            return self.constant(operand.array.transpose(order), operand.name)
        if operand.order == order:
            return operand.name
        perm = path(operand.order, order)
        key = (operand.name, perm)
        if key not in self._written:
            self._written[key] = self.node("Transpose", [operand.name], perm=perm)
        return self._written[key]

    def constant(self, array: np.ndarray, name: str | None = None) -> str:
        """The name of a weight, which is an initializer, or of numbers without a name; equal ones are one. Numbers that
        could be taken for a weight are made by a node."""
        array = np.array(array, order="C")
        key = ("named", name, array.shape, array.dtype.str) if name else (array.tobytes(), array.shape, array.dtype.str)
        if key not in self._written:
            fresh = self.fresh(name or "constant")
            held = self.onnx.numpy_helper.from_array(array, fresh)
            if name is None and array.size > 1 and array.dtype.kind not in "iub":
                self.nodes.append(self.onnx.helper.make_node("Constant", [], [fresh], name=fresh, value=held))
            else:
                self.initializers.append(held)
                self._named |= {fresh} if name else set()
            self._written[key] = fresh
        return self._written[key]

    def integers(self, values: Iterable[int]) -> str:
        return self.constant(np.array(list(values), np.int64))

    def number(self, value: float, dtype: Any) -> str:
        return self.constant(np.array(value, dtype))

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node and returns the name of its result; it is called after its weight where it has one."""
        module = next((i.rpartition(".")[0] for i in inputs if i in self._named), "")
        name = self.fresh(module or kind, numbered=not module)
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def nodes_of(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Adds a node of several results."""
        names = [self.fresh(kind, numbered=True) for _ in range(count)]
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names

    def fresh(self, wanted: str, numbered: bool = False) -> str:
        """A name that nothing has yet."""
        name = wanted
        while numbered or name in self._taken:
            self._counts[wanted] = self._counts.get(wanted, 0) + 1
            name, numbered = f"{wanted}_{self._counts[wanted]}", False
        self._taken.add(name)
        return name

    def rename(self, old: str, new: str) -> None:
        """Gives the result of a node the name it has outside."""
        self._taken.add(new)
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [new if n == old else n for n in names]
        self._values = {
            key: Value(new, v.shape, v.varies, v.order) if v.name == old else v for key, v in self._values.items()
        }
        self._written = {key: new if name == old else name for key, name in self._written.items()}

    def kind(self, dtype: Any) -> int:
        """ONNX's number for a dtype."""
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
