"""Rules for what else has weights: linear layers, matrix products, normalisation."""

from __future__ import annotations

import numpy as np

from ..errors import Unsupported
from ..functional.gemm import linear, matmul
from ..functional.norm import batch_norm, group_norm, instance_norm, layer_norm
from .order import channels_second, permuted
from .rules import Context, activated, rule
from .writer import Constant, Operand, Value


@rule(linear)
def _linear(c: Context) -> None:
    writer, x, w, b = c.writer, c.operand("x"), c.operand("w"), c.optional("b")
    bias = [] if b is None else [writer.array(b)]
    if len(x.shape) == 2:
        y = writer.node("Gemm", [writer.array(x), writer.array(w), *bias], transB=1)
    else:
        turned = writer.array(w, (1, 0))
        y = writer.node("MatMul", [writer.array(x), turned])
        y = writer.node("Add", [y, *bias]) if bias else y
    c.done(activated(c, y, c.argument("activation"), c.argument("activation_parameter")))


@rule(matmul)
def _matmul(c: Context) -> None:
    c.done(c.writer.node("MatMul", [c.writer.array(c.operand("a")), c.writer.array(c.operand("b"))]))


@rule(batch_norm)
def _batch_norm(c: Context) -> None:
    writer, x = c.writer, c.value("x")
    if c.argument("training"):
        raise Unsupported("onnx.export: batch_norm by the batch's own statistics, which ONNX has in training alone")
    order = channels_second(len(x.shape))
    gain, offset = _affine(c, x.shape[-1:])
    running = [writer.array(c.operand(name)) for name in ("running_mean", "running_var")]
    y = writer.node("BatchNormalization", [writer.array(x, order), gain, offset, *running], epsilon=c.argument("eps"))
    residual = c.optional("residual")
    if residual is not None:
        y = writer.node("Add", [y, writer.array(residual, order)])
    c.done(activated(c, y, c.argument("activation")), order)


def _affine(c: Context, shape: tuple[int, ...]) -> tuple[str, str]:
    """weight and bias, ones and zeros where they are None"""
    weight, bias = c.optional("weight"), c.optional("bias")
    given: tuple[Operand, Operand] = (
        Constant(np.ones(shape, c.dtype), None) if weight is None else weight,
        Constant(np.zeros(shape, c.dtype), None) if bias is None else bias,
    )
    return c.writer.array(given[0]), c.writer.array(given[1])


@rule(layer_norm)
def _layer_norm(c: Context) -> None:
    x, size = c.value("x"), c.argument("normalized_shape")
    shape = tuple(size) if isinstance(size, tuple | list) else (size,)
    inputs = [c.writer.array(x), *_affine(c, shape)]
    c.done(c.writer.node("LayerNormalization", inputs, axis=-len(shape), epsilon=c.argument("eps")))


@rule(instance_norm)
def _instance_norm(c: Context) -> None:
    x = c.value("x")
    order = channels_second(len(x.shape))
    inputs = [c.writer.array(x, order), *_affine(c, x.shape[-1:])]
    c.done(c.writer.node("InstanceNormalization", inputs, epsilon=c.argument("eps")), order)


@rule(group_norm)
def _group_norm(c: Context) -> None:
    """A group is an instance of one channel: (N, groups, everything else)"""
    writer, x, groups = c.writer, c.value("x"), c.argument("num_groups")
    rank, channels = len(x.shape), x.shape[-1]
    order = channels_second(rank)
    together = writer.node("Reshape", [writer.array(x, order), writer.integers([0, groups, -1])])
    ones, zeros = (writer.constant(np.full(groups, value, c.dtype)) for value in (1, 0))
    normal = writer.node("InstanceNormalization", [together, ones, zeros], epsilon=c.argument("eps"))
    first = -1 if x.varies[0] else x.shape[0]
    y = writer.node("Reshape", [normal, writer.integers([first, channels, *x.shape[1:-1]])])
    for kind, name in (("Mul", "weight"), ("Add", "bias")):
        if c.call.arguments[name] is not None:
            y = writer.node(kind, [y, c.beside(name, rank - 2)])
    c.done(y, order)


def turned_last_two(c: Context, operand: Operand) -> str:
    """The array with its last two axes exchanged"""
    rank = len(operand.shape)
    order = (*range(rank - 2), rank - 1, rank - 2)
    if isinstance(operand, Constant):
        return c.writer.constant(operand.array.transpose(order), operand.name)
    value = Value(operand.name, operand.shape, operand.varies, permuted(operand.order, order))
    return c.writer.array(value)
