"""Max-pooling, forward and backward, with the index that training needs."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from bench.contenders import numpy_im2col
from bench.layers import POOL, few, shrink
from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Run, Task, both_layouts
from cnnengine.backends.contract import Array, Backend
from cnnengine.shapes import Pool2dShape


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    layers = [shrink(layer) for layer in few(POOL)] if smoke else POOL
    tasks = [task for layer in layers for task in _both_passes(layer.name, layer.shape)]
    return task_races("pool2d", tasks, device, smoke)


def _both_passes(name: str, s: Pool2dShape) -> list[Task]:
    draw, index, inputs = partial(_draw, s), prod(s.y), round(prod(s.x) / prod(s.y))
    return [
        Task(
            f"max_pool2d_{which}",
            name,
            draw,
            {"": partial(ours, s)},
            both_layouts(partial(torch, s)),
            partial(numpy, s),
            s,
            s.flops(),
            prod(s.x) + prod(s.y),
            index,
            streams,
        )
        for which, streams, ours, torch, numpy in (
            ("forward", (inputs, 1), _forward, _torch_forward, _numpy_forward),
            ("backward", (1, inputs), _backward, _torch_backward, _numpy_backward),
        )
    ]


def _draw(s: Pool2dShape, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.standard_normal(s.x, np.float32), "dy": rng.standard_normal(s.y, np.float32)}


def _forward(s: Pool2dShape, backend: Backend, a: Arrays) -> Run:
    def run() -> Array:  # with the index, as in training; PyTorch's operator makes one too
        y, index = backend.empty(s.y, a["x"].dtype), backend.empty(s.y, s.index_dtype)
        backend.pool2d_forward("max", s, a["x"], y, index)
        return y

    return run


def _backward(s: Pool2dShape, backend: Backend, a: Arrays) -> Run:
    index = backend.empty(s.y, s.index_dtype)
    backend.pool2d_forward("max", s, a["x"], backend.empty(s.y, a["x"].dtype), index)

    def run() -> Array:
        dx = backend.empty(s.x, a["dy"].dtype)
        backend.pool2d_backward("max", s, a["dy"], index, dx)
        return dx

    return run


def _torch_sizes(s: Pool2dShape) -> tuple[list[int], list[int], list[int]]:
    return [s.R, s.S], [s.stride_h, s.stride_w], [s.pad_h, s.pad_w]


def _torch_forward(s: Pool2dShape, torch: Any, t: Arrays) -> Run:
    return lambda: torch.ops.aten.max_pool2d_with_indices(t["x"], *_torch_sizes(s))[0]


def _torch_backward(s: Pool2dShape, torch: Any, t: Arrays) -> Run:
    aten, sizes = torch.ops.aten, _torch_sizes(s)
    index = aten.max_pool2d_with_indices(t["x"], *sizes)[1]
    return lambda: aten.max_pool2d_with_indices_backward(t["dy"], t["x"], *sizes, [1, 1], False, index)


def _numpy_forward(s: Pool2dShape, a: Arrays) -> Run:
    return lambda: numpy_im2col.max_pool2d_forward(s, a["x"])[0]


def _numpy_backward(s: Pool2dShape, a: Arrays) -> Run:
    index = numpy_im2col.max_pool2d_forward(s, a["x"])[1]
    return lambda: numpy_im2col.max_pool2d_backward(s, a["dy"], index)


def test_pool2d(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
