"""What the numba backend hands to a GPU, checked without one: CuPy, the driver and the launch are stood in for.

Each launch's arguments must have the types that SIGNATURES promises, since those are what the compile test compiles;
they go out on CuPy's current stream, without waiting for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="Numba is not installed")

ROOT = Path(__file__).resolve().parent.parent

STAND_INS = """
import sys
import types
import numpy as np

cupy = types.ModuleType("cupy")
cupy.ndarray, cupy.empty, cupy.asarray, cupy.asnumpy = np.ndarray, np.empty, np.asarray, np.asarray
stream = types.SimpleNamespace(ptr=7, synchronize=lambda: None)
runtime = types.SimpleNamespace(getDevice=lambda: 0)
cupy.cuda = types.SimpleNamespace(get_current_stream=lambda: stream, runtime=runtime)
sys.modules["cupy"] = cupy

from numba import cuda
from numba.cuda.dispatcher import CUDADispatcher
from numba.cuda.typing.typeof import Purpose, typeof

waits, launches = [], []
cuda.as_cuda_array = lambda array, sync=True: waits.append(sync) or array
cuda.external_stream = lambda pointer: ("stream", pointer)
CUDADispatcher.__getitem__ = lambda kernel, configuration: lambda *args: launches.append((kernel, configuration, args))

from cnnengine.backends.numba.gpu import GpuBackend

backend = GpuBackend()
"""

EVERY_VERB = """
from importlib import import_module
from cnnengine import shapes
from cnnengine.backends.contract import BINARY, IDENTITY, UNARY, Epilogue

def new(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)

for groups, w in ((1, (40, 3, 3, 4)), (4, (4, 3, 3, 1))):
    shape = shapes.conv2d_shape((2, 30, 30, 4), w, 1, 1, 1, groups)
    x, w, y = new(*shape.x), new(*shape.w), new(*shape.y)
    for algorithm in (None, "direct", "tiled"):
        for epilogue in (IDENTITY, Epilogue(*(new(shape.K) for _ in range(3)), y, "relu")):
            backend.conv2d_forward(shape, x, w, y, epilogue, algorithm)
        backend.conv2d_forward(shape, x, backend.conv2d_prepare(shape, w, algorithm), y, IDENTITY, None)
        backend.conv2d_backward_input(shape, y, w, x, algorithm)
        backend.conv2d_backward_weight(shape, x, y, w, algorithm)
for window in (2, 17):  # 4 taps: uint8; 289 taps: int32
    shape = shapes.pool2d_shape("max_pool2d", (2, 20, 20, 3), window)
    x, y, index = new(*shape.x), new(*shape.y), new(*shape.y, dtype=shape.index_dtype)
    backend.pool2d_forward("max", shape, x, y, index)
    backend.pool2d_forward("max", shape, x, y, None)
    backend.pool2d_backward("max", shape, y, index, x)
    backend.pool2d_forward("avg", shape, x, y, None)
    backend.pool2d_backward("avg", shape, y, None, x)
x = new(3, 5)
backend.activation_forward("relu", x, x, 0.0)
backend.activation_backward("relu", x, x, x, 0.0)
for op in UNARY:
    backend.unary(op, x, x)
for op in BINARY:
    backend.binary(op, shapes.broadcast_shape(op, (3, 5), (5,))[1], x, new(5), x)
for op in ("sum", "max"):
    for outer, reduced, inner in ((1, 100000, 1), (1, 100000, 64), (5, 3, 2)):
        backend.reduce(op, shapes.reduce_shape(outer, reduced, inner), new(outer, reduced, inner), new(outer, inner))
for m in (2, 200):
    for transpose in (False, True):
        shape = shapes.gemm_shape(1, m, 64, 32, transpose, transpose, False, True)
        backend.gemm(shape, new(1, m, 32), new(32, 64), new(1, m, 64), Epilogue(bias=new(64)))
labels = new(3, dtype=np.int64)
backend.softmax_cross_entropy_forward(x, labels, new(3), x)
backend.softmax_cross_entropy_backward(x, labels, new(3), x)
backend.normalize_images(new(3, 5, dtype=np.uint8), new(5), new(5), x)
backend.dropout(x, x, 2**31, 2.0, new(2, dtype=np.uint64))
for states in ([], [x]):
    backend.optimizer_step("sgd", [x], [x], states, new(5))
backend.optimizer_step("adam", [x], [x], [x, x], new(10))
for sizes in ((2, 50, 4, 8), (50, 1, 4, 8)):  # statistics over columns, and over rows
    shape = shapes.norm_shape(*sizes)
    x, gain, mean = new(*shape.x), new(shape.channels), new(*shape.statistics)
    for activation in ("identity", "relu"):
        backend.norm_forward(shape, x, gain, gain, x, x, mean, mean, 1e-5, activation)
        backend.norm_backward(shape, x, gain, mean, mean, x, x, x, gain, gain, x, 1e-5, activation)
    backend.norm_forward(shape, x, None, None, None, x, mean, mean, 1e-5, "identity")
    backend.apply_epilogue(x, x, Epilogue(gain, gain, gain, x, "relu"))

promised = {}
for stem in STEMS:
    for kernel, arguments in getattr(import_module(f"cnnengine.kernels.{stem}"), "SIGNATURES", []):
        promised.setdefault(kernel.py_func.__name__, set()).add(arguments)
launched = {}
for kernel, (grid, block, on), args in launches:
    name = kernel.py_func.__name__
    types_ = tuple(typeof(a, Purpose.argument) for a in args)
    assert types_ in promised[name], f"{name} is launched with {types_}, SIGNATURES has {promised[name]}"
    assert type(grid) is int and 0 < grid < 2**31 and on == ("stream", 7), (name, grid, block, on)
    launched.setdefault(name, set()).add(types_)
never = {name: types_ - launched.get(name, set()) for name, types_ in promised.items()}
assert not any(never.values()), never
assert waits and not any(waits)
"""

CORNERS = """
launches.clear()
backend.activation_forward("relu", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 0.0)
assert launches == []  # a grid of no blocks is an error on a GPU
stream.ptr = 0
backend.activation_forward("relu", np.zeros(1, np.float32), np.zeros(1, np.float32), 0.0)
assert launches[0][1][2] == 0  # the default stream
from numba import config
assert config.CUDA_LOW_OCCUPANCY_WARNINGS == 0
first = backend.workspace(100)
assert first.nbytes == 100 and backend.workspace(50).base is first.base is backend.workspace(100).base
"""


@pytest.mark.parametrize("script", [EVERY_VERB, CORNERS], ids=["every_verb", "corners"])
def test_what_is_launched(script: str) -> None:
    stems = sorted(path.stem for path in (ROOT / "kernels").glob("*.py") if path.stem != "__init__")
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"} | {"PYTHONPATH": str(ROOT)}
    program = f"{STAND_INS}\nSTEMS = {stems}\n{script}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
