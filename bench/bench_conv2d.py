"""The three convolution passes on the layer list: ours against NumPy (im2col), PyTorch and, on a GPU, cuDNN."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from bench.contenders import numpy_im2col
from bench.layers import CONV2D, Conv2dLayer, few, shrink
from bench.suite import Race, run_alone, task_races
from bench.task import Arrays, Ours, Run, Task, both_layouts
from cnnengine import backends
from cnnengine.backends.contract import CONV2D_VERBS, IDENTITY, Array, Backend
from cnnengine.shapes import Conv2dShape

WITHOUT_WINOGRAD = "implicit_gemm"  # the variant that is timed beside a choice of Winograd
PREPARED = "prepared"  # weights packed before the clock starts, as in a frozen network
LADDER = ("direct", "tiled", "implicit_gemm")  # of the GPU kernels


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    return task_races("conv2d", tasks(device, smoke), device, smoke)


def tasks(device: str, smoke: bool) -> list[Task]:
    layers = [shrink(layer) for layer in few(CONV2D)] if smoke else CONV2D
    return [task for layer in layers for task in _passes(layer, device)]


def _passes(layer: Conv2dLayer, device: str) -> list[Task]:
    s, draw = layer.shape, partial(_draw, layer.shape)
    return [
        Task(
            verb,
            layer.name,
            draw,
            {variant: ours(verb, s, *choice) for variant, choice in _variants(verb, s, device).items()},
            both_layouts(partial(torch_verb, verb, s)),
            partial(_numpy, verb, s),
            s,
            flops=s.flops(),
            elements=s.bytes(1),
            streams=None,
        )
        for verb in CONV2D_VERBS
    ]


def _draw(s: Conv2dShape, rng: np.random.Generator) -> dict[str, np.ndarray]:
    w = rng.standard_normal(s.w, np.float32) * np.float32(s.reduction**-0.5)
    return {"x": rng.standard_normal(s.x, np.float32), "dy": rng.standard_normal(s.y, np.float32), "w": w}


def _variants(verb: str, s: Conv2dShape, device: str) -> dict[str, tuple[str | None, bool]]:
    """variant -> (algorithm, weight prepared)"""
    if device == "cuda":
        return {"": (None, False)} | {name: (name, False) for name in LADDER}
    found: dict[str, tuple[str | None, bool]] = {"": (None, False)}
    if backends.available()["native"] is not None:
        return found
    winograd = native_choice(verb, s).startswith("winograd")
    if winograd:
        found[WITHOUT_WINOGRAD] = (WITHOUT_WINOGRAD, False)
    if verb == "conv2d_forward" and s.groups == 1:
        found[PREPARED] = (None, True)
        if winograd:
            found[f"{WITHOUT_WINOGRAD} {PREPARED}"] = (WITHOUT_WINOGRAD, True)
    return found


def native_choice(verb: str, s: Conv2dShape) -> str:
    """The algorithm that the native backend chooses from the shape."""
    from cnnengine import _native

    return str(_native.conv2d_chosen(CONV2D_VERBS.index(verb), s.packed))


def ours(verb: str, s: Conv2dShape, algorithm: str | None, prepared: bool) -> Ours:
    def prepare(backend: Backend, a: Arrays) -> Run | None:
        if algorithm is not None and algorithm not in backend.algorithms[verb]:
            return None
        x, w, dy = a["x"], a["w"], a["dy"]
        if prepared:
            w = backend.conv2d_prepare(s, w, algorithm)

        def forward() -> Array:
            y = backend.empty(s.y, x.dtype)
            backend.conv2d_forward(s, x, w, y, IDENTITY, algorithm)
            return y

        def backward_input() -> Array:
            dx = backend.empty(s.x, x.dtype)
            backend.conv2d_backward_input(s, dy, w, dx, algorithm)
            return dx

        def backward_weight() -> Array:
            dw = backend.empty(s.w, x.dtype)
            backend.conv2d_backward_weight(s, x, dy, dw, algorithm)
            return dw

        return dict(zip(CONV2D_VERBS, (forward, backward_input, backward_weight), strict=True))[verb]

    return prepare


def torch_verb(verb: str, s: Conv2dShape, torch: Any, t: Arrays) -> Run:
    stride, padding, dilation = [s.stride_h, s.stride_w], [s.pad_h, s.pad_w], [s.dilation_h, s.dilation_w]
    if verb == "conv2d_forward":
        return lambda: torch.conv2d(t["x"], t["w"], None, stride, padding, dilation, s.groups)
    which = CONV2D_VERBS.index(verb) - 1  # of (dx, dw, db)
    mask = [i == which for i in range(3)]
    rest = (None, stride, padding, dilation, False, [0, 0], s.groups, mask)
    return lambda: torch.ops.aten.convolution_backward(t["dy"], t["x"], t["w"], *rest)[which]


def _numpy(verb: str, s: Conv2dShape, a: Arrays) -> Run:
    return {
        "conv2d_forward": lambda: numpy_im2col.conv2d_forward(s, a["x"], a["w"]),
        "conv2d_backward_input": lambda: numpy_im2col.conv2d_backward_input(s, a["dy"], a["w"]),
        "conv2d_backward_weight": lambda: numpy_im2col.conv2d_backward_weight(s, a["x"], a["dy"]),
    }[verb]


def test_conv2d(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
