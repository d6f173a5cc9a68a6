"""Dropout, forward and backward. Ours makes the mask again from a seed; PyTorch writes it and reads it back."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task
from cnnengine.backends.contract import Backend

P = 0.5
FEATURES = (2048, 4096)  # a batch of rows before a classifier's layer


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    shape = (4, 8) if smoke else FEATURES
    draw, elements = partial(_draw, shape), 2 * shape[0] * shape[1]
    return task_races(
        "dropout",
        [
            Task(f"dropout_{which}", f"{shape[0]} x {shape[1]}", draw, {"": _ours}, {"": torch}, elements=elements)
            for which, torch in (("forward", _torch_forward), ("backward", _torch_backward))
        ],
        device,
        smoke,
    )


def _draw(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.standard_normal(shape, np.float32)}


def _ours(backend: Backend, a: Arrays) -> Run:
    """Both passes: x or dy in, y or dx out. Nothing is returned, since no two libraries drop the same."""
    x = a["x"]
    state = backend.to_device(np.array([7, 0], np.uint64))

    def run() -> None:
        backend.dropout(x, backend.empty(x.shape, x.dtype), round(P * 2**32), 1 / (1 - P), state)

    return run


def _torch_forward(torch: Any, t: Arrays) -> Run:
    def run() -> None:
        torch.native_dropout(t["x"], P, True)

    return run


def _torch_backward(torch: Any, t: Arrays) -> Run:
    mask = torch.native_dropout(t["x"], P, True)[1]

    def run() -> None:
        torch.ops.aten.native_dropout_backward(t["x"], mask, 1 / (1 - P))

    return run


def test_dropout(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
