"""ReLU, forward and backward: pure memory traffic."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from bench.layers import ACTIVATION, few, shrink
from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task, both_layouts
from cnnengine.backends.contract import Array, Backend


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    layers = [shrink(layer) for layer in few(ACTIVATION)] if smoke else ACTIVATION
    return task_races(
        "activation", [t for layer in layers for t in _both_passes(layer.name, layer.shape)], device, smoke
    )


def _both_passes(name: str, shape: tuple[int, ...]) -> list[Task]:
    draw, n = partial(_draw, shape), prod(shape)
    return [
        Task(f"relu_{which}", name, draw, {"": ours}, both_layouts(torch), numpy, flops=n, elements=arrays * n)
        for which, arrays, ours, torch, numpy in (
            ("forward", 2, _forward, _torch_forward, lambda a: lambda: np.maximum(a["x"], 0)),
            ("backward", 3, _backward, _torch_backward, _numpy_backward),
        )
    ]


def _draw(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.standard_normal(shape, np.float32) for name in ("x", "dy")}


def _forward(backend: Backend, a: Arrays) -> Run:
    def run() -> Array:
        y = backend.empty(a["x"].shape, a["x"].dtype)
        backend.activation_forward("relu", a["x"], y, 0.0)
        return y

    return run


def _backward(backend: Backend, a: Arrays) -> Run:
    saved = _forward(backend, a)()

    def run() -> Array:
        dx = backend.empty(a["dy"].shape, a["dy"].dtype)
        backend.activation_backward("relu", saved, a["dy"], dx, 0.0)
        return dx

    return run


def _torch_forward(torch: Any, t: Arrays) -> Run:
    return lambda: torch.relu(t["x"])


def _torch_backward(torch: Any, t: Arrays) -> Run:
    y = torch.relu(t["x"])
    return lambda: torch.ops.aten.threshold_backward(t["dy"], y, 0)


def _numpy_backward(a: Arrays) -> Run:
    y = np.maximum(a["x"], 0)
    return lambda: a["dy"] * (y > 0)


def test_activation(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
