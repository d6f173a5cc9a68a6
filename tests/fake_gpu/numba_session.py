"""Runs in a process of its own, with the fake driver and the fake CuPy: what a launch of a Numba kernel hands to the
driver, what the second call of a kind costs, and that a graph captures it. Prints "done".

Compiling is stood in for. The ReLU kernel is a function of Python, which reads its arguments as Numba's code does."""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import numba.core.config  # before the backend asks for the simulator
import numpy as np
import pretend
from calls import called
from cnnengine.kernels.activation import KINDS

import cnnengine as cnn
from cnnengine.backends import numba as numba_backend
from cnnengine.backends.contract import IDENTITY, Epilogue
from cnnengine.backends.numba import compiled
from cnnengine.jit.nvrtc import Cubin
from cnnengine.shapes import conv2d_shape, gemm_shape, norm_shape, reduce_shape

LAUNCHES, MODULES = 12, 13
RELU = KINDS["relu"]
PLANNING = {"_prepare", "_packed", "find", "build", "flat", "signature_of", "place_of", "arrays_of", "start", "choose"}
KERNEL = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    *(ctypes.POINTER(ctypes.c_uint),) * 3,
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_char_p,
    ctypes.c_int,
)
built: list[str] = []


def array_at(arguments: Any, position: int, axes: int) -> tuple[np.ndarray, int]:
    """The array whose parts begin there, and the position behind them."""
    words = [ctypes.c_int64.from_address(arguments[position + i]).value for i in range(5 + 2 * axes)]
    nothing, parent, size, itemsize, address, *rest = words
    shape, strides = rest[:axes], rest[axes:]
    assert (nothing, parent, size, itemsize) == (0, 0, np.prod(shape), 4), words
    memory = (ctypes.c_float * size).from_address(address)
    array = np.ctypeslib.as_array(memory).reshape(shape)
    assert list(array.strides) == strides, (array.strides, strides)
    return array, position + len(words)


@KERNEL
def activation_forward(kernel: int, grid: Any, block: Any, *rest: Any) -> int:
    _, _, arguments, _, _ = rest  # cluster, shared memory, arguments, error and its length
    if ctypes.c_int.from_address(arguments[0]).value != RELU:
        return 0
    x, position = array_at(arguments, 1, 1)
    y, position = array_at(arguments, position, 1)
    assert grid[0] * block[0] * 4 >= x.size > (grid[0] - 1) * block[0] * 4
    assert ctypes.c_float.from_address(arguments[position]).value == 0.25
    y[:] = np.where(x > 0, x, 0)
    return 0


def build(kernel: Any, signature: Any, capability: Any, kept: Any) -> Cubin:
    name = kernel.py_func.__name__
    built.append(name)
    assert capability == (9, 0)
    address = ctypes.cast(activation_forward, ctypes.c_void_p) if name == "activation_forward" else None
    pretend.driver.fake_register(name.encode(), address, 0)
    return Cubin(b"\x7fELF", {name: name}, "")


def second_call(backend: Any, verb: str, arguments: tuple[Any, ...], launches: int) -> None:
    call = partial(getattr(backend, verb), *arguments)
    call()
    before, compilations = pretend.last(LAUNCHES, MODULES), len(built)
    names = called(call)
    assert pretend.last(LAUNCHES, MODULES) == (before[0] + launches, before[1]), (verb, before)
    assert len(built) == compilations, verb
    assert names.count("run") == 1, "one call into the launcher"
    assert not set(names) & PLANNING, (verb, names)


def costs(backend: Any) -> None:
    def ones(*shape: int) -> Any:
        return backend.to_device(np.ones(shape, np.float32))

    s = conv2d_shape((2, 8, 8, 8), (64, 3, 3, 8), padding=1)
    x, w, y = ones(*s.x), ones(*s.w), ones(*s.y)
    for rung in ("direct", "tiled", "implicit_gemm", "implicit_gemm_tf32"):
        second_call(backend, "conv2d_forward", (s, x, w, y, IDENTITY, rung), 1)
        second_call(backend, "conv2d_backward_input", (s, y, w, x, rung), 1)
        second_call(backend, "conv2d_backward_weight", (s, x, y, w, rung), 1 if rung == "direct" else 2)
    second_call(backend, "conv2d_forward", (s, x, backend.conv2d_prepare(s, w, "direct"), y, IDENTITY, None), 1)
    second_call(backend, "conv2d_forward", (s, x, w, y, Epilogue(ones(64), activation="silu"), None), 2)
    second_call(backend, "unary", ("exp", x, x), 1)
    second_call(backend, "reduce", ("sum", reduce_shape(1, 5000, 3), ones(5000, 3), ones(3)), 2)
    g = gemm_shape(1, 40, 20, 30, False, False, False, False)
    second_call(backend, "gemm", (g, ones(40, 30), ones(30, 20), ones(40, 20), IDENTITY), 1)
    rows = norm_shape(1, 100, 8, 1)
    norm = rows, ones(100, 8), ones(8), ones(8), None, ones(100, 8), ones(1, 8), ones(1, 8), 1e-5, "relu"
    second_call(backend, "norm_forward", norm, 3)
    parameters, gradients, states = ([ones(3), ones(4, 5)] for _ in range(3))
    second_call(backend, "optimizer_step", ("sgd", parameters, gradients, states, ones(5)), 2)


def arguments(backend: Any) -> None:
    """The first call and prepared ones, of other arrays and shapes."""
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7), (3, 1000)):
        x = rng.standard_normal(shape).astype(np.float32)
        y = backend.empty(shape, np.float32)
        backend.activation_forward("relu", backend.to_device(x), y, 0.25)
        np.testing.assert_array_equal(backend.to_host(y), np.maximum(x, 0))


def graphs(backend: Any) -> None:
    """Captured at the second call of a kind, then one launch a step."""
    rng = np.random.default_rng(1)

    def step(x: Any) -> Any:
        y = backend.empty(x.shape, np.float32)
        backend.activation_forward("relu", x.data, y, 0.25)
        return cnn.Tensor(y)

    run = cnn.graph(step)
    pretend.calls()
    for _ in range(4):
        x = rng.standard_normal((6, 5)).astype(np.float32)
        y = run(cnn.Tensor(backend.to_device(x)))
        np.testing.assert_array_equal(backend.to_host(y.data), np.maximum(x, 0))
    assert (run.captures, run.nodes) == (1, 1)
    assert pretend.calls().count("launch") == 3


assert not numba.core.config.ENABLE_CUDASIM
numba_backend._no_gpu = lambda: None
compiled.build = build
with cnn.use_backend("numba") as chosen:
    assert chosen.device == "cuda"
    arguments(chosen)
    costs(chosen)
    graphs(chosen)
print("done")
