"""LeNet-5 end to end: a training step at batch 64 (forward, backward, SGD with momentum) and inference at batch 1 and
64, ours call by call and as a graph against PyTorch in both layouts and, for inference, ONNX Runtime. All start from
the same weights and must report the same first loss."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

import cnnengine as cnn
from bench.contenders.networks import CPU_GRAPH, captured
from bench.contenders.onnx_lenet5 import lenet5 as onnx_lenet5
from bench.contenders.pytorch import PyTorch, configured_torch
from bench.provenance import usable_cores
from bench.steps import LEARNING_RATE, MOMENTUM, inference_step, training_step
from bench.suite import Race, run_alone
from cnnengine.backends.registry import active

BATCH = 64
RUNTIME = "ONNX Runtime"  # inference alone
SAME_LOSS = 1e-3
Step = Callable[[], Any]


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    training_batch, inference_batches = (2, (1,)) if smoke else (BATCH, (1, BATCH))
    return [
        _race("training step", _training, training_batch, device, smoke),
        *(_race("inference", _inference, batch, device, smoke) for batch in inference_batches),
    ]


def _race(operation: str, build: Callable[..., Any], batch: int, device: str, smoke: bool) -> Race:
    reasons = dict(cnn.backends.available())
    ours = ("cuda",) if device == "cuda" else ("native", "numpy") if smoke else ("native",)
    if device == "cpu":
        ours, reasons[CPU_GRAPH] = (*ours, CPU_GRAPH), reasons["native"]
    theirs = [PyTorch("nhwc", device), PyTorch("nchw", device)]
    reasons |= {contender.name: contender.unavailable() for contender in theirs}
    everyone = [*ours, *(contender.name for contender in theirs)]
    if operation == "inference" and device == "cpu":
        everyone.append(RUNTIME)
        reasons[RUNTIME] = None if find_spec("onnxruntime") else "ONNX Runtime is not installed"
    absent = {name: reason for name in everyone if (reason := reasons[name]) is not None}
    names = tuple(name for name in everyone if name not in absent)
    make, case = _Builder(build, batch, device), f"LeNet-5 batch {batch}"
    return Race("lenet5", operation, case, device, "float32", names, make, absent=absent, items=batch)


def test_lenet5(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)


class _Builder:
    """Makes the named contenders' steps and checks that what they return at first agrees."""

    def __init__(self, build: Callable[..., Any], batch: int, device: str) -> None:
        self._build, self._batch, self._device = build, batch, device

    def __call__(self, names: tuple[str, ...]) -> dict[str, Step]:
        generator = np.random.default_rng(0)
        x = generator.standard_normal((self._batch, 28, 28, 1), np.float32)
        labels = generator.integers(0, 10, self._batch)
        made = {name: self._build(name, x, labels, self._device) for name in names}
        first = {name: float(value()) for name, (_, value) in made.items()}
        reference = next(iter(first.values()))
        if not all(abs(value - reference) <= SAME_LOSS * abs(reference) for value in first.values()):
            raise ArithmeticError(f"LeNet-5, batch {self._batch}: the contenders disagree: {first}")
        return {name: step for name, (step, _) in made.items()}


def _training(name: str, x: np.ndarray, labels: np.ndarray, device: str) -> tuple[Step, Step]:
    """(a step, a step that returns the loss)"""
    if name.startswith("PyTorch"):
        return _torch_training(name, x, labels, device)
    backend, graph = name.split()[0], name == CPU_GRAPH
    images, target = cnn.Tensor(x).to(device), cnn.backends.get(backend).to_device(labels)
    step = _on(backend, images, training_step(_our_model(device), images, target, graph))
    if not graph:
        return step, lambda: step().item()
    first = step().item()  # training goes on from there
    return captured(step), lambda: first


def _inference(name: str, x: np.ndarray, labels: np.ndarray, device: str) -> tuple[Step, Step]:
    """(the logits, their mean square)"""
    del labels
    if name == RUNTIME:
        return _onnxruntime_inference(x)
    if name.startswith("PyTorch"):
        return _torch_inference(name, x, device)
    backend, graph = name.split()[0], name == CPU_GRAPH
    model, images = _our_model(device).eval(), cnn.Tensor(x).to(device)
    step = _on(backend, images, inference_step(cnn.graph(model) if graph else model, images))
    if graph:
        step = captured(step)
    return step, lambda: np.square(step().numpy()).mean()


def _on(name: str, x: cnn.Tensor, step: Step) -> Step:
    """The step on the named backend: as it is where that is the backend of x anyway, as for most users."""
    if active(x.data).name == name:
        return step

    def scoped() -> Any:
        with cnn.use_backend(name):
            return step()

    return scoped


def _our_model(device: str) -> Any:
    cnn.manual_seed(0)
    return cnn.models.lenet5(flatten="CHW").to(device)


def _our_weights() -> list[np.ndarray]:
    return [np.array(p.numpy()) for p in _our_model("cpu").parameters()]


def _torch_model(name: str, device: str) -> Any:
    """The same network with the same weights."""
    torch = configured_torch()
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    with torch.no_grad():
        for theirs, weight in zip(model.parameters(), _our_weights(), strict=True):
            nchw = weight.transpose(0, 3, 1, 2) if weight.ndim == 4 else weight
            theirs.copy_(torch.from_numpy(np.ascontiguousarray(nchw)))
    layout = torch.channels_last if name.endswith("nhwc") else torch.contiguous_format
    return model.to(device=device, memory_format=layout)


def _torch_training(name: str, x: np.ndarray, labels: np.ndarray, device: str) -> tuple[Step, Step]:
    torch = configured_torch()
    model = _torch_model(name, device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    images = PyTorch(name.split()[1], device).tensor(x, "float32")
    target = torch.from_numpy(labels).to(device)

    def step() -> Any:
        with torch.enable_grad():
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(images), target)
            loss.backward()
            optimizer.step()
        return loss

    return step, lambda: step().item()


def _torch_inference(name: str, x: np.ndarray, device: str) -> tuple[Step, Step]:
    torch = configured_torch()
    model = _torch_model(name, device).eval()
    images = PyTorch(name.split()[1], device).tensor(x, "float32")

    def step() -> Any:
        with torch.inference_mode():
            return model(images)

    return step, lambda: step().square().mean().item()


def _onnxruntime_inference(x: np.ndarray) -> tuple[Step, Step]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = len(usable_cores()), 1
    model = onnx_lenet5(_our_weights(), len(x))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    images = {"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2))}

    def step() -> Any:
        return session.run(None, images)[0]

    return step, lambda: np.square(step()).mean()
