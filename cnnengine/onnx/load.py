"""An ONNX file as a module: its nodes checked and simplified, its weights made parameters in the engine's order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, Unsupported
from ..nn import Module, Parameter
from ..tensor import Tensor
from . import read_layers
from ._library import library
from .host import HOST
from .network import Network, Node, Weight
from .order import Order, channels_last, plain
from .patterns import simplified
from .read_arrays import computed

READERS = (read_layers,)  # whose import makes their operators known
LAYOUTS = ("NCHW", "NHWC")
OPSETS = range(11, 27)
LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LayerNormalization", "InstanceNormalization", "PRelu"}
LAYERS |= {"BatchNormalization", "GroupNormalization"}  # whose inputs beside the first are weights of any size
NUMBERS = {  # inputs that are sizes, indices or bounds, by their first and last place
    **dict.fromkeys(("Reshape", "Expand", "Squeeze", "Unsqueeze", "Split", "Gather", "Tile", "Pad"), (1, 3)),
    **dict.fromkeys(("Clip", "Dropout", "Slice", "Resize"), (1, 4)),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"), (1, 1)),
}


def load(path: str | os.PathLike[str], *, layout: str | None = None) -> Network:
    """The network of an ONNX file (opsets 11 to 26), to run and to train.

    Its 4-D inputs and outputs are (N, H, W, C), whatever they are in the file: ``layout`` says what, "NCHW" or "NHWC";
    None takes it for NHWC where its last axis and not its second has 1, 3 or 4 channels. Floating-point weights become
    parameters under their names in the file, convolution's as (K, R, S, C/groups); a batch norm's running statistics
    become buffers; what can be computed from constants is. Raises DataError for a file that is damaged or no ONNX,
    Unsupported naming an operator that is not known and its node, and ImportError without the onnx library.
    """
    onnx = library()
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"onnx.load: layout must be one of {', '.join(LAYOUTS)} or None, received {layout!r}")
    graph = _graph(onnx, path)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    named = {name: name for name in constants}
    nodes = _folded([_node(onnx, path, i, n) for i, n in enumerate(graph.node)], constants, named)
    wanted = [output.name for output in graph.output]
    nodes = _ordered(simplified(nodes, constants, wanted), wanted, constants)
    for node in nodes:
        if node.function is _unknown:
            raise Unsupported(f"onnx.load: {path}: node {node.name!r}: the operator {node.kind} is not known")
    inputs = {i.name: i.type.tensor_type for i in graph.input if i.name not in constants}
    orders, last = _inputs(path, inputs, layout)
    network = Network(nodes, orders, dict.fromkeys(wanted, last))
    _Weights(network, constants, named).place(nodes, wanted)
    return network.eval()


def _graph(onnx: Any, path: str | os.PathLike[str]) -> Any:
    if not Path(path).is_file():
        raise DataError(f"{path}: cannot be read: no such file")
    try:
        model = onnx.load(os.fspath(path))
        onnx.checker.check_model(model)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's, the checker's, those for weights in other files
        raise DataError(f"{path}: not a whole ONNX model: {str(error).strip().splitlines()[0]}") from error
    versions = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
    version = versions.get("ai.onnx", 0)
    if version not in OPSETS:
        raise Unsupported(
            f"onnx.load: {path} has opset {version}; {OPSETS.start} to {OPSETS.stop - 1} are read: export it again, or"
            " convert it with onnx.version_converter"
        )
    if version < 13:
        _check_softmax(path, onnx.shape_inference.infer_shapes(model).graph)
    return model.graph


def _check_softmax(path: Any, graph: Any) -> None:
    """Before opset 13 Softmax flattens what is behind its axis, which is the same for the last one"""
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.value_info, *graph.input, *graph.output)}
    for node in graph.node:
        if node.op_type in ("Softmax", "LogSoftmax"):
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            if axis not in (-1, ranks.get(node.input[0], 0) - 1):
                raise Unsupported(f"onnx.load: {path}: {node.op_type} {node.name!r} over several axes, before opset 13")


def _node(onnx: Any, path: Any, number: int, node: Any) -> Node:
    name = node.name or f"number {number}"
    if node.domain not in ("", "ai.onnx"):
        kind = f"{node.domain}.{node.op_type}"
        raise Unsupported(f"onnx.load: {path}: node {name!r}: the operator {kind} is not ONNX's own")
    function = computed(node.op_type) or _unknown
    attributes = {a.name: _attribute(onnx, a) for a in node.attribute}
    if node.op_type in ("Softmax", "LogSoftmax"):
        attributes.setdefault("axis", -1)
    return Node(node.op_type, name, function, tuple(node.input), tuple(node.output), attributes)


def _unknown(node: Node, given: Any, training: bool) -> Any:
    """In place of what computes an operator that is not known, and that must be part of a pattern that is"""
    raise AssertionError(f"{node.kind} is refused when it is read")


def _attribute(onnx: Any, attribute: Any) -> Any:
    if attribute.name == "to" and attribute.type == onnx.AttributeProto.INT:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(attribute.i))
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return tuple(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def _folded(nodes: Iterable[Node], constants: dict[str, np.ndarray], named: dict[str, str]) -> list[Node]:
    """The nodes that are left once what depends on constants alone is computed. ``named`` has the name of each weight;
    one that was only turned or reshaped keeps it."""
    left: list[Node] = []
    for node in nodes:
        if node.kind == "Constant":
            constants[node.outputs[0]] = _constant(node)
        elif node.kind in HOST and node.inputs and all(name in constants or not name for name in node.inputs):
            made = HOST[node.kind](node, [constants.get(name) for name in node.inputs])
            for name, value in zip(node.outputs, made if type(made) is list else (made,), strict=False):
                constants[name] = np.asarray(value)
            if node.inputs[0] in named:
                named |= dict.fromkeys(node.outputs, named[node.inputs[0]])
        else:
            left.append(node)
    return left


def _constant(node: Node) -> np.ndarray:
    (kind, value), *_ = node.attributes.items()
    if kind == "value":
        return np.asarray(value)
    if kind in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    if kind in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    raise node.refuse(f"a constant of kind {kind}")


def _ordered(nodes: list[Node], wanted: list[str], constants: Mapping[str, Any]) -> list[Node]:
    """Those whose results are needed, each with what may be forgotten after it."""
    needed = set(wanted)
    kept: list[Node] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            last = [
                n for n in dict.fromkeys((*node.inputs, *node.outputs)) if n and n not in needed and n not in constants
            ]
            needed |= set(node.inputs)
            kept.append(replace(node, last=tuple(last)))
    return kept[::-1]


def _inputs(path: Any, types: Mapping[str, Any], layout: str | None) -> tuple[dict[str, Order], bool]:
    """The order of each input's array, and whether 4-D outputs are to be turned."""
    orders: dict[str, Order] = {}
    turned = True
    for name, kind in types.items():
        sizes = [dim.dim_value for dim in kind.shape.dim]
        if kind.elem_type not in (1, 10, 11, 16):  # float, float16, double, bfloat16
            raise Unsupported(f"onnx.load: {path}: input {name!r} is no floating-point array")
        orders[name] = plain(len(sizes))
        if len(sizes) == 4:
            last = sizes[3] in (1, 3, 4) and sizes[1] not in (1, 3, 4)
            turned = not last if layout is None else layout == "NCHW"
            orders[name] = channels_last(4) if turned else plain(4)
    return orders, turned


