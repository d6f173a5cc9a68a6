"""Batch norm in training, forward and backward."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from bench.layers import NORM, few, shrink
from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task, both_layouts
from cnnengine.backends.contract import Array, Backend
from cnnengine.shapes import NormShape, norm_shape

EPSILON = 1e-5
AGREEMENT = 1e-3  # PyTorch's channels_last sums are off by 2e-4 where a channel has 1.6 million values
FORWARD_PASSES = 3  # x is read for its statistics and again to be normalised; y is written
BACKWARD_PASSES = 5  # x and dy are read for two sums and again; dx is written


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    layers = [shrink(layer) for layer in few(NORM)] if smoke else NORM
    return task_races("norm", [t for layer in layers for t in _both_passes(layer.name, layer.shape)], device, smoke)


def _both_passes(name: str, x: tuple[int, int, int, int]) -> list[Task]:
    draw, n, shape = partial(_draw, x), prod(x), norm_shape(1, prod(x[:3]), x[3], 1)
    return [
        Task(
            "batch_norm_train_forward",
            name,
            draw,
            {"": partial(_forward, shape)},
            both_layouts(_torch_forward),
            elements=FORWARD_PASSES * n,
            agreement=AGREEMENT,
        ),
        Task(
            "batch_norm_train_backward",
            name,
            draw,
            {"": partial(_backward, shape)},
            both_layouts(_torch_backward),
            elements=BACKWARD_PASSES * n,
            agreement=AGREEMENT,
        ),
    ]


def _draw(x: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    arrays = {name: rng.standard_normal(x, np.float32) for name in ("x", "dy")}
    return arrays | {name: rng.standard_normal(x[-1], np.float32) for name in ("gain", "offset")}


def _forward(s: NormShape, backend: Backend, a: Arrays) -> Run:
    def run() -> Array:
        y = backend.empty(a["x"].shape, a["x"].dtype)
        mean, variance = (backend.empty(s.statistics, np.float32) for _ in range(2))
        backend.norm_forward(s, a["x"], a["gain"], a["offset"], None, y, mean, variance, EPSILON, "identity")
        return y

    return run


def _backward(s: NormShape, backend: Backend, a: Arrays) -> Run:
    x, dy, gain = a["x"], a["dy"], a["gain"]
    y, mean, variance = backend.empty(x.shape, x.dtype), *(backend.empty(s.statistics, np.float32) for _ in range(2))
    backend.norm_forward(s, x, gain, a["offset"], None, y, mean, variance, EPSILON, "identity")

    def run() -> Array:
        dx, dgain, doffset = (backend.empty(like.shape, like.dtype) for like in (x, gain, gain))
        backend.norm_backward(s, x, gain, mean, variance, None, dy, dx, dgain, doffset, None, EPSILON, "identity")
        return dx

    return run


def _torch_forward(torch: Any, t: Arrays) -> Run:
    return lambda: torch.native_batch_norm(t["x"], t["gain"], t["offset"], None, None, True, 0.1, EPSILON)[0]


def _torch_backward(torch: Any, t: Arrays) -> Run:
    x, gain = t["x"], t["gain"]
    _, mean, rstd = torch.native_batch_norm(x, gain, t["offset"], None, None, True, 0.1, EPSILON)
    saved = (None, None, mean, rstd, True, EPSILON, [True, True, True])
    return lambda: torch.ops.aten.native_batch_norm_backward(t["dy"], x, gain, *saved)[0]


def test_norm(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
