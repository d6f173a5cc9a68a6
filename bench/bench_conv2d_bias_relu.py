"""relu(conv2d(x, w) + bias) on a GPU, at the first of its batches: in our epilogue, as cuDNN's fused plan, and in
PyTorch, eager and through its call of cuDNN's fused kernel."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bench.bench_conv2d import CUDA_RUNGS
from bench.layers import CUDA_BATCHES, Conv2dLayer, cuda_layers, few, shrink
from bench.suite import CUDA_DTYPES, Race, run_alone, task_races
from bench.task import Arrays, Ours, Run, Task, normal
from cnnengine.backends.contract import Array, Backend, Epilogue
from cnnengine.shapes import Conv2dShape


def races(device: str = "cuda", smoke: bool = False) -> list[Race]:
    layers = cuda_layers(CUDA_BATCHES[:1])
    layers = [shrink(layer) for layer in few(layers)[:2]] if smoke else layers
    return [
        race
        for dtype in CUDA_DTYPES
        for race in task_races("conv2d_bias_relu", [_task(layer, dtype) for layer in layers], device, smoke, (dtype,))
    ]


def _task(layer: Conv2dLayer, dtype: str) -> Task:
    s = layer.shape
    torch = partial(_torch, s)
    return Task(
        "conv2d_bias_relu",
        layer.name,
        partial(_draw, s),
        {"": _ours(s, None)} | {name: _ours(s, name) for name in CUDA_RUNGS[dtype]},
        {"nhwc": torch, "nchw": torch, "nhwc cudnn_convolution_relu": partial(_torch_fused, s)},
        shape=s,
        flops=s.flops(),
        elements=s.bytes(1) + s.K,
        streams=None,
        backends=("cuda",),
    )


def _draw(s: Conv2dShape, rng: np.random.Generator) -> dict[str, np.ndarray]:
    w = normal(rng, s.w) * np.float32(s.reduction**-0.5)
    return {"x": normal(rng, s.x), "w": w, "bias": normal(rng, (s.K,))}


def _ours(s: Conv2dShape, algorithm: str | None) -> Ours:
    def prepare(backend: Backend, a: Arrays) -> Run | None:
        if algorithm is not None and algorithm not in backend.algorithms["conv2d_forward"]:
            return None
        epilogue = Epilogue(a["bias"], activation="relu")

        def run() -> Array:
            y = backend.empty(s.y, a["x"].dtype)
            backend.conv2d_forward(s, a["x"], a["w"], y, epilogue, algorithm)
            return y

        return run

    return prepare


def _geometry(s: Conv2dShape) -> tuple[list[int], list[int], list[int], int]:
    return [s.stride_h, s.stride_w], [s.pad_h, s.pad_w], [s.dilation_h, s.dilation_w], s.groups


def _torch(s: Conv2dShape, torch: Any, t: Arrays) -> Run:
    return lambda: torch.conv2d(t["x"], t["w"], t["bias"], *_geometry(s)).relu_()


def _torch_fused(s: Conv2dShape, torch: Any, t: Arrays) -> Run:
    return lambda: torch.cudnn_convolution_relu(t["x"], t["w"], t["bias"], *_geometry(s))


def test_conv2d_bias_relu(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
