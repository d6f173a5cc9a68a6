"""What the numba backend hands to a GPU, checked without one.

Each launch's arguments must have the types that SIGNATURES promises, since those are what the compile test compiles:
CuPy and the launch are stood in for. Then the launches themselves, on the fake driver.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnengine.backends.registry import unavailable
from cnnengine.jit import host

pytest.importorskip("numba", reason="Numba is not installed")

needs_compiler = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
ROOT = Path(__file__).resolve().parent.parent

FAKE_GPU = ROOT / "tests" / "fake_gpu"

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

from cnnengine.backends.numba import compiled, gpu

launches, have = [], [(9, 0)]
gpu.capability = lambda device: have[0]
gpu._launch = types.SimpleNamespace(PreparedVerbs=lambda *made: types.SimpleNamespace(run=lambda *call: False))
gpu.GpuBackend.start = lambda self, launch: launches.append(launch)

def not_planned(self, launch, arrays):
    raise gpu.NotPlanned

gpu.GpuBackend._packed = not_planned
backend = gpu.GpuBackend()
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
    rungs = ("direct", "tiled", "implicit_gemm", "implicit_gemm_tf32", *(["depthwise"] if groups == 4 else []))
    for algorithm in (None, *rungs):
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
for launch in launches:
    name = launch.kernel.py_func.__name__
    types_ = compiled.signature_of(launch.arguments)
    assert types_ in promised[name], f"{name} is launched with {types_}, SIGNATURES has {promised[name]}"
    threads = launch.block[0] * launch.block[1] * launch.block[2]
    assert type(launch.grid) is int and 0 < launch.grid < 2**31 and 0 < threads <= 256, (name, launch)
    launched.setdefault(name, set()).add(types_)
never = {name: types_ - launched.get(name, set()) for name, types_ in promised.items()}
assert not any(never.values()), never
"""

CORNERS = """
from cnnengine.errors import Unsupported
from cnnengine.shapes import conv2d_shape
from cnnengine.backends.contract import IDENTITY

backend.activation_forward("relu", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), 0.0)
assert launches == []  # a grid of no blocks is an error on a GPU
x = np.arange(6, dtype=np.float32).reshape(2, 3)
array = [None, None, np.int64(6), np.int64(4), x, np.int64(2), np.int64(3), np.int64(12), np.int64(4)]
assert [type(v) for v in compiled.flat((x,))] == [type(v) for v in array]
given = compiled.flat((x, (1, 2), np.float32(3)))
assert all(a is b or a == b for a, b in zip(given, [*array, 1, 2, 3.0], strict=True))
try:
    compiled.flat((x.T,))
except ValueError as error:
    assert "C-contiguous arrays, received strides (4, 12)" in str(error), error
else:
    raise AssertionError("an array with gaps was taken")
have[0] = 7, 5
shape = conv2d_shape((1, 3, 3, 1), (1, 1, 1, 1))
arrays = [np.zeros(s, np.float32) for s in (shape.x, shape.w, shape.y)]
try:
    backend.conv2d_forward(shape, *arrays, IDENTITY, "implicit_gemm_tf32")
except Unsupported as error:
    assert "implicit_gemm_tf32: needs compute capability 8.0, this GPU has 7.5" in str(error), error
else:
    raise AssertionError("tensor cores that do not take TF32 were asked for it")
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


@needs_compiler
def test_a_second_call_of_a_kind_plans_nothing(tmp_path: Path) -> None:
    """One call into the launcher, with the right number of launches: nothing is planned, compiled or asked its type."""
    library = tmp_path / "libcuda.so"
    source = str(FAKE_GPU / "libcuda.cpp")
    subprocess.run([*host.compiler(), "-std=c++17", "-O1", "-shared", "-fPIC", source, "-o", str(library)], check=True)
    paths = os.pathsep.join((str(FAKE_GPU), str(ROOT)))
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_ENABLE_CUDASIM", "CNNENGINE_BACKEND")}
    environment |= {"PYTHONPATH": paths, "CNNENGINE_LIBCUDA": str(library), "CNNENGINE_CACHE": str(tmp_path / "cache")}
    program = str(FAKE_GPU / "numba_session.py")
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "done"
