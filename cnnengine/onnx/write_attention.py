"""Rules for attention, as the products and the softmax it is."""

from __future__ import annotations

from math import sqrt

import numpy as np

from ..errors import Unsupported
from ..functional.attention import multi_head_attention, scaled_dot_product_attention
from .order import plain
from .rules import Context, rule
from .write_layers import turned_last_two
from .writer import Operand, Value


@rule(scaled_dot_product_attention)
def _scaled_dot_product_attention(c: Context) -> None:
    q, k, v = (c.operand(name) for name in "qkv")
    c.done(_attention(c, q, k, v, bool(c.argument("is_causal"))))


def _attention(c: Context, q: Operand, k: Operand, v: Operand, causal: bool) -> str:
    """softmax(scale q k^T + bias) v"""
    if c.argument("dropout_p"):
        raise Unsupported(f"onnx.export: {c.call.name} with dropout, which there is in training alone")
    node, writer = c.writer.node, c.writer
    scale = c.argument("scale")
    scores = node("MatMul", [writer.array(q), turned_last_two(c, k)])
    scores = node("Mul", [scores, writer.number(1 / sqrt(q.shape[-1]) if scale is None else scale, c.dtype)])
    bias = c.optional("bias")
    if bias is not None:
        scores = node("Add", [scores, writer.array(bias)])
    if causal:
        mask = np.triu(np.full((q.shape[-2], k.shape[-2]), -np.inf, c.dtype), 1)
        scores = node("Add", [scores, writer.constant(mask)])
    return node("MatMul", [node("Softmax", [scores], axis=-1), writer.array(v)])


@rule(multi_head_attention)
def _multi_head_attention(c: Context) -> None:
    """qkv (N, L, 3 * heads * d) is split into q, k, v (N, heads, L, d)"""
    writer, qkv, heads = c.writer, c.value("qkv"), c.argument("heads")
    (N, L), d = qkv.shape[:2], qkv.shape[2] // (3 * heads)
    first = -1 if qkv.varies[0] else N
    parts, order = ([heads, 3], (3, 0, 2, 1, 4)) if c.argument("heads_first") else ([3, heads], (2, 0, 3, 1, 4))
    apart = writer.node("Reshape", [writer.array(qkv), writer.integers([first, L, *parts, d])])
    turned = writer.node("Transpose", [apart], perm=order)
    varies = (qkv.varies[0], False, False, False)
    q, k, v = (
        Value(writer.node("Gather", [turned, writer.constant(np.array(i))], axis=0), (N, heads, L, d), varies, plain(4))
        for i in range(3)
    )
    y = writer.node("Transpose", [_attention(c, q, k, v, False)], perm=(0, 2, 1, 3))
    c.done(writer.node("Reshape", [y, writer.integers([first, L, heads * d])]))
