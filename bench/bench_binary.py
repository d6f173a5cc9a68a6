"""Addition: of a skip connection, and of a bias with its gradient, a sum over all pixels."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from bench.layers import RESIDUAL, shrink
from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task, both_layouts
from cnnengine.backends.contract import Array, Backend
from cnnengine.shapes import broadcast_shape, reduce_shape


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    layer = shrink(RESIDUAL) if smoke else RESIDUAL
    x = layer.shape
    return task_races(
        "binary",
        [
            Task(
                name,
                layer.name,
                partial(_draw, x),
                {"": ours},
                both_layouts(torch),
                elements=sum(streams) * prod(x),
                streams=streams,
            )
            for name, streams, ours, torch in (
                ("add", (2, 1), partial(_add, "other"), lambda torch, t: lambda: t["x"] + t["other"]),
                ("bias_forward", (1, 1), partial(_add, "bias"), _torch_bias),
                ("bias_backward", (1, 0), _bias_gradient, lambda torch, t: lambda: t["x"].sum((0, 2, 3))),
            )
        ],
        device,
        smoke,
    )


def _draw(x: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    arrays = {name: rng.standard_normal(x, np.float32) for name in ("x", "other")}
    return arrays | {"bias": rng.standard_normal(x[-1], np.float32)}


def _add(name: str, backend: Backend, a: Arrays) -> Run:
    x, other = a["x"], a[name]
    y_shape, walk = broadcast_shape("add", x.shape, other.shape)

    def run() -> Array:
        y = backend.empty(y_shape, x.dtype)
        backend.binary("add", walk, x, other, y)
        return y

    return run


def _bias_gradient(backend: Backend, a: Arrays) -> Run:
    x = a["x"]
    walk = reduce_shape(1, prod(x.shape[:-1]), x.shape[-1])

    def run() -> Array:
        db = backend.empty(x.shape[-1:], x.dtype)
        backend.reduce("sum", walk, x, db)
        return db

    return run


def _torch_bias(torch: Any, t: Arrays) -> Run:
    bias = t["bias"].view(1, -1, 1, 1)
    return lambda: t["x"] + bias


def test_binary(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
