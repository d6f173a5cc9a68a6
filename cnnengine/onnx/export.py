"""A module as an ONNX file: it is run twice, what it calls is written down, and each call becomes a few nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..errors import Unsupported
from ..nn import Module
from ..serialize import write_atomically
from ..tensor import Tensor
from . import write_arrays, write_attention, write_images, write_layers
from ._library import library
from .order import channels_second, plain
from .rules import FUNCTIONS, RULES, Context
from .trace import Trace, trace
from .writer import IR_VERSION, OPSET, Value, Writer

LAYOUTS = ("NCHW", "NHWC")
RULE_FILES = (write_arrays, write_attention, write_images, write_layers)  # whose import fills RULES


def export(
    model: Module,
    example: Any,
    path: str | os.PathLike[str],
    *,
    layout: str = "NCHW",
    dynamic_batch: bool = True,
    input_name: str = "input",
    output_name: str = "output",
) -> None:
    """Writes what ``model`` computes in evaluation mode to an ONNX file (opset 17), checked by ``onnx.checker``.

    ``example`` is the shape of one input, images (N, H, W, C), or a tensor or array of it; the file takes images of
    that H and W. ``layout`` is how the file's own 4-D input and outputs are arranged: "NCHW", as ONNX's tools expect,
    or "NHWC". With ``dynamic_batch`` the first axis is free, else it is the example's. Weights keep their names in the
    state dict; several outputs are called ``output_name`` with a number. Any module can be exported that computes its
    result from its input by functions of ``cnnengine.functional``.

    Raises ImportError without the onnx library, Unsupported by name for what has no counterpart in ONNX, and OSError.
    """
    onnx = library()
    if layout not in LAYOUTS:
        raise ValueError(f"onnx.export: layout must be one of {', '.join(LAYOUTS)}, received {layout!r}")
    first, second = _examples(model, example, dynamic_batch)
    traces = _traced(model, first, second)
    weights = {id(t.data): name for name, t in (*model.named_parameters(), *model.named_buffers())}
    writer = Writer(weights, *traces)
    order = channels_second(4) if layout == "NCHW" and first.ndim == 4 else plain(first.ndim)
    writer.begin(first, second, input_name, order, "batch" if dynamic_batch else None)
    _write(writer, *traces)
    outputs = _outputs(writer, traces[0].result, output_name, layout)
    graph = onnx.helper.make_graph(
        writer.nodes, type(model).__name__, writer.inputs, outputs, initializer=writer.initializers
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    made = onnx.helper.make_model(graph, producer_name="cnnengine", opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(made, full_check=True)
    write_atomically(path, made.SerializeToString())


def _examples(model: Module, example: Any, dynamic_batch: bool) -> tuple[Tensor, Tensor]:
    """Two inputs of different numbers, and of different batches where these are free; of a shape alone, with the dtype
    and the device of the weights"""
    weight = next(model.parameters(), None)
    device = "cpu" if weight is None else weight.device
    if isinstance(example, tuple | list) and all(isinstance(n, int | np.integer) for n in example):
        shape = tuple(int(n) for n in example)
        dtype = np.dtype(np.float32) if weight is None else weight.dtype
    else:
        given = example if isinstance(example, Tensor) else Tensor(example)
        shape, dtype, device = given.shape, given.dtype, given.device
    if not shape or min(shape) < 1:
        raise ValueError(f"onnx.export: expected the shape of an input, or one, received {example!r}")
    rng = np.random.default_rng(0)
    batches = (shape[0] + 1, shape[0] + 2) if dynamic_batch else (shape[0], shape[0])  # 1 would look like no axis
    arrays = (rng.random((batch, *shape[1:]), np.float32).astype(dtype) for batch in batches)
    return Tensor(next(arrays)).to(device), Tensor(next(arrays)).to(device)


def _traced(model: Module, first: Tensor, second: Tensor) -> tuple[Trace, Trace]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            traces = trace(lambda: model(first), FUNCTIONS), trace(lambda: model(second), FUNCTIONS)
    finally:
        for module, training in modes:
            module.training = training
    names = [[call.name for call in t.calls] for t in traces]
    if names[0] != names[1]:
        raise Unsupported(
            "onnx.export: the model does other things for another input; only what it always does can be exported"
        )
    return traces


def _write(writer: Writer, first: Trace, second: Trace) -> None:
    for call, twin in zip(first.calls, second.calls, strict=True):
        arguments = list(call.arguments.values())
        if any(map(writer.concerns, arguments)) and not writer.knows(call.result):
            RULES[call.name](Context(writer, call, twin))


def _outputs(writer: Writer, result: Any, name: str, layout: str) -> list[Any]:
    tensors = list(_tensors(result))
    outputs: list[Any] = []
    for i, tensor in enumerate(tensors):
        if not writer.knows(tensor):
            origin = writer.origin(tensor)
            raise Unsupported(f"onnx.export: the model's output, shape {tensor.shape}, was {origin}")
        value = writer.value(tensor)
        order = channels_second(4) if layout == "NCHW" and tensor.ndim == 4 else plain(tensor.ndim)
        wanted = name if len(tensors) == 1 else f"{name}_{i}"
        outputs.append(_output(writer, value, wanted, order, tensor.dtype, [o.name for o in outputs]))
    return outputs


def _output(writer: Writer, value: Value, name: str, order: tuple[int, ...], dtype: Any, before: list[str]) -> Any:
    array = writer.array(value, order)
    if array in before or not any(array in node.output for node in writer.nodes):  # is another output, or the input
        array = writer.node("Identity", [array])
    writer.rename(array, name)
    sizes = ["batch" if value.varies[a] and a == 0 else None if value.varies[a] else value.shape[a] for a in order]
    return writer.onnx.helper.make_tensor_value_info(name, writer.kind(dtype), sizes)


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for part in result:
            yield from _tensors(part)
    elif isinstance(result, dict):
        for part in result.values():
            yield from _tensors(part)
    else:
        raise Unsupported(f"onnx.export: the model returns a {type(result).__name__}; expected tensors")
