"""What Python costs per operation: a call that records a gradient, on inputs of one element, against the backend verb
that it ends in, called directly. DESIGN rule: at most 6 microseconds apart. On a GPU also what a verb costs beside
cuLaunchKernel with arguments that are at hand, and a training step beside the launch of its graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F
from bench.suite import Race, run_alone
from cnnengine.backends import _kernel_library as library
from cnnengine.backends.contract import IDENTITY, Epilogue
from cnnengine.shapes import broadcast_shape, conv2d_shape, gemm_shape, pool2d_shape, reduce_shape

NAMES = ("call", "kernel")
ONE = (1, 1, 1, 1)
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    del smoke  # nothing here is large
    name = "cuda" if device == "cuda" else "native"
    reason = cnn.backends.available()[name]
    if reason is not None:
        return [Race("overhead", "conv2d", "1x1x1x1", device, "float32", (), lambda names: {}, absent={name: reason})]
    pairs = {
        "conv2d": _conv2d,
        "max_pool2d": _max_pool2d,
        "relu": _relu,
        "add": _add,
        "sum": _sum,
        "linear": _linear,
        "dropout": _dropout,
        "cross_entropy": _cross_entropy,
    }
    if device == "cuda":
        pairs |= {"launch": _launch_verb, "graph": _graph}
    return [
        Race("overhead", operation, "1x1x1x1", device, "float32", NAMES, _Builder(make, name))
        for operation, make in pairs.items()
    ]


def test_overhead(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)


class _Builder:
    def __init__(self, make: Callable[[Any], Pair], backend: str) -> None:
        self._make, self._backend = make, backend

    def __call__(self, names: tuple[str, ...]) -> dict[str, Callable[[], Any]]:
        made = dict(zip(NAMES, self._make(cnn.set_backend(self._backend)), strict=True))
        return {name: made[name] for name in names}


def _ones(backend: Any, *shape: int) -> Any:
    return backend.to_device(np.ones(shape or ONE, np.float32))


def _conv2d(backend: Any) -> Pair:
    x, w = (cnn.Tensor(_ones(backend), requires_grad=True) for _ in range(2))
    shape, y = conv2d_shape(ONE, ONE), _ones(backend)
    return lambda: F.conv2d(x, w), lambda: backend.conv2d_forward(shape, x.data, w.data, y, IDENTITY, None)


def _launch_verb(backend: Any) -> Pair:
    x, y = _ones(backend), _ones(backend)
    expression = "activation_forward<float, Relu>"
    kernel = backend.runtime.kernel(library.source("activation", "float32"), expression)
    arguments = x, y, np.int64(1), 0.0
    return lambda: backend.activation_forward("relu", x, y, 0.0), lambda: kernel((1, 1, 1), (32, 1, 1), 0, arguments)


def _graph(backend: Any) -> Pair:
    """A small training step by ``cnn.graph``: its call, and the launch that it ends in."""
    w = cnn.nn.Parameter(np.ones((1, 1), np.float32))
    w.data = backend.to_device(w.data)
    optimizer = cnn.optim.SGD([w], lr=0.0)

    def step(x: cnn.Tensor) -> cnn.Tensor:
        optimizer.zero_grad()
        loss = F.linear(x, w).sum()
        loss.backward()
        optimizer.step()
        return loss

    graph, x = cnn.graph(step), cnn.Tensor(_ones(backend, 1, 1))
    for _ in range(2):  # as it is, then captured
        graph(x)
    (captured,) = graph._found.values()
    assert captured.capture is not None
    return lambda: graph(x), captured.capture.launch


def _max_pool2d(backend: Any) -> Pair:
    x = cnn.Tensor(_ones(backend), requires_grad=True)
    shape, y = pool2d_shape("max_pool2d", ONE, 1), _ones(backend)
    index = backend.empty(ONE, shape.index_dtype)
    return lambda: F.max_pool2d(x, 1), lambda: backend.pool2d_forward("max", shape, x.data, y, index)


def _relu(backend: Any) -> Pair:
    x, y = cnn.Tensor(_ones(backend), requires_grad=True), _ones(backend)
    return lambda: F.relu(x), lambda: backend.activation_forward("relu", x.data, y, 0.0)


def _add(backend: Any) -> Pair:
    a, b = (cnn.Tensor(_ones(backend), requires_grad=True) for _ in range(2))
    y, (_, shape) = _ones(backend), broadcast_shape("add", ONE, ONE)
    return lambda: a + b, lambda: backend.binary("add", shape, a.data, b.data, y)


def _sum(backend: Any) -> Pair:
    x, y, shape = cnn.Tensor(_ones(backend), requires_grad=True), _ones(backend), reduce_shape(1, 1, 1)
    return lambda: x.sum(), lambda: backend.reduce("sum", shape, x.data, y)


def _dropout(backend: Any) -> Pair:
    x, y = cnn.Tensor(_ones(backend), requires_grad=True), _ones(backend)
    state = backend.to_device(np.zeros(2, np.uint64))
    return lambda: F.dropout(x, 0.5), lambda: backend.dropout(x.data, y, 2**31, 2.0, state)


def _cross_entropy(backend: Any) -> Pair:
    """Three verbs: the losses, their sum, and its division by the batch."""
    x, loss, probability = cnn.Tensor(_ones(backend, 1, 1), requires_grad=True), _ones(backend, 1), _ones(backend, 1, 1)
    labels = backend.to_device(np.zeros(1, np.int64))
    rows, (_, scalar), total, mean = reduce_shape(1, 1, 1), broadcast_shape("mul", (1,), (1,)), *_ones(backend, 2, 1)

    def kernels() -> None:
        backend.softmax_cross_entropy_forward(x.data, labels, loss, probability)
        backend.reduce("sum", rows, loss, total)
        backend.binary("mul", scalar, total, loss, mean)

    return lambda: F.cross_entropy(x, labels), kernels


def _linear(backend: Any) -> Pair:
    x, w = (cnn.Tensor(_ones(backend, 1, 1), requires_grad=True) for _ in range(2))
    b = cnn.Tensor(_ones(backend, 1), requires_grad=True)
    shape, y, epilogue = gemm_shape(1, 1, 1, 1, False, True, False, False), _ones(backend, 1, 1), Epilogue(b.data)
    return lambda: F.linear(x, w, b), lambda: backend.gemm(shape, x.data, w.data, y, epilogue)
