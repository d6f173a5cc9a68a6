"""Softmax and cross-entropy on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import nn
from cnnengine.backends.contract import Backend

from .compare import assert_close
from .gradients import check_gradients
from .harness import oracle, random_array, run_verb, runs

SHAPES = {
    "one": ("tiny", 1, 1),
    "digits": ("tiny", 4, 10),
    "one_past_a_warp": ("tiny", 2, 33),
    "rows": ("small", 65, 10),
    "imagenet": ("small", 3, 1000),
    "layer": ("layer", 64, 1000),
    "wide": ("layer", 2, 50257),
}


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("name", SHAPES)
def test_forward_and_backward(backend: Backend, name: str, scale: float, rng: np.random.Generator) -> None:
    tier, rows, classes = SHAPES[name]
    if not runs(backend, tier):
        pytest.skip(f"{tier} cases are too large for {backend.name}")
    x = random_array(rng, (rows, classes)) * np.float32(scale)
    labels = rng.integers(0, classes, rows)
    outputs = [((rows,), "float32"), ((rows, classes), "float32")]

    def forward(which: Backend):
        return lambda x, labels, loss, p: which.softmax_cross_entropy_forward(x, labels, loss, p)

    expected = run_verb(oracle(), forward(oracle()), [x, labels], outputs, "oracle")
    actual = run_verb(backend, forward(backend), [x, labels], outputs, f"{backend.name} {name}")
    # one logit is rounded relative to its own size, and so is the loss, their difference
    error = np.abs(actual[0].astype(np.float64) - expected[0])
    assert (error <= 8 * 2.0**-24 * (classes**0.5 + np.abs(x).max())).all()
    # exp amplifies the rounding of x - max by its size
    assert_close(actual[1], expected[1], classes + int((4 * np.abs(x).max()) ** 2), "probability")
    dloss = random_array(rng, (rows,))

    def backward(which: Backend):
        return lambda p, labels, dloss, dx: which.softmax_cross_entropy_backward(p, labels, dloss, dx)

    given, out = [expected[1], labels, dloss], [((rows, classes), "float32")]
    (dx,) = run_verb(oracle(), backward(oracle()), given, out, "oracle")
    (ours,) = run_verb(backend, backward(backend), given, out, f"{backend.name} {name} backward")
    assert_close(ours, dx, 4, "dx")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_and_gradients(backend: Backend, reduction: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, labels = random_array(rng, (5, 7)), rng.integers(0, 7, 5)
    theirs = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    loss = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(labels), reduction=reduction)
    dy = rng.standard_normal(tuple(loss.shape)).astype(np.float32)
    loss.backward(torch.from_numpy(np.asarray(dy)).double())
    mine = cnn.Tensor(backend.to_device(x), requires_grad=True)
    y = F.cross_entropy(mine, labels, reduction)
    assert_close(y.numpy(), loss.detach().numpy(), 49)
    y.backward(backend.to_device(np.asarray(dy)))
    assert_close(mine.grad.numpy(), theirs.grad.numpy(), 49)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("ignored", [None, -100, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_that_count_differently(
    reduction: str, smoothing: float, ignored: int | None, weighted: bool, rng: np.random.Generator
) -> None:
    """Weights, ignored rows, smoothed labels and leading axes, as PyTorch has them"""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, labels = random_array(rng, (3, 2, 4, 7)) * np.float32(3), rng.integers(0, 7, (3, 2, 4))
    labels[0, 0, 0] = labels[2, 1, 3] = 1 if ignored is None else ignored
    weight = rng.uniform(0, 2, 7).astype(np.float32) if weighted else None
    theirs = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    loss = torch.nn.functional.cross_entropy(
        theirs.permute(0, 3, 1, 2),
        torch.from_numpy(labels),
        weight=None if weight is None else torch.from_numpy(weight.astype(np.float64)),
        ignore_index=-1 if ignored is None else ignored,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    dy = random_array(rng, tuple(loss.shape)) if reduction == "none" else np.float32(1.5)
    loss.backward(torch.from_numpy(np.asarray(dy, np.float64)))
    mine = cnn.Tensor(x, requires_grad=True)
    module = nn.CrossEntropyLoss(reduction, weight=weight, ignore_index=ignored, label_smoothing=smoothing)
    y = module(mine, labels)
    assert_close(y.numpy(), loss.detach().numpy(), 49)
    y.backward(np.asarray(dy))
    assert mine.grad is not None
    assert_close(mine.grad.numpy(), theirs.grad.numpy(), 49)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_probabilities_as_targets(
    backend: Backend, reduction: str, smoothing: float, weighted: bool, rng: np.random.Generator
) -> None:
    """Against the definition in float64: -sum(q * weight * log softmax), the mean over all rows, as PyTorch has it"""
    x = random_array(rng, (2, 3, 7)) * np.float32(3)
    targets = rng.dirichlet(np.ones(7), (2, 3))  # float64, as NumPy gives them
    weight = rng.uniform(0, 2, 7).astype(np.float32) if weighted else None
    q = (targets * (1 - smoothing) + smoothing / 7) * (1 if weight is None else weight)
    e = np.exp(x.astype(np.float64))
    share = e / e.sum(-1, keepdims=True)
    rows = -(q * np.log(share)).sum(-1)
    expected = {"mean": rows.mean(), "sum": rows.sum(), "none": rows}[reduction]
    mine = cnn.Tensor(backend.to_device(x), requires_grad=True)
    w = None if weight is None else cnn.Tensor(backend.to_device(weight))
    y = F.cross_entropy(mine, targets, reduction, weight=w, label_smoothing=smoothing)
    assert_close(y.numpy(), np.asarray(expected), 49)
    y.backward(backend.to_device(np.ones(y.shape, np.float32)))
    assert_close(mine.grad.numpy(), (q.sum(-1, keepdims=True) * share - q) / (6 if reduction == "mean" else 1), 49)


def test_probabilities_as_targets_equal_pytorchs(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x, targets, weight = rng.standard_normal((5, 7)), rng.dirichlet(np.ones(7), 5), rng.uniform(0, 2, 7)
    for reduction, smoothing in (("mean", 0.0), ("mean", 0.2), ("none", 0.1)):
        theirs = torch.nn.functional.cross_entropy(
            *map(torch.from_numpy, (x, targets)),
            weight=torch.from_numpy(weight),
            reduction=reduction,
            label_smoothing=smoothing,
        )
        with cnn.use_backend("numpy"):
            mine = F.cross_entropy(
                cnn.Tensor(x), cnn.Tensor(targets), reduction, weight=cnn.Tensor(weight), label_smoothing=smoothing
            )
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-12)


def test_a_one_hot_target_is_its_label(rng: np.random.Generator) -> None:
    x, labels = random_array(rng, (6, 4)), rng.integers(0, 4, 6)
    hard, soft = (F.cross_entropy(cnn.Tensor(x), y).item() for y in (labels, np.eye(4, dtype=np.float32)[labels]))
    assert soft == pytest.approx(hard, rel=1e-6)


def test_no_row_counts() -> None:
    """The mean of nothing is NaN, the sum 0"""
    logits = cnn.Tensor(np.ones((2, 3), np.float32))
    assert np.isnan(F.cross_entropy(logits, [-100, -100], ignore_index=-100).item())
    assert F.cross_entropy(logits, [-100, -100], "sum", ignore_index=-100).item() == 0


def test_derivatives(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 5, 4)
    for reduction in ("mean", "sum", "none"):
        check_gradients(lambda x, r=reduction: F.cross_entropy(x, labels, r), [rng.standard_normal((4, 5))], rng)
    check_gradients(
        lambda x, q: F.cross_entropy(x, q, label_smoothing=0.1), [rng.standard_normal((4, 5)), rng.random((4, 5))], rng
    )
    check_gradients(F.softmax, [rng.standard_normal((4, 5))], rng)
    check_gradients(F.log_softmax, [rng.standard_normal((4, 5))], rng)


def test_softmax(backend: Backend, rng: np.random.Generator) -> None:
    x = random_array(rng, (3, 4)) * np.float32(50)
    y = F.softmax(cnn.Tensor(backend.to_device(x))).numpy()
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    logarithm = F.log_softmax(cnn.Tensor(backend.to_device(x))).numpy()
    np.testing.assert_allclose(logarithm, np.log(e / e.sum(1, keepdims=True)), rtol=1e-5, atol=1e-6)
    assert_close(y, e / e.sum(1, keepdims=True), int(4 * np.abs(x).max()) ** 2)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)


def test_labels_of_another_library() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    logits = cnn.Tensor(np.zeros((2, 3), np.float32))
    assert F.cross_entropy(logits, torch.tensor([0, 2])).item() == F.cross_entropy(logits, [0, 2]).item()


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([0, 3], ValueError, "label 3 at row 1 is out of range"),
        ([-1, 0], ValueError, "label -1 at row 0 is out of range"),
        ([0], ValueError, "expected 2 labels"),
        (
            np.array([0.0, np.nan], np.float32),
            TypeError,
            "labels must be integers in .0, 3., received float32, with NaN",
        ),
        ([[0, 1]], ValueError, "expected 2 labels"),
    ],
)
def test_bad_labels_are_named(labels, error, words) -> None:
    with pytest.raises(error, match=words):
        F.cross_entropy(cnn.Tensor(np.zeros((2, 3), np.float32)), labels)


def test_bad_logits_are_named() -> None:
    for shape in ((), (0, 3), (2, 0)):
        with pytest.raises(ValueError, match=r"logits must be .\.\.\., classes. and not empty"):
            F.cross_entropy(cnn.Tensor(np.zeros(shape, np.float32)), [0, 1])
    for shape in ((2, 3, 4), (2,)):
        with pytest.raises(ValueError, match=r"expected labels .*, one a row of logits, received \(2,\)"):
            F.cross_entropy(cnn.Tensor(np.zeros(shape, np.float32)), [0, 1])
    logits = cnn.Tensor(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"weight must be \(3,\), one a class, received \(2,\)"):
        F.cross_entropy(logits, [0, 1], weight=cnn.Tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="weight is float64, x is float32"):
        F.cross_entropy(logits, [0, 1], weight=cnn.Tensor(np.ones(3)))
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        F.cross_entropy(logits, [0, 1], label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"label -100 at row 1 is out of range .*ignore_index=\.\.\. names one"):
        F.cross_entropy(logits, [0, -100])
    with pytest.raises(ValueError, match="ignore_index is for integer labels"):
        F.cross_entropy(logits, np.ones((2, 3), np.float32), ignore_index=0)
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        F.cross_entropy(logits, np.ones((2, 3), np.float32), label_smoothing=-0.1)
    with pytest.raises(ValueError, match="reduction must be one of"):
        F.cross_entropy(cnn.Tensor(np.zeros((2, 3), np.float32)), [0, 1], "average")
