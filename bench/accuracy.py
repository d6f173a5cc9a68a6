"""How far Winograd's convolution rounds: its errors against a float64 sum, beside those of the kernels without it.

Rows carry ``rms_ratio`` and ``largest_ratio``, its errors over those of ``implicit_gemm``, the kernel it replaces,
which sums an output's products in chains of up to 1024; with ``_to_torch``, over those of PyTorch's channels_last
kernel, whose chain is all of them; with ``_to_direct``, over those of our ``direct``. That one rounds least, though in
float32 too: every tap has a sum of its own, forward even one for each lane of a vector, so that the longest chain is
C / 16 + R S of R S C products. On random data at the sizes of the 3x3 and 5x5 layers, and on what the 3x3 layers of a
small network see after training on the embedded digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F
from bench.bench_conv2d import torch_verb
from bench.contenders.pytorch import PyTorch, configured_torch, to_host
from bench.layers import CONV2D
from cnnengine import backends
from cnnengine.backends.contract import CONV2D_VERBS, IDENTITY, Backend
from cnnengine.shapes import Conv2dShape, conv2d_shape

STEPS, BATCH, RATE = 60, 64, 0.05
BESIDE = {"implicit_gemm": "", "torch": "_to_torch", "direct": "_to_direct"}  # contender -> how its fields end
WIDTHS = (1, 32, 64, 64)  # channels before and after each 3x3 layer of the small network
FEWEST = 64  # channels of a layer on random data: LeNet-5's have too few for Winograd's
Arrays = dict[str, np.ndarray]  # x, w, dy


def measurements(smoke: bool = False) -> Iterator[dict[str, Any]]:
    """One row for each verb and case; none where the native backend has no Winograd convolution."""
    if backends.available()["native"] is not None:
        return
    native = backends.get("native")
    if "winograd" not in native.algorithms["conv2d_forward"]:
        return
    *gathering, weight = CONV2D_VERBS
    cases = [(gathering, case) for case in random_cases(smoke)]
    cases += [([weight], case) for case in random_cases(smoke, all_images=True)]
    cases += [(list(CONV2D_VERBS), case) for case in trained_cases(2 if smoke else STEPS)]
    for verbs, (case, shape, arrays) in cases:
        for verb in verbs:
            if "winograd" not in native.algorithms[verb]:
                continue
            exact = convolved(backends.get("numpy"), verb, shape, arrays, None, np.float64)
            results = {
                name: convolved(native, verb, shape, arrays, name) for name in ("winograd", "implicit_gemm", "direct")
            }
            if find_spec("torch") is not None:
                results["torch"] = torch_convolved(verb, shape, arrays)
            errors = {name: result - exact for name, result in results.items()}
            rms = {name: float(np.sqrt(np.mean(np.square(e)))) for name, e in errors.items()}
            largest = {name: float(np.abs(e).max()) for name, e in errors.items()}
            ratios = {
                f"{what}_ratio{suffix}": of["winograd"] / of[other]
                for what, of in (("rms", rms), ("largest", largest))
                for other, suffix in BESIDE.items()
                if other in of
            }
            yield {
                "suite": "accuracy",
                "operation": verb,
                "case": case,
                "device": "cpu",
                "dtype": "float32",
                "contender": "native winograd",
                "rms_error": rms["winograd"],
                "largest_error": largest["winograd"],
                **ratios,
            }


def random_cases(smoke: bool, all_images: bool = False) -> Iterator[tuple[str, Conv2dShape, Arrays]]:
    """The 3x3 and 5x5 layers of stride 1 and 64 channels or more at batch 1, or at their own, over which the gradients
    of weights are summed."""
    chosen = [
        layer
        for layer in CONV2D
        if layer.kernel in (3, 5) and layer.stride == 1 and layer.groups == 1 and layer.C >= FEWEST
    ]
    for layer in chosen[:1] if smoke else chosen:
        images = layer.N if all_images else 1
        shape, rng = replace(layer, N=images).shape, np.random.default_rng(0)
        arrays = {name: rng.standard_normal(getattr(shape, name), np.float32) for name in "xwy"}
        yield f"{layer.name} ({images})", shape, arrays


def trained_cases(steps: int) -> Iterator[tuple[str, Conv2dShape, Arrays]]:
    """Activations and weights of the 3x3 layers that Winograd's could compute, and random gradients."""
    cnn.manual_seed(0)
    rng, data = np.random.default_rng(0), cnn.data.digits()
    images = data.normalize(data.train_images)
    layers = [cnn.nn.Conv2d(c, k, 3, padding=1) for c, k in pairwise(WIDTHS)]
    last = cnn.nn.Linear(WIDTHS[-1], 10)
    parameters = [p for layer in (*layers, last) for p in layer.parameters()]
    optimizer = cnn.optim.SGD(parameters, lr=RATE, momentum=0.9)

    def seen(x: Any) -> list[Any]:
        """The input of each layer, and of the last."""
        inputs = [cnn.Tensor(x)]
        for i, layer in enumerate(layers):
            y = F.relu(layer(inputs[-1]))
            inputs.append(F.max_pool2d(y, 2) if i < 2 else y)
        return inputs

    with cnn.use_backend("native"):
        for _ in range(steps):
            chosen = rng.integers(0, len(images), BATCH)
            optimizer.zero_grad()
            scores = last(seen(images[chosen])[-1].mean(axis=(1, 2)))
            F.cross_entropy(scores, data.train_labels[chosen].astype(np.int64)).backward()
            optimizer.step()
        with cnn.no_grad():
            inputs = [t.numpy() for t in seen(images[:8])]
    for x, layer in list(zip(inputs, layers, strict=False))[1:]:
        w = layer.weight.numpy()
        shape = conv2d_shape(x.shape, w.shape, 1, 1)
        y = rng.standard_normal(shape.y, np.float32)
        yield f"trained 3x3 {shape.C}>{shape.K} @{shape.H}", shape, {"x": x, "w": w, "y": y}


def torch_convolved(verb: str, s: Conv2dShape, a: Arrays) -> np.ndarray:
    """PyTorch's result on channels_last tensors, (N, H, W, C) as ours."""
    layout = PyTorch("nhwc")
    tensors = {{"y": "dy"}.get(name, name): layout.tensor(array, "float32") for name, array in a.items()}
    result = to_host(torch_verb(verb, s, configured_torch(), tensors)())
    assert result is not None
    return result


def convolved(
    backend: Backend, verb: str, s: Conv2dShape, a: Arrays, algorithm: str | None, dtype: Any = np.float32
) -> np.ndarray:
    """The result of one of the three verbs, in ``dtype``; ``a`` holds x, w and, in place of dy, y."""
    out = np.empty({"conv2d_forward": s.y, "conv2d_backward_input": s.x, "conv2d_backward_weight": s.w}[verb], dtype)
    if verb == "conv2d_forward":
        backend.conv2d_forward(s, a["x"], a["w"], out, IDENTITY, algorithm)
    elif verb == "conv2d_backward_input":
        backend.conv2d_backward_input(s, a["y"], a["w"], out, algorithm)
    else:
        backend.conv2d_backward_weight(s, a["x"], a["y"], out, algorithm)
    return out
