"""Who runs a whole network: ours, PyTorch in both layouts and compiled, ONNX Runtime, OpenVINO.

A contender is made for a ``Work`` and gives a ``Runner``: what is timed, and how what it returns is read.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F
from bench.provenance import usable_cores
from bench.steps import LEARNING_RATE, MOMENTUM, for_inference, images_and_labels, inference_step, training_step
from cnnengine.backends.registry import active_on

from .pytorch import PyTorch, configured_torch
from .torch_networks import exported, reference

COMPILED, RUNTIME, OPENVINO = "PyTorch compiled", "ONNX Runtime", "OpenVINO"
GRAPH, CPU_GRAPH = "cuda graph", "native graph"  # ours, captured
TORCH = ("PyTorch nhwc", "PyTorch nchw", COMPILED)
EXTRA = "pip install cnnengine[networks]"
SCALE = 1024.0  # of the loss in float16: nothing overflows in the first steps, which are compared
NEEDS = {RUNTIME: "onnxruntime", OPENVINO: "openvino"}


@dataclass(frozen=True)
class Runner:
    """``run`` is timed; ``value`` runs it once and gives what must be the same for all, as float64 on the host."""

    run: Callable[[], Any]
    value: Callable[[], np.ndarray]


class Work:
    """One network at one batch: training or inference, float32 or mixed precision in ``dtype``. ``compiler`` is
    torch.compile's backend."""

    def __init__(
        self,
        network: str,
        options: dict[str, Any],
        batch: int,
        image: tuple[int, int, int],
        training: bool,
        device: str,
        dtype: str,
        compiler: str = "inductor",
    ) -> None:
        self.network, self.options, self.training = network, options, training
        self.device, self.dtype, self.compiler = device, dtype, compiler
        self.x, self.labels = images_and_labels(batch, image, 10)

    def ours(self) -> Any:
        """Freshly made, the same each time."""
        cnn.manual_seed(0)
        return cnn.models.create(self.network, **self.options)

    def theirs(self) -> Any:
        return reference(self.network, self.ours(), self.x.shape[1])

    @cached_property
    def onnx(self) -> bytes:
        """Exported once for all who read it."""
        return exported(self.theirs(), PyTorch("nchw").tensor(self.x, "float32"))


def absent(name: str, device: str) -> str | None:
    """Why a contender cannot take part, or None."""
    if name.split()[0] in cnn.backends.available():
        return cnn.backends.available()[name.split()[0]]
    if name in TORCH:
        return PyTorch("nhwc", device).unavailable()
    missing = [m for m in ("torch", NEEDS[name]) if find_spec(m) is None]  # the file they run is exported by torch
    return f"{' and '.join(missing)} not installed: {EXTRA}" if missing else None


def runner(name: str, work: Work) -> Runner:
    """Makes a contender. Raises what its library raises."""
    if name in TORCH:
        return torch_training(name, work) if work.training else torch_inference(name, work)
    if name == RUNTIME:
        return onnxruntime_inference(work)
    if name == OPENVINO:
        return openvino_inference(work)
    if work.dtype != "float32":
        return mixed_training(work, graph=name == GRAPH)
    return our_training(name, work) if work.training else our_inference(name, work)


def captured(step: Callable[[], Any]) -> Callable[[], Any]:
    """The step of a graph, once all of it is made: the second call captures. Its inputs are copied and its result is
    memory that the next call overwrites, as OpenVINO's is."""
    step(), step()
    return step


def on(name: str, work: Work, run: Callable[[], Any]) -> Callable[[], Any]:
    """The step on the named backend: as it is where that is the device's active one anyway, as for most users."""
    if active_on(work.device).name == name:
        return run

    def scoped() -> Any:
        with cnn.use_backend(name):
            return run()

    return scoped


def our_training(name: str, work: Work) -> Runner:
    images, labels = cnn.Tensor(work.x).to(work.device), active_on(work.device).to_device(work.labels)
    model = work.ours().to(work.device)
    backend, graph = name.split()[0], name == CPU_GRAPH
    step = on(backend, work, training_step(model, images, labels, graph))

    def value() -> np.ndarray:
        return np.array([step().item(), norm(p.grad.numpy() for p in model.parameters())])

    if not graph:
        return Runner(step, value)
    first = value()  # training goes on from there
    return Runner(captured(step), lambda: first)


def our_inference(name: str, work: Work) -> Runner:
    backend, graph = name.split()[0], name == CPU_GRAPH
    with cnn.use_backend(backend):
        model = for_inference(work.ours().to(work.device))
    run = cnn.graph(model) if graph else model
    step = on(backend, work, inference_step(run, cnn.Tensor(work.x).to(work.device)))
    if graph:
        step = captured(step)
    return Runner(step, lambda: step().numpy().astype(np.float64))


