"""Which ONNX nodes stand for a function of ``cnnengine.functional``: one rule each, collected here by decoration."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from types import CodeType
from typing import Any

import numpy as np

from ..errors import Unsupported
from .order import plain
from .trace import Call
from .writer import Constant, Operand, Value, Writer


class Context:
    """A call in both traces, and the graph its nodes go to."""

    def __init__(self, writer: Writer, call: Call, twin: Call) -> None:
        self.writer, self.call, self.twin = writer, call, twin

    def argument(self, name: str) -> Any:
        """As it was passed. Raises Unsupported where it depends on the batch."""
        value, other = self.call.arguments[name], self.twin.arguments[name]
        if value != other:
            raise Unsupported(
                f"onnx.export: {name} of {self.call.name} depends on the batch ({value!r} and {other!r} for batches of"
                " one image's difference); export with dynamic_batch=False"
            )
        return value

    def operand(self, name: str) -> Operand:
        """A tensor among the arguments."""
        return self.writer.operand(self.call.name, self.call.arguments[name], self.twin.arguments[name])

    def optional(self, name: str) -> Operand | None:
        return None if self.call.arguments[name] is None else self.operand(name)

    def value(self, name: str) -> Value:
        """A tensor as a value, a constant under the name it has in the file."""
        operand = self.operand(name)
        if isinstance(operand, Value):
            return operand
        order = plain(len(operand.shape))
        return Value(self.writer.array(operand, order), operand.shape, (False,) * len(order), order)

    def beside(self, name: str, axes: int) -> str:
        """The array (K, 1, ...) of one number a channel, to go with (N, K, ...) of that many axes more."""
        operand = self.operand(name)
        if isinstance(operand, Constant):
            return self.writer.constant(operand.array.reshape(-1, *(1,) * axes), operand.name)
        return self.writer.node("Unsqueeze", [self.writer.array(operand), self.writer.integers(range(1, axes + 1))])

    @property
    def dtype(self) -> Any:
        return self.call.result.dtype

    def done(self, name: str, order: tuple[int, ...] | None = None) -> None:
        """The call's result is that array."""
        self.writer.put(self.call.result, self.twin.result, name, order)


Rule = Callable[[Context], None]
RULES: dict[str, Rule] = {}
FUNCTIONS: dict[CodeType, Callable[..., Any]] = {}


def rule(*functions: Callable[..., Any]) -> Callable[[Rule], Rule]:
    """Decorates what writes the nodes of these functions."""

    def decorate(write: Rule) -> Rule:
        for function in functions:
            RULES[function.__name__] = write
            FUNCTIONS[function.__code__] = function
        return write

    return decorate


def activated(context: Context, name: str, kind: str | None, parameter: float | None = None) -> str:
    """The array behind an activation of the contract's ACTIVATIONS."""
    node, number = context.writer.node, context.writer.number
    dtype = context.dtype
    if kind in (None, "identity"):
        return name
    if kind in ("relu", "sigmoid", "tanh"):
        return node(kind.capitalize(), [name])
    if kind == "relu6":
        return node("Clip", [name, number(0, dtype), number(6, dtype)])
    if kind == "leaky_relu":
        return node("LeakyRelu", [name], alpha=0.01 if parameter is None else float(parameter))
    if kind == "elu":
        return node("Elu", [name], alpha=1.0 if parameter is None else float(parameter))
    if kind == "hardsigmoid":
        return node("HardSigmoid", [name], alpha=1 / 6, beta=0.5)
    if kind == "hardswish":
        return node("HardSwish", [name])
    if kind == "silu":
        return node("Mul", [name, node("Sigmoid", [name])])
    if kind == "gelu":
        erf = node("Erf", [node("Div", [name, number(sqrt(2), dtype)])])
        both = node("Mul", [name, node("Add", [erf, number(1, dtype)])])
        return node("Mul", [both, number(0.5, dtype)])
    if kind == "gelu_tanh":
        cube = node("Mul", [node("Mul", [node("Mul", [name, name]), name]), number(0.044715, dtype)])
        bent = node("Tanh", [node("Mul", [node("Add", [name, cube]), number(sqrt(2 / np.pi), dtype)])])
        return node("Mul", [node("Mul", [name, node("Add", [bent, number(1, dtype)])]), number(0.5, dtype)])
    raise Unsupported(f"onnx.export: the activation {kind!r} has no counterpart")
