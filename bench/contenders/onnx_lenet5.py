"""LeNet-5 for ONNX Runtime: the model file, written field by field as onnx.proto numbers them, without ONNX itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

IR_VERSION, OPSET = 8, 13
FLOAT, INT, INTS = 1, 2, 7  # of AttributeProto.type; FLOAT is also TensorProto's float32


def lenet5(parameters: Sequence[np.ndarray], batch: int) -> bytes:
    """x (batch, 1, 28, 28) -> logits (batch, 10). ``parameters`` as ours: conv1, conv2, linear1 to linear3, each weight
    and bias; convolution weights (K, R, S, C) are transposed here, the first linear weight belongs to a CHW flatten."""
    names = [f"{layer}.{part}" for layer in ("conv1", "conv2", "linear1", "linear2", "linear3") for part in "wb"]
    arrays = [a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for a in parameters]
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        _node("Conv", ["x", "conv1.w", "conv1.b"], "c1", kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        _node("Relu", ["c1"], "r1"),
        _node("MaxPool", ["r1"], "p1", **pool),
        _node("Conv", ["p1", "conv2.w", "conv2.b"], "c2", kernel_shape=[5, 5]),
        _node("Relu", ["c2"], "r2"),
        _node("MaxPool", ["r2"], "p2", **pool),
        _node("Flatten", ["p2"], "f", axis=1),
        _node("Gemm", ["f", "linear1.w", "linear1.b"], "l1", transB=1),
        _node("Relu", ["l1"], "r3"),
        _node("Gemm", ["r3", "linear2.w", "linear2.b"], "l2", transB=1),
        _node("Relu", ["l2"], "r4"),
        _node("Gemm", ["r4", "linear3.w", "linear3.b"], "y", transB=1),
    ]
    graph = b"".join(_bytes(1, node) for node in nodes) + _text(2, "lenet5")
    graph += b"".join(_bytes(5, _tensor(name, array)) for name, array in zip(names, arrays, strict=True))
    graph += _bytes(11, _value("x", (batch, 1, 28, 28))) + _bytes(12, _value("y", (batch, 10)))
    return _number(1, IR_VERSION) + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, OPSET))


def _node(operation: str, inputs: list[str], output: str, **attributes: int | list[int]) -> bytes:
    fields = b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, operation)
    return fields + b"".join(_bytes(5, _attribute(name, value)) for name, value in attributes.items())


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, INT)
    return _text(1, name) + b"".join(_number(8, v) for v in value) + _number(20, INTS)


def _tensor(name: str, array: np.ndarray) -> bytes:
    dimensions = b"".join(_number(1, n) for n in array.shape)
    return dimensions + _number(2, FLOAT) + _text(8, name) + _bytes(9, array.astype("<f4").tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dimensions = b"".join(_bytes(1, _number(1, n)) for n in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, FLOAT) + _bytes(2, dimensions)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
