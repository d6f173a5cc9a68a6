"""Activations, forward and backward: memory traffic, under most of them an exponential an element."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from bench.layers import ACTIVATION, EXPANDED, few, shrink
from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task, both_layouts
from cnnengine.backends.contract import ACTIVATION_SAVES, Array, Backend

OTHERS = ("silu", "gelu", "sigmoid", "tanh", "hardswish")


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    layers = [shrink(layer) for layer in few(ACTIVATION)] if smoke else ACTIVATION
    expanded = shrink(EXPANDED) if smoke else EXPANDED
    tasks = [
        *(t for layer in layers for t in _both_passes("relu", layer.name, layer.shape)),
        *(t for kind in OTHERS for t in _both_passes(kind, expanded.name, expanded.shape)),
    ]
    return task_races("activation", tasks, device, smoke)


def _both_passes(kind: str, name: str, shape: tuple[int, ...]) -> list[Task]:
    draw, n, is_relu = partial(_draw, shape), prod(shape), kind == "relu"
    return [
        Task(
            f"{kind}_{which}",
            name,
            draw,
            {"": partial(ours, kind)},
            both_layouts(partial(torch, kind)),
            numpy if is_relu else None,
            flops=n if is_relu else 0,
            elements=arrays * n,
            streams=(arrays - 1, 1),
        )
        for which, arrays, ours, torch, numpy in (
            ("forward", 2, _forward, _torch_forward, lambda a: lambda: np.maximum(a["x"], 0)),
            ("backward", 3, _backward, _torch_backward, _numpy_backward),
        )
    ]


def _draw(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.standard_normal(shape, np.float32) for name in ("x", "dy")}


def _forward(kind: str, backend: Backend, a: Arrays) -> Run:
    def run() -> Array:
        y = backend.empty(a["x"].shape, a["x"].dtype)
        backend.activation_forward(kind, a["x"], y, 0.0)
        return y

    return run


def _backward(kind: str, backend: Backend, a: Arrays) -> Run:
    saved = _forward(kind, backend, a)() if ACTIVATION_SAVES[kind] == "y" else a["x"]

    def run() -> Array:
        dx = backend.empty(a["dy"].shape, a["dy"].dtype)
        backend.activation_backward(kind, saved, a["dy"], dx, 0.0)
        return dx

    return run


def _torch_forward(kind: str, torch: Any, t: Arrays) -> Run:
    function = getattr(torch if kind in ("relu", "sigmoid", "tanh") else torch.nn.functional, kind)
    return lambda: function(t["x"])


def _torch_backward(kind: str, torch: Any, t: Arrays) -> Run:
    aten, dy = torch.ops.aten, t["dy"]
    saved = _torch_forward(kind, torch, t)() if ACTIVATION_SAVES[kind] == "y" else t["x"]
    if kind == "relu":
        return lambda: aten.threshold_backward(dy, saved, 0)
    return lambda: getattr(aten, f"{kind}_backward")(dy, saved)


def _numpy_backward(a: Arrays) -> Run:
    y = np.maximum(a["x"], 0)
    return lambda: a["dy"] * (y > 0)


def test_activation(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
