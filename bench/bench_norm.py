"""Batch norm in training, alone and with a residual and ReLU, and with known statistics; layer norm."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from bench.layers import LAYER_NORM, NORM, RESIDUAL, few, shrink
from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task, both_layouts
from cnnengine.backends.contract import Array, Backend, Epilogue
from cnnengine.shapes import NormShape, norm_shape

EPSILON = 1e-5
AGREEMENT = 1e-3  # PyTorch's channels_last sums are off by 2e-4 where a channel has 1.6 million values
FORWARD = (2, 1)  # passes that read and that write: x is read for its statistics and again to be normalised
BACKWARD = (4, 1)  # x and dy are read for two sums and again


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    layers = [shrink(layer) for layer in few(NORM)] if smoke else NORM
    residual, tokens = (shrink(layer) if smoke else layer for layer in (RESIDUAL, LAYER_NORM))
    tasks = [
        *(t for layer in layers for t in _both_passes(layer.name, layer.shape)),
        *_with_residual(residual.name, residual.shape),
        *_layer_norm(tokens.name, (prod(tokens.shape[:3]), tokens.C)),
    ]
    return task_races("norm", tasks, device, smoke)


def _both_passes(name: str, x: tuple[int, int, int, int]) -> list[Task]:
    draw, n, shape = partial(_draw, x), prod(x), norm_shape(1, prod(x[:3]), x[3], 1)
    return [
        Task(
            "batch_norm_train_forward",
            name,
            draw,
            {"": partial(_forward, shape)},
            both_layouts(_torch_forward),
            elements=sum(FORWARD) * n,
            streams=FORWARD,
            agreement=AGREEMENT,
        ),
        Task(
            "batch_norm_train_backward",
            name,
            draw,
            {"": partial(_backward, shape)},
            both_layouts(_torch_backward),
            elements=sum(BACKWARD) * n,
            streams=BACKWARD,
            agreement=AGREEMENT,
        ),
    ]


def _with_residual(name: str, x: tuple[int, int, int, int]) -> list[Task]:
    """relu(norm(x) + residual), which reads the residual once more and y where it is differentiated, and x times a
    scale plus a shift, which is what is left of the norm in inference."""
    draw, n, shape = partial(_draw, x), prod(x), norm_shape(1, prod(x[:3]), x[3], 1)
    return [
        Task(
            "batch_norm_add_relu_train_forward",
            name,
            draw,
            {"": partial(_add_relu, shape)},
            both_layouts(_torch_add_relu),
            elements=(sum(FORWARD) + 1) * n,
            streams=(FORWARD[0] + 1, 1),
            agreement=AGREEMENT,
        ),
        Task("batch_norm_inference", name, draw, {"": _known}, both_layouts(_torch_known), elements=2 * n),
    ]


def _layer_norm(name: str, x: tuple[int, int]) -> list[Task]:
    """A row stays in the cache between its statistics and its result: every array counts once."""
    draw, n, shape = partial(_draw, x), prod(x), norm_shape(x[0], 1, 1, x[1])
    return [
        Task("layer_norm_forward", name, draw, {"": partial(_forward, shape)}, {"": _torch_rows}, elements=2 * n),
        Task(
            "layer_norm_backward",
            name,
            draw,
            {"": partial(_backward, shape)},
            {"": _torch_rows_back},
            elements=3 * n,
            streams=(2, 1),
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


def _add_relu(s: NormShape, backend: Backend, a: Arrays) -> Run:
    x, residual = a["x"], a["dy"]

    def run() -> Array:
        y = backend.empty(x.shape, x.dtype)
        mean, variance = (backend.empty(s.statistics, np.float32) for _ in range(2))
        backend.norm_forward(s, x, a["gain"], a["offset"], residual, y, mean, variance, EPSILON, "relu")
        return y

    return run


def _torch_add_relu(torch: Any, t: Arrays) -> Run:
    norm = _torch_forward(torch, t)
    return lambda: norm().add_(t["dy"]).relu_()


def _known(backend: Backend, a: Arrays) -> Run:
    """Mean 0 and variance 1: the scale is the gain, the shift the offset."""
    x, epilogue = a["x"], Epilogue(scale=a["gain"], shift=a["offset"])

    def run() -> Array:
        y = backend.empty(x.shape, x.dtype)
        backend.apply_epilogue(x, y, epilogue)
        return y

    return run


def _torch_known(torch: Any, t: Arrays) -> Run:
    mean, variance = torch.zeros_like(t["gain"]), torch.ones_like(t["gain"])
    rest = (t["gain"], t["offset"], mean, variance, False, 0.1, EPSILON)
    return lambda: torch.native_batch_norm(t["x"], *rest)[0]


def _torch_rows(torch: Any, t: Arrays) -> Run:
    rest = (t["gain"].shape, t["gain"], t["offset"], EPSILON)
    return lambda: torch.native_layer_norm(t["x"], *rest)[0]


def _torch_rows_back(torch: Any, t: Arrays) -> Run:
    x, gain = t["x"], t["gain"]
    _, mean, rstd = torch.native_layer_norm(x, gain.shape, gain, t["offset"], EPSILON)
    rest = (gain.shape, mean, rstd, gain, t["offset"], [True, True, True])
    return lambda: torch.ops.aten.native_layer_norm_backward(t["dy"], x, *rest)[0]


def test_norm(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
