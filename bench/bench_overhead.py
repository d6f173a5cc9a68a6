"""What Python costs per operation: a call that records a gradient, on inputs of one element, against the backend verb
that it ends in, called directly. DESIGN rule: at most 6 microseconds apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import cnnengine as cnn
import cnnengine.functional as F
from bench.suite import Race, run_alone
from cnnengine.backends.contract import IDENTITY, Epilogue
from cnnengine.shapes import broadcast_shape, conv2d_shape, gemm_shape, pool2d_shape

LIMIT_MICROSECONDS = 6.0
NAMES = ("call", "kernel")
ONE = (1, 1, 1, 1)
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    del smoke  # nothing here is large
    name = "cuda" if device == "cuda" else "native"
    reason = cnn.backends.available()[name]
    if reason is not None:
        return [Race("overhead", "conv2d", "1x1x1x1", device, "float32", (), lambda names: {}, absent={name: reason})]
    pairs = {"conv2d": _conv2d, "max_pool2d": _max_pool2d, "relu": _relu, "add": _add, "linear": _linear}
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


def _max_pool2d(backend: Any) -> Pair:
    x = cnn.Tensor(_ones(backend), requires_grad=True)
    shape, y = pool2d_shape("max_pool2d", ONE, 1), _ones(backend)
    index = backend.empty(ONE, shape.index_dtype)
    return lambda: F.max_pool2d(x, 1), lambda: backend.pool2d_forward("max", shape, x.data, y, index)


def _relu(backend: Any) -> Pair:
    x, y = cnn.Tensor(_ones(backend), requires_grad=True), _ones(backend)
    return lambda: F.relu(x), lambda: backend.activation_forward("relu", x.data, y)


def _add(backend: Any) -> Pair:
    a, b = (cnn.Tensor(_ones(backend), requires_grad=True) for _ in range(2))
    y, (_, shape) = _ones(backend), broadcast_shape("add", ONE, ONE)
    return lambda: a + b, lambda: backend.binary("add", shape, a.data, b.data, y)


def _linear(backend: Any) -> Pair:
    x, w = (cnn.Tensor(_ones(backend, 1, 1), requires_grad=True) for _ in range(2))
    b = cnn.Tensor(_ones(backend, 1), requires_grad=True)
    shape, y, epilogue = gemm_shape(1, 1, 1, 1, False, True, False, False), _ones(backend, 1, 1), Epilogue(b.data)
    return lambda: F.linear(x, w, b), lambda: backend.gemm(shape, x.data, w.data, y, epilogue)
