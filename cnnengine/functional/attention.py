"""Scaled dot-product attention: y = softmax(scale q k^T + bias) v, for every image and head a pair of products.

With p the softmax, dy of y and dp = dy v^T: dv = p^T dy, ds = p (dp - sum over a row of p dp), dq = scale ds k,
dk = scale ds^T q. A row's sum of p dp equals its sum of dy y, which is d instead of L elements long. Vaswani et al.,
"Attention is all you need", arXiv 1706.03762; the sum is from Dao et al., "FlashAttention", arXiv 2205.14135.

All that is kept for the backward pass is p, beside q, k, v and y. On the CPU a few images are computed at a time, so
that their scores are still in the cache where they are read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite, prod
from typing import Any, ClassVar

import numpy as np

from .. import random, replay
from ..autograd import Function, grad_enabled
from ..backends.contract import IDENTITY, Array, Backend, Epilogue
from ..shapes import broadcast_shape, gemm_shape, reduce_shape
from ..tensor import Tensor, record, wrap
from ._arrays import binary_array, full
from ._common import autocast_region, backend_of, same_kind, tensor
from .binary import add
from .dropout import threshold_and_scale
from .layout import reshape

CACHED_SCORES = 1 << 18  # elements of scores that are computed at a time on the CPU: 1 MB
FORWARD, BACKWARD = (2, 0, 3, 1, 4), (1, 3, 0, 2, 4)  # (N, L, 3, heads, d) to (3, N, heads, L, d), and back
HEADS_FIRST, HEADS_FIRST_BACKWARD = (3, 0, 2, 1, 4), (1, 3, 2, 0, 4)  # (N, L, heads, 3, d) likewise
_watched: ContextVar[list[Tensor] | None] = ContextVar("attention_weights", default=None)


@dataclass(frozen=True, slots=True)
class Heads:
    """q (images * heads, Lq, d), k (images * heads, Lk, d), v (images * heads, Lk, dv), y (images * heads, Lq, dv)."""

    images: int
    heads: int
    Lq: int
    Lk: int
    d: int
    dv: int
    scale: float
    bias: tuple[int, ...] | None  # shape of what is added: (heads, Lq, Lk) for all images, or (..., heads, Lq, Lk)
    threshold: int  # of F.dropout, 0 for none
    factor: float  # of what it keeps

    def one_bias(self) -> bool:
        return self.bias is not None and len(self.bias) == 3

    def together(self, backend: Backend) -> int:
        """Images at a time. A dropout's mask belongs to the elements of one array: all of them."""
        if backend.device != "cpu" or self.threshold:
            return self.images
        return min(self.images, max(1, CACHED_SCORES // (self.heads * self.Lq * self.Lk)))


class Attention(Function):
    """Inputs q, k, v, bias; saved: (heads, the axes before them, q, k, v, p, y, the dropout's state)"""

    __slots__ = ()
    reads: ClassVar[tuple[int, ...]] = (0, 1, 2)
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, lead, q, k, v, p, y, state = self.saved
        backend, dy = self.backend, dy.reshape(y.shape)
        dq, dk, dv = (backend.empty(a.shape, dy.dtype) if self.needs(i) else None for i, a in enumerate((q, k, v)))
        sums = row_sums(backend, dy, y).reshape(-1, shape.Lq, 1)
        dbias = attention_backward(backend, shape, (q, k, v), p, dy, sums, state, (dq, dk, dv), self.needs(3))
        dq, dk, dv = (None if g is None else g.reshape(*lead, shape.heads, *g.shape[1:]) for g in (dq, dk, dv))
        return dq, dk, dv, dbias


class MultiHeadAttention(Function):
    """Inputs qkv, bias; saved: (heads, q, k and v as (3, N * heads, L, d), p, y as (N, L, heads, d), the dropout's
    state, axes that undo the order of q, k and v)"""

    __slots__ = ()
    reads_result: ClassVar[bool] = True

    def backward(self, dy: Array) -> tuple[Array | None, ...]:
        shape, qkv, p, y, state, inverse = self.saved
        backend, batch = self.backend, shape.images * shape.heads
        images, heads, L, d = shape.images, shape.heads, shape.Lq, shape.d
        moved = backend.empty((images, heads, L, d), dy.dtype)
        backend.permute(dy.reshape(y.shape), moved, (0, 2, 1, 3))
        by_token = row_sums(backend, dy.reshape(y.shape), y).reshape(images, L, heads)
        sums = backend.empty((images, heads, L), dy.dtype)
        backend.permute(by_token, sums, (0, 2, 1))
        gradients = backend.empty(qkv.shape, dy.dtype)
        operands, outputs = (qkv[0], qkv[1], qkv[2]), (gradients[0], gradients[1], gradients[2])
        dy, sums = moved.reshape(batch, L, d), sums.reshape(batch, L, 1)
        dbias = attention_backward(backend, shape, operands, p, dy, sums, state, outputs, self.needs(1))
        dqkv = None
        if self.needs(0):
            dqkv = backend.empty((images, L, 3 * heads * d), dy.dtype)
            parts = gradients.reshape(3, images, heads, L, d)
            backend.permute(parts, dqkv.reshape([parts.shape[axis] for axis in inverse]), inverse)
        return dqkv, dbias


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale q k^T + bias) v of q (..., heads, Lq, d), k (..., heads, Lk, d), v (..., heads, Lk, dv): y (...,
    heads, Lq, dv).

    ``bias`` is added to the scores, -infinity masks a pair; its shape broadcasts to (..., heads, Lq, Lk). ``is_causal``
    masks what comes after a query: k > q. ``scale`` None is 1 / sqrt(d). With ``dropout_p`` the softmax goes through
    ``F.dropout``: pass 0 in evaluation. A row in which everything is masked is NaN. Raises ValueError for shapes,
    TypeError for dtypes.
    """
    region = autocast_region()
    if region is not None:
        q, k, v, bias = region.low("scaled_dot_product_attention", q, k, v, bias)
    q, k, v = tensor(q), tensor(k), tensor(v)
    backend = backend_of("scaled_dot_product_attention", q)
    for name, other in (("k", k), ("v", v)):
        same_kind("scaled_dot_product_attention", q, name, other)
    lead = _checked_heads(q.shape, k.shape, v.shape)
    heads, Lq, Lk, d, dv = q.shape[-3], q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    shape = Heads(prod(lead), heads, Lq, Lk, d, dv, _scale(scale, d), None, *_dropout(dropout_p))
    bias, shape = _with_bias("scaled_dot_product_attention", backend, shape, lead, q, bias, is_causal)
    data = [t.data.reshape(-1, *t.shape[-2:]) for t in (q, k, v)]
    y = backend.empty((*q.shape[:-1], dv), q.dtype)
    inputs = (q, k, v, bias)
    recorded = grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    flat = y.reshape(-1, Lq, dv)
    added = None if bias is None else bias.data
    p, state = attention_forward(backend, shape, (data[0], data[1], data[2]), added, flat, recorded)
    if recorded:
        return record(y, Attention(backend, inputs, (shape, lead, *data, p, flat, state)))
    return wrap(y)


def multi_head_attention(
    qkv: Tensor,
    heads: int,
    bias: Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
    heads_first: bool = False,
) -> Tensor:
    """Self-attention of queries, keys and values side by side, as one linear layer makes them: qkv (N, L, 3 * heads *
    d) to (N, L, heads * d).

    The last axis is (3, heads, d): all queries, then all keys, then all values; with ``heads_first`` it is (heads, 3,
    d). ``bias`` broadcasts to (N, heads, L, L). The rest as in ``scaled_dot_product_attention``. Raises ValueError for
    shapes, TypeError for dtypes.
    """
    region = autocast_region()
    if region is not None:
        qkv, bias = region.low("multi_head_attention", qkv, bias)
    qkv = tensor(qkv)
    if qkv.ndim != 3 or heads < 1 or qkv.shape[2] % (3 * heads) or not qkv.size:
        raise ValueError(
            f"multi_head_attention: qkv must be (N, L, 3 * heads * d) and not empty, received {qkv.shape} with"
            f" {heads} heads"
        )
    backend = backend_of("multi_head_attention", qkv)
    images, L, d = qkv.shape[0], qkv.shape[1], qkv.shape[2] // (3 * heads)
    shape = Heads(images, heads, L, L, d, d, _scale(scale, d), None, *_dropout(dropout_p))
    bias, shape = _with_bias("multi_head_attention", backend, shape, (images,), qkv, bias, False)
    split = backend.empty((3, images, heads, L, d), qkv.dtype)
    order = HEADS_FIRST if heads_first else FORWARD
    parts = (heads, 3) if heads_first else (3, heads)
    backend.permute(qkv.data.reshape(images, L, *parts, d), split, order)
    split = split.reshape(3, images * heads, L, d)
    by_head = backend.empty((images * heads, L, d), qkv.dtype)
    recorded = grad_enabled() and (qkv.requires_grad or (bias is not None and bias.requires_grad))
    added = None if bias is None else bias.data
    p, state = attention_forward(backend, shape, (split[0], split[1], split[2]), added, by_head, recorded)
    y = backend.empty((images, L, heads * d), qkv.dtype)
    by_token = y.reshape(images, L, heads, d)
    backend.permute(by_head.reshape(images, heads, L, d), by_token, (0, 2, 1, 3))
    if recorded:
        inverse = HEADS_FIRST_BACKWARD if heads_first else BACKWARD
        return record(y, MultiHeadAttention(backend, (qkv, bias), (shape, split, p, by_token, state, inverse)))
    return wrap(y)


@contextmanager
def attention_weights() -> Iterator[list[Tensor]]:
    """Within the block, every attention leaves its softmax: a list of Tensors (images, heads, Lq, Lk), in the order in
    which they are computed, outside any graph. Raises Unsupported in a step of ``cnn.graph``."""
    replay.refuse("attention_weights", "a replay would leave none")
    weights: list[Tensor] = []
    token = _watched.set(weights)
    try:
        yield weights
    finally:
        _watched.reset(token)


def attention_forward(
    backend: Backend, shape: Heads, qkv: tuple[Array, Array, Array], bias: Array | None, y: Array, keep: bool
) -> tuple[Array, Array | None]:
    """y; returns the softmax p (images * heads, Lq, Lk), all of it only where ``keep``, and the dropout's state."""
    (q, k, v), heads, Lq, Lk = qkv, shape.heads, shape.Lq, shape.Lk
    together, watched = shape.together(backend), _watched.get()
    keep = keep or watched is not None
    size = together * heads
    scores = backend.empty((size, Lq, Lk), q.dtype)
    p = backend.empty((shape.images * heads if keep else size, Lq, Lk), q.dtype)
    labels, loss = _labels(backend, size * Lq), backend.empty((size * Lq,), q.dtype)
    factor = full(backend, (Lk,), q.dtype, shape.scale)
    if bias is not None:
        bias = bias.reshape(-1, Lq, Lk)
        if shape.one_bias() and together > 1:
            zeros = full(backend, (together, 1), q.dtype, 0.0)
            bias = binary_array(backend, "add", zeros, bias.reshape(1, -1)).reshape(-1, Lq, Lk)
    state = None
    for first in range(0, shape.images, together):
        images = min(together, shape.images - first)
        batch, rows = images * heads, slice(first * heads, (first + images) * heads)
        residual = None
        if bias is not None:
            residual = bias[:batch] if shape.one_bias() else bias[rows]
        epilogue = Epilogue(None, factor, None, residual, "identity", 0.0)
        part = p[rows] if keep else p[:batch]
        count = batch * Lq
        backend.gemm(gemm_shape(batch, Lq, Lk, shape.d, False, True, False, False), q[rows], k[rows], scores[:batch],
                     epilogue)  # fmt: skip
        backend.softmax_cross_entropy_forward(
            scores[:batch].reshape(count, Lk), labels[:count], loss[:count], part.reshape(count, Lk)
        )
        if shape.threshold:
            state = replay.fresh(backend, random.next_dropout_state)
            backend.dropout(part, scores, shape.threshold, shape.factor, state)
            part = scores
        backend.gemm(gemm_shape(batch, Lq, shape.dv, Lk, False, False, False, False), part, v[rows], y[rows], IDENTITY)
    if watched is not None:
        watched.append(wrap(p.reshape(shape.images, heads, Lq, Lk)))
    return p, state


def attention_backward(
    backend: Backend,
    shape: Heads,
    qkv: tuple[Array, Array, Array],
    p: Array,
    dy: Array,
    sums: Array,
    state: Array | None,
    gradients: tuple[Array | None, Array | None, Array | None],
    needs_bias: bool,
) -> Array | None:
    """Writes ``gradients``, those of dq, dk and dv that are not None; returns dbias where it is needed. ``sums``
    (images * heads, Lq, 1) are each row's of dy y, that is of p dp."""
    (q, k, v), (dq, dk, dv) = qkv, gradients
    heads, Lq, Lk, d = shape.heads, shape.Lq, shape.Lk, shape.d
    together = shape.together(backend)
    dscores = backend.empty((together * heads, Lq, Lk), dy.dtype)
    dropped = backend.empty(dscores.shape, dy.dtype) if shape.threshold else None
    factor = Epilogue(scale=full(backend, (d,), dy.dtype, shape.scale))
    dbias = None
    if needs_bias:
        dbias = backend.empty(shape.bias, dy.dtype)  # type: ignore[arg-type]
    for first in range(0, shape.images, together):
        images = min(together, shape.images - first)
        batch, rows = images * heads, slice(first * heads, (first + images) * heads)
        ds, own, part = dscores[:batch], p[rows], p[rows]
        if dropped is not None and state is not None:
            backend.dropout(own, dropped, shape.threshold, shape.factor, state)
            part = dropped
        if dv is not None:
            product = gemm_shape(batch, Lk, shape.dv, Lq, True, False, False, False)
            backend.gemm(product, part, dy[rows], dv[rows], IDENTITY)
        backend.gemm(gemm_shape(batch, Lq, Lk, shape.dv, False, True, False, False), dy[rows], v[rows], ds, IDENTITY)
        if dropped is not None and state is not None:
            backend.dropout(ds, dropped, shape.threshold, shape.factor, state)
            ds = dropped
        backend.binary("sub", broadcast_shape("sub", ds.shape, (batch, Lq, 1))[1], ds, sums[rows], ds)
        target = ds if dbias is None or shape.one_bias() else dbias.reshape(-1, Lq, Lk)[rows]
        backend.binary("mul", broadcast_shape("mul", ds.shape, ds.shape)[1], ds, own, target)
        ds = target
        if dq is not None:
            backend.gemm(gemm_shape(batch, Lq, d, Lk, False, False, False, False), ds, k[rows], dq[rows], factor)
        if dk is not None:
            backend.gemm(gemm_shape(batch, Lk, d, Lq, True, False, False, False), ds, q[rows], dk[rows], factor)
        if dbias is not None and shape.one_bias():
            _add_bias_gradient(backend, ds, images, dbias, first == 0)
    return dbias


def row_sums(backend: Backend, a: Array, b: Array) -> Array:
    """The sums of a b over the last axis, (rows,)."""
    length = a.shape[-1]
    rows = a.size // length
    total = backend.empty((rows,), a.dtype)
    backend.reduce("sum", reduce_shape(rows, length, 1), binary_array(backend, "mul", a, b), total)
    return total


def _add_bias_gradient(backend: Backend, ds: Array, images: int, dbias: Array, first: bool) -> None:
    """dbias (heads, Lq, Lk) is, or where not the ``first`` grows by, the sum of ds over its images."""
    total = dbias if first else backend.empty(dbias.shape, ds.dtype)
    backend.reduce("sum", reduce_shape(1, images, dbias.size), ds, total)
    if not first:
        backend.binary("add", broadcast_shape("add", dbias.shape, dbias.shape)[1], dbias, total, dbias)


def _with_bias(
    operation: str, backend: Backend, shape: Heads, lead: tuple[int, ...], q: Tensor, bias: Tensor | None, causal: bool
) -> tuple[Tensor | None, Heads]:
    """What is added to the scores, brought to one of the two shapes that ``Heads.bias`` has. Raises ValueError."""
    one, every = (shape.heads, shape.Lq, shape.Lk), (*lead, shape.heads, shape.Lq, shape.Lk)
    if bias is not None:
        bias = tensor(bias)
        same_kind(operation, q, "bias", bias)
        if not _broadcasts(bias.shape, every):
            raise ValueError(f"{operation}: bias must broadcast to {every}, received {bias.shape}")
    if causal:
        mask = wrap(replay.fresh(backend, lambda: _causal(shape.Lq, shape.Lk, q.dtype)))
        bias = mask if bias is None else add(bias, mask)
    if bias is None:
        return None, shape
    if bias.ndim > 3 and prod(bias.shape[:-3]) == 1:
        bias = reshape(bias, bias.shape[-3:])
    wanted = one if bias.ndim <= 3 else every
    if bias.shape != wanted:
        bias = add(wrap(full(backend, wanted, q.dtype, 0.0)), bias)
    return bias, replace(shape, bias=wanted)


def _checked_heads(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> tuple[int, ...]:
    """The axes before the heads. Raises ValueError."""
    if min(len(q), len(k), len(v)) < 3 or k[:-2] != q[:-2] or v[:-1] != k[:-1] or k[-1] != q[-1]:
        raise ValueError(
            "scaled_dot_product_attention: expected q (..., heads, Lq, d), k (..., heads, Lk, d) and v (..., heads, Lk,"
            f" dv), received q {q}, k {k}, v {v}"
        )
    if 0 in q or 0 in k or 0 in v:
        raise ValueError(f"scaled_dot_product_attention: an operand is empty: q {q}, k {k}, v {v}")
    return q[:-3]


def _scale(scale: float | None, d: int) -> float:
    if scale is None:
        return float(d**-0.5)
    if not isfinite(scale):
        raise ValueError(f"attention: scale must be a finite number, received {scale!r}")
    return float(scale)


def _dropout(p: float) -> tuple[int, float]:
    if not 0 <= p < 1:
        raise ValueError(f"attention: dropout_p must be in [0, 1), received {p!r}")
    return threshold_and_scale(float(p))


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) <= len(target) and all(
        n in (1, wanted) for n, wanted in zip(reversed(shape), reversed(target), strict=False)
    )


@lru_cache(64)
def _causal(Lq: int, Lk: int, dtype: Any) -> np.ndarray:
    """0 where k <= q, else -infinity"""
    return np.triu(np.full((Lq, Lk), -np.inf, np.float32), 1).astype(dtype)


def _labels(backend: Backend, rows: int) -> Array:
    """Labels that the softmax is asked for beside its probabilities: any will do."""
    labels = backend.empty((rows,), np.dtype(np.int64))
    backend.fill(labels, 0)
    return labels