class _Weights:
    """Puts constants into a network: parameters, buffers, and numbers that NumPy keeps."""

    def __init__(self, network: Network, constants: dict[str, np.ndarray], named: dict[str, str]) -> None:
        self.network, self.constants, self.named = network, constants, named
        self._taken: set[str] = set()

    def place(self, nodes: Iterable[Node], outputs: Iterable[str]) -> None:
        for node in nodes:
            for i, name in enumerate(node.inputs):
                if name in self.constants and name not in self.network._weights:
                    self._place(node, i, name)
        for name in outputs:
            if name in self.constants and name not in self.network._weights:
                self._register(name, name, plain(self.constants[name].ndim), trained=False)

    def _place(self, node: Node, i: int, name: str) -> None:
        value = self.constants[name]
        layer = node.kind in LAYERS
        first, last = NUMBERS.get(node.kind, (1, 0))
        if first <= i <= last or value.dtype.kind not in "fV" or (value.size == 1 and not layer):
            self.network._constants[name] = value
            return
        order = plain(value.ndim)
        if node.kind in ("Conv", "ConvTranspose") and i == 1:
            order = channels_last(value.ndim)
        elif i == 1 and value.ndim == 2 and (node.kind == "MatMul" or (node.kind == "Gemm" and not node.get("transB"))):
            order = (1, 0)
        running = node.kind == "BatchNormalization" and i > 2
        self._register(name, self._title(node, i, name), order, trained=name in self.named and not running)

    def _title(self, node: Node, i: int, name: str) -> str:
        """What a weight is called. PyTorch's exporter numbers those it has turned or folded, "onnx::MatMul_126"; the
        node's name, "/head/MatMul", then tells the module."""
        title = self.named.get(name, name)
        if title.startswith("onnx::") and node.kind in LAYERS and i in (1, 2) and node.name.startswith("/"):
            path = [""]
            for part in node.name.split("/")[1:-1]:
                path[-1:] = [part] if part.startswith(f"{path[-1]}.") else [path[-1], part]
            title = ".".join([*path[1:], "weight" if i == 1 else "bias"])
        return name if title in self._taken else title

    def _register(self, name: str, title: str, order: Order, trained: bool) -> None:
        self._taken.add(title)
        owner: Module = self.network
        *path, leaf = (part or "_" for part in title.split("."))
        for part in path:
            part = _free(owner, part, owner._modules)
            if part not in owner._modules:
                setattr(owner, part, Module())
            owner = owner._modules[part]
        leaf = _free(owner, leaf, ())
        array = np.array(self.constants[name].transpose(order), order="C")
        if trained:
            setattr(owner, leaf, Parameter(array))
        else:
            owner.register_buffer(leaf, Tensor(array))
        self.network._weights[name] = Weight(owner, leaf, order)


def _free(owner: Module, wanted: str, mine: Iterable[str]) -> str:
    """The name, or with underscores behind it where the module has something else of that name."""
    while wanted not in mine and hasattr(owner, wanted):
        wanted += "_"
    return wanted