def mixed_training(work: Work, graph: bool) -> Runner:
    """Forward and loss within ``autocast``; float16 with a GradScaler. Captured, a step is one graph in bfloat16; in
    float16 the graph ends with the gradients, since whether they are finite is asked on the host."""
    model = work.ours().to(work.device).train()
    optimizer = cnn.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    scaler = cnn.amp.GradScaler(SCALE, enabled=work.dtype == "float16")
    images, labels = cnn.Tensor(work.x).to(work.device), active_on(work.device).to_device(work.labels)

    def gradients(images: cnn.Tensor, labels: Any) -> cnn.Tensor:
        optimizer.zero_grad()
        with cnn.amp.autocast(work.dtype):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        return loss

    def whole(images: cnn.Tensor, labels: Any) -> cnn.Tensor:
        loss = gradients(images, labels)
        optimizer.step()
        return loss

    scaled = work.dtype == "float16"
    part = gradients if scaled else whole
    call = cnn.graph(part) if graph else part

    def step() -> cnn.Tensor:
        loss = call(images, labels)
        if scaled:
            scaler.step(optimizer)
            scaler.update()
        return loss

    return Runner(step, lambda: two(lambda: step().item()))


def torch_parts(name: str, work: Work) -> tuple[Any, Any, Any]:
    """(torch, the network, its images), in the contender's layout."""
    torch = configured_torch()
    layout = torch.contiguous_format if name.endswith("nchw") else torch.channels_last
    model = work.theirs().to(device=work.device).to(memory_format=layout)
    images = PyTorch("nchw" if name.endswith("nchw") else "nhwc", work.device).tensor(work.x, "float32")
    return torch, model, images


def torch_training(name: str, work: Work) -> Runner:
    """SGD in one kernel (``fused``), which is PyTorch's fastest; ``torch.compile`` over network and loss."""
    torch, model, images = torch_parts(name, work)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)
    labels = torch.from_numpy(work.labels).to(work.device)
    scaled = work.dtype == "float16"
    scaler = torch.amp.GradScaler(work.device, SCALE, enabled=scaled)

    def precision() -> AbstractContextManager[Any]:
        return nullcontext() if work.dtype == "float32" else torch.autocast(work.device, getattr(torch, work.dtype))

    def loss_of(images: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(images), labels)

    call = torch.compile(loss_of, backend=work.compiler, dynamic=False) if name == COMPILED else loss_of

    def step() -> Any:
        with torch.enable_grad():
            optimizer.zero_grad(set_to_none=True)
            with precision():
                loss = call(images, labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss

    if work.dtype != "float32":
        return Runner(step, lambda: two(lambda: step().item()))
    return Runner(step, lambda: np.array([step().item(), norm(p.grad.cpu().numpy() for p in model.parameters())]))


def torch_inference(name: str, work: Work) -> Runner:
    """Compiled, the weights are constants (``freezing``): batch norms are folded, weights packed."""
    torch, model, images = torch_parts(name, work)
    model.eval()
    frozen: AbstractContextManager[Any] = nullcontext()
    if name == COMPILED:
        from torch._inductor import config

        model, frozen = torch.compile(model, backend=work.compiler, dynamic=False), config.patch(freezing=True)

    def step() -> Any:
        with torch.inference_mode():
            return model(images)

    with frozen:  # compiled by the first call
        step()
    return Runner(step, lambda: step().float().cpu().numpy().astype(np.float64))


def onnxruntime_inference(work: Work) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = len(usable_cores()), 1
    session = onnxruntime.InferenceSession(work.onnx, options, providers=["CPUExecutionProvider"])
    images = {"x": np.ascontiguousarray(work.x.transpose(0, 3, 1, 2))}

    def step() -> Any:
        return session.run(None, images)[0]

    return Runner(step, lambda: step().astype(np.float64))


def openvino_inference(work: Work) -> Runner:
    """float32, for latency: one stream on all cores. Its own pinning is off, since the race pins everyone's threads."""
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": len(usable_cores()),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(core.read_model(io.BytesIO(work.onnx)), "CPU", settings).create_infer_request()
    images = {0: np.ascontiguousarray(work.x.transpose(0, 3, 1, 2))}

    def step() -> Any:
        return request.infer(images, share_inputs=True, share_outputs=True)[0]

    return Runner(step, lambda: step().astype(np.float64))


def norm(gradients: Iterable[np.ndarray]) -> float:
    """Of all gradients together."""
    return float(np.sqrt(sum(np.square(g.astype(np.float64)).sum() for g in gradients)))


def two(loss: Callable[[], float]) -> np.ndarray:
    """The losses of two steps: the second tells of the gradients, which may still be scaled."""
    return np.array([loss(), loss()])
