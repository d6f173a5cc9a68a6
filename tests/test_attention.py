"""Attention: every backend against its definition in float64, derivatives, masks, dropout, and PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import Backend

from .compare import assert_close
from .gradients import check_gradients
from .harness import random_array, runs


@dataclass(frozen=True)
class Case:
    name: str
    tier: str
    lead: tuple[int, ...]
    heads: int
    Lq: int
    Lk: int
    d: int
    dv: int
    bias: tuple[int, ...] | None = None
    causal: bool = False
    scale: float | None = None

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("one_element", "tiny", (), 1, 1, 1, 1, 1),
    Case("uneven", "tiny", (2,), 2, 3, 5, 4, 2, (2, 3, 5)),
    Case("causal", "tiny", (1,), 1, 4, 4, 2, 2, None, True),
    Case("scaled", "tiny", (), 2, 3, 3, 2, 2, (3, 3), False, 0.3),
    Case("bias_per_image", "small", (3,), 2, 7, 7, 5, 5, (3, 2, 7, 7)),
    Case("bias_for_all_heads", "small", (2, 2), 3, 5, 6, 4, 4, (5, 6)),
    Case("bias_for_an_image", "small", (2,), 2, 5, 6, 4, 4, (2, 1, 1, 6), True),
    Case("primes", "small", (1,), 3, 17, 13, 11, 7),
    Case("images_in_parts", "layer", (9,), 2, 131, 127, 16, 16, (2, 131, 127)),
    Case("vit_tiny", "layer", (1,), 3, 197, 197, 64, 64),
]
TINY = [case for case in CASES if case.tier == "tiny"]


def operands(rng: np.random.Generator, case: Case) -> list[np.ndarray]:
    """q, k, v, and the bias where there is one"""
    sizes = ((case.Lq, case.d), (case.Lk, case.d), (case.Lk, case.dv))
    arrays = [random_array(rng, (*case.lead, case.heads, *size)) for size in sizes]
    return arrays if case.bias is None else [*arrays, random_array(rng, case.bias)]


def softmax(case: Case, q: np.ndarray, k: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
    scale = case.d**-0.5 if case.scale is None else case.scale
    scores = scale * q @ np.swapaxes(k, -1, -2) + bias
    if case.causal:
        scores = np.where(np.arange(case.Lk) <= np.arange(case.Lq)[:, None], scores, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected(case: Case, arrays: list[np.ndarray], dy: np.ndarray) -> list[np.ndarray]:
    """y and the gradients of all operands, by the definition of the softmax's derivative"""
    wide = [a.astype(np.float64) for a in arrays]
    q, k, v = wide[:3]
    scale = case.d**-0.5 if case.scale is None else case.scale
    p = softmax(case, q, k, *wide[3:])
    dp = dy.astype(np.float64) @ np.swapaxes(v, -1, -2)
    ds = p * dp - p * (p * dp).sum(-1, keepdims=True)
    results = [p @ v, scale * ds @ k, scale * np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ dy]
    if case.bias is not None:
        full = (1,) * (ds.ndim - len(case.bias)) + case.bias
        summed = ds.sum(tuple(a for a, n in enumerate(full) if n == 1), keepdims=True)
        results.append(summed.reshape(case.bias))
    return results


