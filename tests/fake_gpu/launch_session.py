"""Runs in a process of its own, with the fake driver and the fake CuPy: what the second call of a kind costs. Prints
"done"."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pretend
from calls import called

import cnnengine as cnn
from bench import bench_overhead
from cnnengine.backends import _kernels, get
from cnnengine.backends.contract import IDENTITY, Epilogue
from cnnengine.shapes import conv2d_shape, gemm_shape, norm_shape, pool2d_shape, reduce_shape

LAUNCHES, MODULES, MAPS = 12, 13, 14
PLANNING = {
    "_prepare",
    "_packed",
    "place_of",
    "_kernel",
    "_run",
    "_elementwise",
    "kernel",
    "function",
    "encode",
    "_encode",
}
gpu, emulator = get("cuda"), get("emulator")
rng = np.random.default_rng(0)


def random(*shape: int, dtype: str = "float32") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def second_call(verb: str, arguments: tuple[Any, ...], launches: int) -> None:
    call = partial(getattr(gpu, verb), *arguments)
    call()
    before = pretend.last(LAUNCHES, MODULES, MAPS)
    names = called(call)
    assert pretend.last(LAUNCHES, MODULES, MAPS) == (before[0] + launches, *before[1:]), (verb, before)
    assert names.count("run") == 1, "one call into the launcher"
    assert not set(names) & PLANNING, (verb, names)


def costs() -> None:
    device = gpu.to_device
    s = conv2d_shape((2, 8, 8, 8), (8, 3, 3, 8), padding=1)
    x, w, y = (device(random(*shape)) for shape in (s.x, s.w, s.y))
    second_call("conv2d_forward", (s, x, w, y, IDENTITY, None), 1)
    second_call("conv2d_forward", (s, x, w, y, Epilogue(device(random(8)), activation="silu"), "tiled"), 2)
    second_call("activation_forward", ("relu", x, x, 0.0), 1)
    second_call("unary", ("exp", x, y), 1)
    rows = reduce_shape(1, 5000, 3)
    second_call("reduce", ("sum", rows, device(random(5000, 3)), device(random(3))), 2)
    s = pool2d_shape("max_pool2d", (2, 8, 8, 8), 2)
    second_call("pool2d_forward", ("max", s, x, device(random(*s.y)), device(np.zeros(s.y, s.index_dtype))), 1)


def maps() -> None:
    """A tensor map is made once an address, and again where an array lies elsewhere."""
    s = conv2d_shape((2, 8, 8, 64), (64, 3, 3, 64), padding=1)
    host = random(*s.x, dtype="float16"), random(*s.w, dtype="float16")
    x, w = map(gpu.to_device, host)
    y = gpu.empty(s.y, "float16")
    forward = partial(gpu.conv2d_forward, s)
    forward(x, w, y, IDENTITY, "implicit_gemm_wgmma")
    second_call("conv2d_forward", (s, x, w, y, IDENTITY, "implicit_gemm_wgmma"), 1)
    made = pretend.last(MAPS)[0]
    elsewhere = gpu.to_device(host[0])
    forward(elsewhere, w, y, IDENTITY, "implicit_gemm_wgmma")
    assert pretend.last(MAPS)[0] == made + 1


def results() -> None:
    """Prepared calls compute with what they are given: other arrays, one array twice, other numbers, another thread."""
    for seed in range(3):
        a, b = random(5, 7), random(5, 7)
        for x, z in ((gpu.to_device(a), gpu.to_device(b)), (same := gpu.to_device(a), same)):
            gpu.activation_forward("leaky_relu", x, z, 0.25 * seed)
            np.testing.assert_array_equal(gpu.to_host(z), np.where(a > 0, a, np.float32(0.25 * seed) * a))
    s = gemm_shape(1, 40, 20, 30, False, False, False, False)
    first = [random(40, 30), random(30, 20)]
    for arrays in (first, [random(40, 30), random(30, 20)], first):
        outputs = []
        for backend in (emulator, gpu):
            c = backend.to_device(np.zeros((40, 20), "float32"))
            backend.gemm(s, *map(backend.to_device, arrays), c, IDENTITY)
            outputs.append(backend.to_host(c))
        np.testing.assert_array_equal(*outputs)
    count = len(gpu._prepared)
    unaligned = gpu.to_device(random(36)).reshape(-1)[1:].reshape(5, 7)
    gpu.unary("exp", unaligned, gpu.empty((5, 7), "float32"))
    gpu.unary("exp", gpu.to_device(random(5, 7)), gpu.empty((5, 7), "float32"))
    assert len(gpu._prepared) == count + 2, "arrays of another alignment are another kind of call"
    gpu.activation_forward("relu", gpu.to_device(random(0)), gpu.empty((0,), "float32"), 0.0)  # nothing to launch
    walk = norm_shape(1, 12, 4, 1)
    gain, offset = random(4), random(4)
    for _ in range(2):
        outputs = []
        for backend in (emulator, gpu):
            known = [backend.to_device(a) for a in (random(0).reshape(0), gain, offset)][1:]
            x = backend.to_device(np.arange(48, dtype="float32").reshape(12, 4))
            y, mean, variance = (backend.to_device(np.zeros(n, "float32")) for n in ((12, 4), (1, 4), (1, 4)))
            backend.norm_forward(walk, x, *known, None, y, mean, variance, 1e-5, "relu")
            outputs.append(backend.to_host(y))
        np.testing.assert_array_equal(*outputs)
    gpu.forget_plans()
    assert len(gpu._prepared) == 0
    try:
        gpu.unary("exp", random(5, 7), gpu.empty((5, 7), "float32"))
    except TypeError as error:
        if "a GPU kernel reads CuPy arrays, received a NumPy array" not in str(error):
            raise
    else:
        raise AssertionError("a NumPy array was taken")


def benchmark() -> None:
    """The rows of bench/bench_overhead.py run on a GPU, those of the launcher among them."""
    rows = {race.operation: race for race in bench_overhead.races("cuda")}
    assert {"launch", "graph"} < set(rows)
    for race in rows.values():
        for call in race.build(bench_overhead.NAMES).values():
            call()


assert cnn.backends.available()["cuda"] is None, cnn.backends.available()
assert _kernels.KernelBackend.conv2d_forward is not type(gpu).conv2d_forward
costs()
maps()
results()
benchmark()
print("done")
