"""The three convolution passes on the layer list: ours against NumPy (im2col), PyTorch and, on a GPU, cuDNN.

On a GPU float16, bfloat16 and float32 are timed, and tf32: float32 in memory, rounded to TF32 by all who take part.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F
from bench.contenders import numpy_im2col
from bench.layers import CONV2D, Conv2dLayer, cuda_layers, few, shrink
from bench.suite import CUDA_DTYPES, Race, run_alone, task_races
from bench.task import TF32, Arrays, Ours, Run, Task, both_layouts, normal
from cnnengine import backends
from cnnengine.backends.contract import CONV2D_VERBS, IDENTITY, Array, Backend
from cnnengine.shapes import Conv2dShape

WITHOUT_WINOGRAD = "implicit_gemm"  # the variant that is timed beside a choice of Winograd
PREPARED = "prepared"  # weights packed before the clock starts, as in a frozen network
TUNED = "tuned"  # what cnn.autotune() measured to be the quickest
# dtype -> the rungs that are timed beside the backend's own choice on a GPU; bench_ladder has all of them on one layer
CUDA_RUNGS = {
    "float16": ("implicit_gemm_mma", "implicit_gemm_wgmma"),
    "bfloat16": ("implicit_gemm_mma", "implicit_gemm_wgmma"),
    "float32": ("implicit_gemm", "implicit_gemm_3xtf32", "winograd"),
}
TF32_RUNG = "implicit_gemm_tf32"


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    if device != "cuda":
        return task_races("conv2d", tasks(device, smoke), device, smoke)
    return [
        race
        for dtype in (*CUDA_DTYPES, TF32)
        for race in task_races("conv2d", tasks(device, smoke, dtype), device, smoke, (dtype,))
    ]


def tasks(
    device: str,
    smoke: bool,
    dtype: str = "float32",
    layers: Sequence[Conv2dLayer] | None = None,
    rungs: tuple[str, ...] | None = None,
) -> list[Task]:
    """Of ``layers`` in place of the device's list; on a GPU with ``rungs`` in place of CUDA_RUNGS'."""
    layers = layers or (cuda_layers() if device == "cuda" else CONV2D)
    if smoke:
        chosen = few(layers)
        layers = [shrink(layer) for layer in (chosen[:3] if device == "cuda" else chosen)]
    return [task for layer in layers for task in _passes(layer, device, dtype, rungs)]


def _passes(layer: Conv2dLayer, device: str, dtype: str, rungs: tuple[str, ...] | None) -> list[Task]:
    s, draw = layer.shape, partial(_draw, layer.shape)

    def variants(verb: str) -> dict[str, tuple[str | None, bool]]:
        return cuda_variants(dtype, rungs) if device == "cuda" else native_variants(verb, s)

    return [
        Task(
            verb,
            layer.name,
            draw,
            {variant: ours(verb, s, *choice) for variant, choice in variants(verb).items()},
            both_layouts(partial(torch_verb, verb, s)),
            partial(_numpy, verb, s),
            s,
            flops=s.flops(),
            elements=s.bytes(1),
            streams=None,
            backends=("cuda",),
        )
        for verb in CONV2D_VERBS
    ]


def _draw(s: Conv2dShape, rng: np.random.Generator) -> dict[str, np.ndarray]:
    w = normal(rng, s.w) * np.float32(s.reduction**-0.5)
    return {"x": normal(rng, s.x), "dy": normal(rng, s.y), "w": w}


def cuda_variants(dtype: str, rungs: tuple[str, ...] | None = None) -> dict[str, tuple[str | None, bool]]:
    """variant -> (algorithm, weight prepared); a rung that does not take the shape leaves the race itself."""
    if dtype == TF32:
        return {"": (TF32_RUNG, False)}
    named = CUDA_RUNGS[dtype] if rungs is None else rungs
    return {"": (None, False), TUNED: (TUNED, False)} | {name: (name, False) for name in named}


def native_variants(verb: str, s: Conv2dShape) -> dict[str, tuple[str | None, bool]]:
    """variant -> (algorithm, weight prepared)"""
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
        if algorithm == TUNED:
            return tuned(verb, s, backend, a) if backend.name == "cuda" else None
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


def tuned(verb: str, s: Conv2dShape, backend: Backend, a: Arrays) -> Run:
    """The pass as ``F.conv2d`` makes it under ``cnn.autotune()``, which times what the choice is among at first."""
    x, w = cnn.Tensor(a["x"]), cnn.Tensor(a["w"])
    options = {"stride": (s.stride_h, s.stride_w), "padding": (s.pad_h, s.pad_w), "groups": s.groups}

    def forward() -> cnn.Tensor:
        with cnn.use_backend(backend.name), cnn.autotune():
            return F.conv2d(x, w, **options)

    if verb == "conv2d_forward":
        return lambda: forward().data
    which = CONV2D_VERBS.index(verb) - 1  # of (dx, dw)
    (x, w)[which].requires_grad = True
    node = forward().node  # knows which kernels were chosen, and asks for the one gradient
    return lambda: node.backward(a["dy"])[which]


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