def attend(case: Case, *tensors: cnn.Tensor) -> cnn.Tensor:
    return F.scaled_dot_product_attention(*tensors, is_causal=case.causal, scale=case.scale)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention(backend: Backend, case: Case, rng: np.random.Generator) -> None:
    if not runs(backend, case.tier):
        pytest.skip(f"{case.tier} cases are too large for {backend.name}")
    arrays = operands(rng, case)
    tensors = [cnn.Tensor(backend.to_device(a), requires_grad=True) for a in arrays]
    y = attend(case, *tensors)
    dy = random_array(rng, y.shape)
    results = expected(case, arrays, dy)
    assert_close(y.numpy(), results[0], case.Lk + case.d, "y")
    with cnn.no_grad():
        assert_close(attend(case, *tensors).numpy(), y.numpy(), 1, "without a gradient")
    y.backward(backend.to_device(dy))
    for name, tensor, gradient in zip(("dq", "dk", "dv", "dbias"), tensors, results[1:], strict=False):
        assert_close(tensor.grad.numpy(), gradient, len(dy.reshape(-1)) // case.dv + case.d, name)


@pytest.mark.parametrize("case", [c for c in CASES if c.tier != "layer"], ids=str)
def test_derivatives(case: Case, rng: np.random.Generator) -> None:
    check_gradients(lambda *tensors: attend(case, *tensors), operands(rng, case), rng)


@pytest.mark.parametrize("wanted", range(4))
def test_a_single_gradient(wanted: int, rng: np.random.Generator) -> None:
    case = CASES[1]
    arrays = operands(rng, case)
    tensors = [cnn.Tensor(a, requires_grad=i == wanted) for i, a in enumerate(arrays)]
    y = attend(case, *tensors)
    dy = random_array(rng, y.shape)
    y.backward(dy)
    assert_close(tensors[wanted].grad.numpy(), expected(case, arrays, dy)[1 + wanted], 30)
    assert [t.grad is None for t in tensors] == [i != wanted for i in range(4)]


def test_hand_computed() -> None:
    q, k = cnn.Tensor([[[0.0]]]), cnn.Tensor([[[1.0], [5.0]]])
    v = cnn.Tensor([[[2.0], [4.0]]])
    assert F.scaled_dot_product_attention(q, k, v).item() == 3.0  # a query of 0 takes the mean
    masked = F.scaled_dot_product_attention(q, k, v, cnn.Tensor([[0.0, -np.inf]]))
    assert masked.item() == 2.0
    weighted = F.scaled_dot_product_attention(q, k, v, cnn.Tensor([[np.log(3.0), 0.0]]))
    assert abs(weighted.item() - 2.5) < 1e-6


def test_a_masked_pair_has_no_gradient(backend: Backend, rng: np.random.Generator) -> None:
    q, k, v = (cnn.Tensor(backend.to_device(random_array(rng, (1, 3, 2))), requires_grad=True) for _ in range(3))
    bias = np.zeros((1, 3, 3), np.float32)
    bias[:, :, 2] = -np.inf
    F.scaled_dot_product_attention(q, k, v, cnn.Tensor(backend.to_device(bias))).sum().backward()
    assert np.isfinite(q.grad.numpy()).all()
    np.testing.assert_array_equal(k.grad.numpy()[:, 2], 0)
    np.testing.assert_array_equal(v.grad.numpy()[:, 2], 0)


def test_a_row_that_is_masked_altogether_is_nan() -> None:
    ones = cnn.Tensor(np.ones((1, 2, 1), np.float32))
    y = F.scaled_dot_product_attention(ones, ones, ones, cnn.Tensor([[0.0, 0.0], [-np.inf, -np.inf]])).numpy()
    assert y[0, 0, 0] == 1
    assert np.isnan(y[0, 1, 0])


def test_large_scores_do_not_overflow(backend: Backend) -> None:
    q = cnn.Tensor(backend.to_device(np.full((1, 2, 1), 1e4, np.float32)))
    k = cnn.Tensor(backend.to_device(np.array([[[1e4], [-1e4]]], np.float32)))
    v = cnn.Tensor(backend.to_device(np.array([[[3.0], [7.0]]], np.float32)))
    np.testing.assert_array_equal(F.scaled_dot_product_attention(q, k, v).numpy(), [[[3.0], [3.0]]])


@pytest.mark.parametrize("heads_first", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_multi_head_attention(backend: Backend, heads_first: bool, biased: bool, rng: np.random.Generator) -> None:
    """Of queries, keys and values side by side it is the attention of its parts."""
    N, L, heads, d = 2, 3, 2, 2
    packed = random_array(rng, (N, L, 3 * heads * d))
    bias = [random_array(rng, (heads, L, L))] if biased else []
    tensors = [cnn.Tensor(backend.to_device(a), requires_grad=True) for a in (packed, *bias)]
    y = F.multi_head_attention(tensors[0], heads, *tensors[1:], heads_first=heads_first)
    dy = random_array(rng, y.shape)
    y.backward(backend.to_device(dy))
    case = Case("", "tiny", (N,), heads, L, L, d, d, (heads, L, L) if biased else None)
    parts = packed.reshape(N, L, heads, 3, d) if heads_first else packed.reshape(N, L, 3, heads, d)
    order = (3, 0, 2, 1, 4) if heads_first else (2, 0, 3, 1, 4)
    by_head = dy.reshape(N, L, heads, d).transpose(0, 2, 1, 3)
    want, dq, dk, dv, *dbias = expected(case, [*parts.transpose(order), *bias], by_head)
    assert_close(y.numpy(), want.transpose(0, 2, 1, 3).reshape(N, L, -1), 12, "y")
    gradient = np.stack([dq, dk, dv]).transpose(np.argsort(order)).reshape(packed.shape)
    assert_close(tensors[0].grad.numpy(), gradient, 12, "dqkv")
    if biased:
        assert_close(tensors[1].grad.numpy(), dbias[0], 12, "dbias")


def test_multi_head_derivatives(rng: np.random.Generator) -> None:
    arrays = [rng.standard_normal((2, 3, 12)), rng.standard_normal((2, 1, 3, 3))]
    check_gradients(lambda x, bias: F.multi_head_attention(x, 2, bias), arrays, rng)


def test_dropout_is_that_of_the_softmax(rng: np.random.Generator) -> None:
    """The mask is F.dropout's over all scores, the same in backward: y and the gradients are those of a product with
    the dropped softmax."""
    case = Case("", "small", (2,), 2, 5, 6, 4, 3)
    arrays = operands(rng, case)
    tensors = [cnn.Tensor(a, requires_grad=True) for a in arrays]
    cnn.manual_seed(5)
    y = F.scaled_dot_product_attention(*tensors, dropout_p=0.4)
    cnn.manual_seed(5)
    kept = F.dropout(cnn.Tensor(np.ones((2, 2, 5, 6), np.float32)), 0.4).numpy()
    q, k, v = (a.astype(np.float64) for a in arrays)
    p = softmax(case, q, k)
    assert_close(y.numpy(), (kept * p) @ v, 12)
    dy = random_array(rng, y.shape)
    y.backward(dy)
    dp = kept * (dy.astype(np.float64) @ np.swapaxes(v, -1, -2))
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / 2
    for tensor, gradient in zip(tensors, (ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(kept * p, -1, -2) @ dy),
                                strict=True):  # fmt: skip
        assert_close(tensor.grad.numpy(), gradient, 20)


def test_dropout_is_the_same_on_every_backend(backend: Backend, rng: np.random.Generator) -> None:
    packed = random_array(rng, (2, 3, 12))
    results = []
    for name in ("numpy", backend.name):
        with cnn.use_backend(name) as chosen:
            cnn.manual_seed(11)
            x = cnn.Tensor(chosen.to_device(packed), requires_grad=True)
            y = F.multi_head_attention(x, 2, dropout_p=0.3)
            y.sum().backward()
            results.append((y.numpy(), x.grad.numpy()))
    assert_close(results[1][0], results[0][0], 12)
    assert_close(results[1][1], results[0][1], 12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_pytorch(case: Case, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    arrays = operands(rng, case)
    theirs = [torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in arrays]
    mask = theirs[3] if len(theirs) == 4 else None
    if case.causal:
        causal = torch.full((case.Lq, case.Lk), -torch.inf, dtype=torch.float64).triu(1)
        mask = causal if mask is None else mask + causal
    attention = torch.nn.functional.scaled_dot_product_attention
    want = attention(*theirs[:3], attn_mask=mask, scale=case.scale)
    dy = random_array(rng, tuple(want.shape))
    want.backward(torch.from_numpy(dy.astype(np.float64)))
    for got, reference in zip(expected(case, arrays, dy), [want.detach(), *(t.grad for t in theirs)], strict=True):
        np.testing.assert_allclose(got, reference.numpy(), rtol=1e-9, atol=1e-11)


def test_module(rng: np.random.Generator) -> None:
    module = nn.Attention(8, 2, qkv_bias=True)
    assert sorted(module.state_dict()) == ["proj.bias", "proj.weight", "qkv.bias", "qkv.weight"]
    x = cnn.Tensor(random_array(rng, (2, 5, 8)))
    y = module(x)
    assert y.shape == (2, 5, 8)
    alone = module(x[:1])
    assert_close(alone.numpy(), y.numpy()[:1], 8)
    tokens = np.array([3, 0, 4, 1, 2])
    assert_close(module(x[:, tokens]).numpy(), y.numpy()[:, tokens], 8, "attention knows no order of tokens")
    assert repr(module).startswith("Attention(\n  (qkv): Linear(8, 24, bias=True)")


def test_dropout_of_the_module_is_for_training(rng: np.random.Generator) -> None:
    module = nn.Attention(8, 2, attn_drop=0.5, proj_drop=0.5)
    x = cnn.Tensor(random_array(rng, (2, 5, 8)))
    assert (module(x).numpy() != module(x).numpy()).any()
    module.eval()
    np.testing.assert_array_equal(module(x).numpy(), module(x).numpy())


def test_changes_in_place_are_noticed(rng: np.random.Generator) -> None:
    q, k, v = (cnn.Tensor(random_array(rng, (1, 2, 2)), requires_grad=True) for _ in range(3))
    y = F.scaled_dot_product_attention(q, k, v)
    v.data += 1
    v.bump_version()
    with pytest.raises(RuntimeError, match="input 2, shape \\(1, 2, 2\\), was changed in place"):
        y.sum().backward()


def zeros(*shape: int, dtype: Any = np.float32) -> cnn.Tensor:
    return cnn.Tensor(np.zeros(shape, dtype))


def test_bad_input_is_named() -> None:
    q = zeros(2, 3, 4)
    with pytest.raises(ValueError, match=r"received q \(2, 3, 4\), k \(2, 3, 5\), v \(2, 3, 4\)"):
        F.scaled_dot_product_attention(q, zeros(2, 3, 5), q)
    with pytest.raises(ValueError, match="an operand is empty"):
        F.scaled_dot_product_attention(q, zeros(2, 0, 4), zeros(2, 0, 4))
    with pytest.raises(ValueError, match=r"bias must broadcast to \(2, 3, 3\), received \(3, 3, 3\)"):
        F.scaled_dot_product_attention(q, q, q, zeros(3, 3, 3))
    with pytest.raises(TypeError, match="v is float64, x is float32"):
        F.scaled_dot_product_attention(q, q, zeros(2, 3, 4, dtype=np.float64))
    with pytest.raises(ValueError, match=r"dropout_p must be in \[0, 1\), received 1.0"):
        F.scaled_dot_product_attention(q, q, q, dropout_p=1.0)
    with pytest.raises(ValueError, match="scale must be a finite number, received nan"):
        F.scaled_dot_product_attention(q, q, q, scale=float("nan"))
    with pytest.raises(ValueError, match=r"received \(2, 3, 4\) with 2 heads"):
        F.multi_head_attention(q, 2)
    with pytest.raises(ValueError, match="dim must be a multiple of num_heads, received 8 and 3"):
        nn.Attention(8, 3)
