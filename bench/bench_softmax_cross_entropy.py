"""Softmax and cross-entropy, forward and backward: a loss for each row, the probabilities kept between."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task
from cnnengine.backends.contract import Array, Backend

LOGITS = (8192, 1000)
SUM = 2  # PyTorch's number for that reduction


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    shape = (4, 10) if smoke else LOGITS
    draw, elements = partial(_draw, shape), 2 * shape[0] * shape[1]
    return task_races(
        "softmax_cross_entropy",
        [
            Task(name, f"{shape[0]} rows of {shape[1]}", draw, {"": ours}, {"": torch}, elements=elements)
            for name, ours, torch in (
                ("softmax_cross_entropy_forward", _forward, _torch_forward),
                ("softmax_cross_entropy_backward", _backward, _torch_backward),
            )
        ],
        device,
        smoke,
    )


def _draw(shape: tuple[int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows, classes = shape
    return {"x": rng.standard_normal(shape, np.float32), "labels": rng.integers(0, classes, rows)}


def _forward(backend: Backend, a: Arrays) -> Run:
    x = a["x"]

    def run() -> Array:
        loss, probability = backend.empty(x.shape[:1], x.dtype), backend.empty(x.shape, x.dtype)
        backend.softmax_cross_entropy_forward(x, a["labels"], loss, probability)
        return loss

    return run


def _backward(backend: Backend, a: Arrays) -> Run:
    """Of the losses' sum."""
    x = a["x"]
    loss, probability = backend.empty(x.shape[:1], x.dtype), backend.empty(x.shape, x.dtype)
    backend.softmax_cross_entropy_forward(x, a["labels"], loss, probability)
    backend.fill(loss, 1.0)

    def run() -> Array:
        dx = backend.empty(x.shape, x.dtype)
        backend.softmax_cross_entropy_backward(probability, a["labels"], loss, dx)
        return dx

    return run


def _torch_forward(torch: Any, t: Arrays) -> Run:
    return lambda: torch.nn.functional.cross_entropy(t["x"], t["labels"], reduction="none")


def _torch_backward(torch: Any, t: Arrays) -> Run:
    aten, x, labels = torch.ops.aten, t["x"], t["labels"]
    logarithms = torch.log_softmax(x, 1)
    total, counted = aten.nll_loss_forward(logarithms, labels, None, SUM, -100)
    dloss = torch.ones_like(total)

    def run() -> Any:
        dense = aten.nll_loss_backward(dloss, logarithms, labels, None, SUM, -100, counted)
        return aten._log_softmax_backward_data(dense, logarithms, 1, x.dtype)

    return run


def test_softmax_cross_entropy(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
