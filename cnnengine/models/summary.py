"""What a model is made of: each layer's output, parameters, multiply-adds and memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from ..autograd import no_grad
from ..backends.counting import CountingBackend
from ..backends.registry import using
from ..nn import LocalResponseNorm, Module
from ..tensor import Tensor

UNCOUNTED = (LocalResponseNorm,)  # published counts leave out how neighbouring channels are summed


@dataclass(frozen=True, slots=True)
class Row:
    """A layer: its dotted name, its class, the shape of its last result (None: it was not called, or gave no tensor),
    and what it has and does by itself, without the layers in it."""

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    macs: int
    activations: int  # bytes of all results of its operations


@dataclass(frozen=True, slots=True)
class Summary:
    """The layers of a model for inputs of ``input``, and their totals; ``str`` makes the table."""

    model: str
    input: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: int
    parameter_bytes: int

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and matrix products; all else is left out, as in published counts."""
        return sum(row.macs for row in self.rows)

    @property
    def activations(self) -> int:
        """Bytes of all results, as if each operation's were kept."""
        return sum(row.activations for row in self.rows)

    def __str__(self) -> str:
        head = ("layer", "type", "output", "parameters", "MACs", "memory")
        table = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = [_line(line, widths) for line in table]
        rule = "-" * max(map(len, lines))
        return "\n".join(
            [
                f"{self.model} {self.input}",
                lines[0],
                rule,
                *lines[1:],
                rule,
                f"parameters   {self.parameters:,} ({_kilobytes(self.parameter_bytes)})",
                f"MACs         {self.macs:,} ({self.macs / 1e9:.3f} G)",
                f"activations  {_kilobytes(self.activations)}",
            ]
        )


def summary(model: Module, shape: tuple[int, ...]) -> Summary:
    """The table of ``model`` for float32 inputs of ``shape``, such as (1, 224, 224, 3), in evaluation.

    Nothing is computed and the model is not changed: a copy without values runs, every layer by itself, and what it
    asks of a backend is counted. Layers are those that have no layers in them, and those that have parameters or
    operations of their own beside them. Raises ValueError as the model does for a shape that does not fit.
    """
    backend = CountingBackend()
    blank = _without_values(model).eval()
    names = {id(module): name for name, module in blank.named_modules()}
    own = {name: [0, 0] for name in names.values()}  # MACs and bytes
    outputs: dict[str, tuple[int, ...]] = {}
    running: list[tuple[str, int, int]] = []  # the layers under way: name, and what had been counted when each began

    def settle() -> None:
        """What was counted since belongs to the innermost layer"""
        if running:
            name, macs, allocated = running[-1]
            own[name][0] += backend.macs - macs
            own[name][1] += backend.allocated - allocated

    def count_on() -> None:
        if running:
            running[-1] = (running[-1][0], backend.macs, backend.allocated)

    def enter(module: Module, inputs: tuple[Any, ...]) -> None:
        settle()
        running.append((names[id(module)], backend.macs, backend.allocated))

    def leave(module: Module, inputs: tuple[Any, ...], output: Any) -> None:
        settle()
        running.pop()
        count_on()
        if isinstance(output, Tensor):
            outputs[names[id(module)]] = output.shape

    for module in blank.modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    with using(backend), no_grad():
        blank(Tensor(backend.empty(tuple(shape), "float32")))

    rows = []
    for name, module in blank.named_modules():
        macs, allocated = own[name]
        parameters = sum(p.size for p in module._parameters.values() if p is not None)
        if isinstance(module, UNCOUNTED):
            macs = 0
        if not module._modules or macs or parameters or allocated:
            rows.append(Row(name, type(module).__name__, outputs.get(name), parameters, macs, allocated))
    sizes = [(p.size, p.dtype.itemsize) for p in model.parameters()]
    total, nbytes = sum(size for size, _ in sizes), sum(size * each for size, each in sizes)
    return Summary(type(model).__name__, tuple(shape), tuple(rows), total, nbytes)


def _without_values(model: Module) -> Module:
    """A copy whose parameters and buffers are zeros that take no memory, on the CPU, with no hooks"""
    known: dict[int, Any] = {}
    backend = CountingBackend()
    for tensor in [*model.parameters(), *model.buffers()]:
        empty = copy.copy(tensor)
        empty.data, empty.grad = backend.empty(tensor.shape, tensor.dtype), None
        known[id(tensor)] = empty
    for module in model.modules():
        known[id(module._forward_hooks)] = {}
        known[id(module._forward_pre_hooks)] = {}
        packed = module.__dict__.get("_packed")
        if packed is not None:
            known[id(packed)] = {}
    return copy.deepcopy(model, known)


def _cells(row: Row) -> tuple[str, ...]:
    output = "" if row.output is None else str(row.output)
    return (
        row.name or "(model)",
        row.kind,
        output,
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.macs:,}" if row.macs else "",
        _kilobytes(row.activations) if row.activations else "",
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join([*left, *right]).rstrip()


def _kilobytes(nbytes: int) -> str:
    return f"{nbytes / 1e3:,.1f} kB"
