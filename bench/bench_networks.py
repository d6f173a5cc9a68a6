"""Whole networks: a training step (forward, cross-entropy, backward, SGD with momentum) and inference, fused.

On the CPU in float32 against PyTorch, eager in both layouts and compiled, and for inference ONNX Runtime and OpenVINO.
On a GPU a training step in mixed precision, also as a graph. All start from the same weights and must give the same
logits, or the same loss and norm of all gradients, in mixed precision the same losses of two steps. Dropout and
stochastic depth are off everywhere, since no two draw the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.contenders.networks import COMPILED, CPU_GRAPH, GRAPH, OPENVINO, RUNTIME, TORCH, Work, absent, runner
from bench.suite import Race, run_alone
from bench.task import relative_error, summary

SAME = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}  # relative, of logits and of losses
SAME_GRADIENTS = 2e-2  # of norms, float32: roundings of ResNet-50 at small sizes reach 1e-2, PyTorch's too
SMOKE_BATCH = 2
NOT_COMPILED = "torch.compile takes half a minute a network: not in a smoke run"


@dataclass(frozen=True)
class Network:
    """A network of ``cnn.models``, how it is made, the batches it is raced at, the side of images in a smoke run."""

    name: str
    title: str
    image: tuple[int, int, int] = (224, 224, 3)
    training: tuple[int, ...] = (16,)
    inference: tuple[int, ...] = (1, 32)
    small: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    sized: bool = False  # made for images of one size, by the option image_size


NETWORKS = (
    Network("lenet5", "LeNet-5", (28, 28, 1), training=(), small=28, options={"flatten": "CHW"}),
    Network("alexnet", "AlexNet", small=224, options={"dropout": 0.0}),
    Network("vgg16", "VGG-16", training=(), inference=(1,), small=224, options={"dropout": 0.0}),
    Network("resnet18", "ResNet-18"),
    Network("resnet50", "ResNet-50"),
    Network("mobilenet_v2", "MobileNetV2", training=(), options={"dropout": 0.0}),
    Network("efficientnet_b0", "EfficientNet-B0", options={"dropout": 0.0, "stochastic_depth": 0.0}),
    Network(
        "efficientnet_lite0",
        "EfficientNet-Lite0",
        training=(),
        options={"dropout": 0.0, "stochastic_depth": 0.0},
    ),
    Network("vit_tiny", "ViT-Ti", sized=True),
    Network("coatnet_0", "CoAtNet-0", sized=True, options={"drop_path_rate": 0.0}),
    Network("mobilevit_s", "MobileViT-S", (256, 256, 3), training=()),
)
ON_GPU = ("resnet50", "efficientnet_b0")
GPU_BATCH = 256
SMALL_ON_GPU = (Network("resnet20", "ResNet-20", (8, 8, 3), small=8),)  # what kernels on a CPU bear


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    if device == "cuda":
        chosen = SMALL_ON_GPU if smoke else [n for n in NETWORKS if n.name in ON_GPU]
        batch = SMOKE_BATCH if smoke else GPU_BATCH
        return [_race(n, True, batch, device, dtype, smoke) for n in chosen for dtype in ("float16", "bfloat16")]
    trained = [(n, True, b) for n in NETWORKS for b in n.training]
    run = [(n, False, b) for n in NETWORKS for b in n.inference]
    if smoke:
        run = [(n, False, 1) for n in NETWORKS]
    return [_race(n, t, SMOKE_BATCH if smoke and t else b, device, "float32", smoke) for n, t, b in (*trained, *run)]


def test_networks(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)


def _race(network: Network, training: bool, batch: int, device: str, dtype: str, smoke: bool) -> Race:
    ours = ("cuda", GRAPH) if device == "cuda" else ("native", CPU_GRAPH)
    others = (RUNTIME, OPENVINO) if device == "cpu" and not training else ()
    theirs = [name for name in TORCH if device == "cpu" or name != "PyTorch nchw"]
    everyone = (*ours, *theirs, *others)
    missing = {name: reason for name in everyone if (reason := absent(name, device)) is not None}
    # in a smoke run LeNet-5's is traced, and run as it is
    if smoke and network.name != "lenet5":
        missing.setdefault(COMPILED, NOT_COMPILED)
    image = (network.small, network.small, network.image[2]) if smoke else network.image
    compiler = "eager" if smoke else "inductor"

    options = network.options | ({"image_size": image[0]} if network.sized else {})

    def work() -> Work:
        return Work(network.name, options, batch, image, training, device, dtype, compiler)

    allowed = SAME_GRADIENTS if training and dtype == "float32" else SAME[dtype]
    builder = _Builder(work, allowed, tolerant=device == "cuda")
    return Race(
        "networks",
        "training step" if training else "inference",
        f"{network.title} batch {batch}",
        device,
        dtype,
        tuple(name for name in everyone if name not in missing),
        builder,
        items=batch,
        absent=missing,
        left_out=builder.left_out,
    )


class _Builder:
    """Makes the named contenders and checks that they agree. One of the others that cannot run the network is left out
    with its reason. ``tolerant``: so is one of ours, and one that is wrong."""

    def __init__(self, work: Callable[[], Work], allowed: float, tolerant: bool) -> None:
        self._work, self._allowed, self._tolerant = work, allowed, tolerant
        self.left_out: dict[str, str] = {}

    def __call__(self, names: tuple[str, ...]) -> dict[str, Callable[[], Any]]:
        self.left_out.clear()
        if "torch" in sys.modules:
            sys.modules["torch"].compiler.reset()  # what the last race compiled
        work = self._work()
        made, values = {}, {}
        for name in names:
            try:
                made[name] = runner(name, work)
                values[name] = made[name].value()
            except Exception as error:
                if not self._tolerant and name == "native":
                    raise
                self.left_out[name] = summary(error)
        first = next(iter(values), None)
        for name, value in values.items():
            error = distance(value, values[first])
            if not error <= self._allowed:
                reason = f"{name} differs from {first} by {error:.1e} (relative), more than {self._allowed:.0e}"
                if not self._tolerant:
                    raise ArithmeticError(f"{work.network}, batch {len(work.x)}: {reason}")
                self.left_out[name] = f"refused: {reason}"
        return {name: made[name].run for name in values if name not in self.left_out}


def distance(value: Any, known: Any) -> float:
    """Of logits in the 2-norm, of a step's few numbers the largest; relative."""
    if value.ndim > 1:
        return relative_error(value, known)
    return max(relative_error(v, k) for v, k in zip(value.reshape(-1, 1), known.reshape(-1, 1), strict=True))
