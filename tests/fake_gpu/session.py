"""Runs in a process of its own, with the fake driver and the fake CuPy: the cuda backend on every verb, bit for bit as
the emulator backend. Prints "done"."""

from __future__ import annotations

import ctypes
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cupy
import ml_dtypes
import numpy as np

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import _launch, tuning
from cnnengine.backends import _kernel_library as library
from cnnengine.backends import get
from cnnengine.backends.contract import Epilogue
from cnnengine.errors import KernelError
from cnnengine.jit import device_timer, nvrtc
from cnnengine.jit.source import KernelSource
from cnnengine.shapes import (
    adaptive_pool2d_shape,
    broadcast_shape,
    conv2d_shape,
    gemm_shape,
    pool2d_shape,
    reduce_shape,
)

driver = ctypes.CDLL(os.environ["CNNENGINE_LIBCUDA"])
driver.fake_last.restype = ctypes.POINTER(ctypes.c_uint * 15)
rng = np.random.default_rng(0)


def last(*places: int) -> tuple[int, ...]:
    return tuple(driver.fake_last().contents[i] for i in places)


def register(gpu, emulator) -> None:
    """Every float32 kernel under the symbol that NVRTC gave it."""
    for family in library.FAMILIES:
        source = library.source(family, "float32")
        cubin = nvrtc.build(source, "sm_90a", gpu.runtime.cache)
        module = emulator.runtime.module(source)
        for expression, symbol in cubin.names.items():
            address = ctypes.c_void_p(module.launch_address)
            driver.fake_register(symbol.encode(), address, module.index(expression))


def random(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype("float32")


def same(what: str, call, inputs, outputs) -> None:
    """``call(backend, *inputs, *outputs)`` leaves the same bits in the outputs on both backends."""
    results = []
    for backend in (get("emulator"), get("cuda")):
        given = [a if a is None else backend.to_device(a.copy()) for a in inputs]
        wanted = [backend.to_device(a.copy()) for a in outputs]
        call(backend, *given, *wanted)
        results.append([backend.to_host(a) for a in wanted])
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype, what
        np.testing.assert_array_equal(a, b, err_msg=what)


def verbs() -> None:
    nan = np.float32(np.nan)
    for x, w, options in (
        ((2, 9, 8, 6), (10, 3, 3, 3), {"padding": 1, "groups": 2}),
        ((2, 17, 16, 4), (9, 2, 2, 4), {"stride": 2}),
    ):
        s = conv2d_shape(x, w, **options)
        arrays = [random(*s.x), random(*s.w), random(s.K), random(s.K), random(s.K), random(*s.y)]
        out = {name: np.full(getattr(s, name), nan) for name in "xyw"}
        for name in ("direct", "tiled", "implicit_gemm"):

            def forward(b, x, w, bias, scale, shift, residual, y, s=s, name=name):
                b.conv2d_forward(s, x, w, y, Epilogue(bias, scale, shift, residual, "relu"), name)

            def backward_input(b, dy, w, dx, s=s, name=name):
                b.conv2d_backward_input(s, dy, w, dx, name)

            def backward_weight(b, x, dy, dw, s=s, name=name):
                b.conv2d_backward_weight(s, x, dy, dw, name)

            same("forward", forward, arrays, [out["y"]])
            same("backward_input", backward_input, [arrays[5], arrays[1]], [out["x"]])
            same("backward_weight", backward_weight, [arrays[0], arrays[5]], [out["w"]])

    for s in (pool2d_shape("pool", (2, 7, 6, 3), 3, 2, 1), adaptive_pool2d_shape("pool", (1, 7, 5, 2), 3)):
        x, dy, y, dx = random(*s.x), random(*s.y), np.full(s.y, nan), np.full(s.x, nan)
        index = np.zeros(s.y, s.index_dtype)
        same("max", lambda b, x, y, i, s=s: b.pool2d_forward("max", s, x, y, i), [x], [y, index])
        same("avg", lambda b, x, y, s=s: b.pool2d_forward("avg", s, x, y, None), [x], [y])
        same("max back", lambda b, dy, i, dx, s=s: b.pool2d_backward("max", s, dy, i, dx), [dy, index], [dx])
        same("avg back", lambda b, dy, dx, s=s: b.pool2d_backward("avg", s, dy, None, dx), [dy], [dx])

    a, b = random(5, 7), random(5, 7)
    blank = np.full((5, 7), nan)
    same("relu", lambda k, x, y: k.activation_forward("relu", x, y, 0.0), [a], [blank])
    same("relu back", lambda k, x, dy, dx: k.activation_backward("relu", x, dy, dx, 0.0), [a, b], [blank])
    same("exp", lambda k, x, y: k.unary("exp", x, y), [a], [blank])
    for other in ((5, 7), (7,), (5, 1)):
        _, walk = broadcast_shape("add", (5, 7), other)
        same("add", lambda k, x, y, z, walk=walk: k.binary("add", walk, x, y, z), [a, random(*other)], [blank])
    for s in (reduce_shape(3, 50, 4), reduce_shape(1, 5000, 3)):
        x, y = random(s.outer, s.reduced, s.inner), np.full((s.outer, s.inner), nan)
        same("sum", lambda k, x, y, s=s: k.reduce("sum", s, x, y), [x], [y])
    for m in (3, 40):
        s = gemm_shape(2, m, 20, 30, False, True, False, True)
        inputs = [random(2, m, 30), random(20, 30), random(20)]
        gemm_output = np.full((2, m, 20), nan)
        same("gemm", lambda k, a, b, c, y, s=s: k.gemm(s, a, b, y, Epilogue(c)), inputs, [gemm_output])

    labels = np.array([0, 6, 3, 3, 1])
    loss = np.full(5, nan)
    same("loss", lambda k, x, n, y, p: k.softmax_cross_entropy_forward(x, n, y, p), [a, labels], [loss, blank])
    back = [b, labels, random(5)]
    same("loss back", lambda k, p, n, dl, dx: k.softmax_cross_entropy_backward(p, n, dl, dx), back, [blank])
    pixels, numbers = np.arange(255, dtype=np.uint8).reshape(5, 17, 3), [random(3), random(3)]
    normalized = np.full(pixels.shape, nan)
    same("images", lambda k, x, f, o, y: k.normalize_images(x, f, o, y), [pixels, *numbers], [normalized])
    state = np.array([2**40 + 7, 9], np.uint64)
    same("dropout", lambda k, x, s, y: k.dropout(x, y, 2**31, 2.0, s), [a, state], [blank])

    hyper = np.array([0.1, 0.9, 0.01, 1, 0.5], "float32")
    many = [random(n) for n in (1, 3000, *[5] * 710)]  # more than one table holds

    def step(k, hyper, *arrays):
        n = len(arrays) // 3
        k.optimizer_step("sgd", arrays[n : 2 * n], arrays[:n], arrays[2 * n :], hyper)

    same("sgd", step, [hyper, *many], [*many, *many])

    def adam(k, hyper, *arrays):
        n = len(arrays) // 4
        k.optimizer_step("adam", arrays[n : 2 * n], arrays[:n], arrays[2 * n :], hyper)

    hyper = np.array([0.01, 0.75, 0.25, 0.875, 0.125, 1.25, 0.25, 0.01, 0.99, 0.5], "float32")
    squares = [np.abs(x) for x in many]
    same("adam", adam, [hyper, *many], [*many, *many, *squares])

    def memory(k, x, y, z):
        k.permute(x, y, (1, 0))
        k.fill(z, 1.5)

    for dtype in ("float32", "float16", ml_dtypes.bfloat16):
        x = a.astype(dtype)
        same("memory", memory, [x], [np.zeros((7, 5), dtype), np.zeros(3, dtype)])
    same("cast", lambda k, x, y: k.cast(x, y), [a], [a.astype("float16")])
    assert get("cuda").to_device(np.float32(3.5)[...]).shape == ()


def network() -> None:
    """A convolutional network's loss and gradients on arrays of the other type."""
    parameters = [random(6, 3, 3, 1), random(6), random(10, 54), random(10)]
    x, labels = random(4, 6, 6, 1), np.array([1, 0, 9, 4])
    results = []
    for name, device in (("emulator", "cpu"), ("cuda", "cuda")):
        with cnn.use_backend(name):
            w, b, v, c = tensors = [cnn.Tensor(p).to(device) for p in parameters]
            for t in tensors:
                t.requires_grad = True
            y = F.relu(F.conv2d(cnn.Tensor(x).to(device), w, b, padding=1))
            y = F.linear(F.flatten(F.max_pool2d(y, 2)), v, c)
            loss = F.cross_entropy(y, labels)
            loss.backward()
            results.append([loss.numpy(), *(t.grad.numpy() for t in tensors)])
    for on_emulator, on_cuda in zip(*results, strict=True):
        np.testing.assert_array_equal(on_emulator, on_cuda)


def kernel_symbol(gpu, source: KernelSource) -> str:
    return next(iter(nvrtc.build(source, "sm_90a", gpu.runtime.cache).names.values()))


def launches() -> None:
    """What the driver was told."""
    gpu = get("cuda")
    source = library.source("activation", "float32")
    kernel = gpu.runtime.kernel(source, "activation_forward<float, Relu>")
    x, y = gpu.to_device(np.float32([-1, 2, 3])), gpu.empty((3,), "float32")
    loaded = last(13)
    kernel((1, 1, 1), (32, 1, 1), 0, (x, y, np.int64(3)))
    assert last(13) == loaded, "a module is loaded once"
    assert last(0, 1, 2, 3, 4, 5, 6, 7) == (cupy.STREAM, 0, 1, 1, 1, 32, 1, 1)
    np.testing.assert_array_equal(gpu.to_host(y), [0, 2, 3])
    with ThreadPoolExecutor(1) as pool:  # a thread starts without a context
        pool.submit(kernel, (1, 1, 1), (32, 1, 1), 0, (y, x, np.int64(3))).result()
    np.testing.assert_array_equal(gpu.to_host(x), [0, 2, 3])
    kernel((2, 1, 1), (32, 1, 1), 100_000, (x, y, np.int64(3)), (2, 1, 1), True)  # beyond 48 KB: asked for
    assert last(1, 2, 8, 9, 10, 11) == (100_000, 2, 2, 1, 1, 1)
    for arguments, error, message in (
        ((np.zeros(3, "float32"), y, np.int64(3)), TypeError, "argument 0: a GPU kernel reads CuPy arrays"),
        ((x, y, 2**31), ValueError, "argument 2: an int is passed as 32 bits, received 2147483648"),
    ):
        try:
            kernel((1, 1, 1), (32, 1, 1), 0, arguments)
        except error as raised:
            if message not in str(raised):
                raise
        else:
            raise AssertionError(message)
    for call, message in (
        (
            lambda: _launch.module_load(b"no cubin"),
            "cuModuleLoadData: CUDA_ERROR_INVALID_IMAGE: as the fake driver says",
        ),
        (lambda: _launch.module_function(1, "nothing"), "cuModuleGetFunction(nothing): CUDA_ERROR_NOT_FOUND"),
        (
            lambda: kernel((1, 1, 1), (32, 1, 1), 300 << 10, (x, y, np.int64(3))),
            "cuFuncSetAttribute: CUDA_ERROR_INVALID",
        ),
        (lambda: kernel((1, 1, 1), (2048, 1, 1), 0, (x, y, np.int64(3))), "cuLaunchKernel: CUDA_ERROR_LAUNCH_FAILED"),
        (
            lambda: _launch.encode_tensor_map_im2col(
                6, 4096, [8, 9, 9, 1], [16, 144, 1296], [0, 0], [0, 0], 8, 1025, [1] * 4, 0, 0, 0, 0
            ),
            "cuTensorMapEncodeIm2col: CUDA_ERROR_INVALID_VALUE",
        ),
        (lambda: gpu.runtime.kernel(KernelSource("cuda/dropout.cuh", ("a",)), "b"), "cuda/dropout.cuh has no kernel b"),
    ):
        try:
            call()
        except KernelError as error:
            if message not in str(error):
                raise
        else:
            raise AssertionError(message)
    function = _launch.module_function(_launch.module_load(b"\x7fELF"), kernel_symbol(gpu, source))
    _launch.allow_dynamic_shared(function, 100_000)
    assert _launch.function_attribute(function, 8) == 100_000  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _launch.module_unload(_launch.module_load(b"\x7fELF"))
    assert _launch.device_name(0) == "Fake 9000"
    assert _launch.driver_version() == 13000
    encoded = _launch.encode_tensor_map_tiled(7, 4096, [64, 32], [256], [16, 8], [1, 2], 0, 3, 2, 1)
    assert np.frombuffer(encoded, np.uint64)[:13].tolist() == [7, 2, 4096, 64, 32, 256, 16, 8, 1, 0, 3, 2, 1]
    nhwc, corners, steps = ([64, 9, 11, 2], [128, 1152, 12672]), ([-1, -2], [-3, -4]), [1, 2, 3, 4]
    encoded = _launch.encode_tensor_map_im2col(6, 4096, *nhwc, *corners, 32, 128, steps, 0, 3, 2, 1)
    words = np.frombuffer(encoded, np.int64)[:14].tolist()
    assert words == [6, 4, 4096, 2, 12672, -1, -4, 32, 128, 4, 0, 3, 2, 1]


def tuned() -> None:
    """Events time the tiles of a rung, each on arrays of the GPU; the choice is the architecture's."""
    device_timer.FLUSH_BYTES = 4096
    x, w = random(2, 9, 8, 6), random(10, 3, 3, 6)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "autotune.json"
        tuner = tuning.Tuner(path, tuning.machine)
        tuning._tuner = lambda: tuner
        with cnn.use_backend("cuda"), cnn.autotune():
            on_cuda = F.conv2d(cnn.Tensor(x).to("cuda"), cnn.Tensor(w).to("cuda"), algorithm="tiled").numpy()
        choices = json.loads(path.read_text())["choices"]
    (known,) = choices[f"cnnengine {cnn.__version__}, sm_90a"].items()
    assert known[0].startswith("conv2d_forward by tiled: float32, x (2, 9, 8, 6)"), known
    assert known[1] in {f"tiled: {tile}" for tile in library.TILES}, known
    with cnn.use_backend("emulator"):
        np.testing.assert_allclose(on_cuda, F.conv2d(x, w, algorithm="tiled").numpy(), rtol=1e-4, atol=1e-5)


def compiled_ahead() -> None:
    """What ``precompile`` compiles is what a launch looks for."""
    made = cnn.cuda.precompile(lambda x: F.relu(x), (5, 7))
    assert (made.arch, made.kernels, made.compiled) == ("sm_90a", 1, 0), made


assert cnn.backends.available()["cuda"] is None, cnn.backends.available()
register(get("cuda"), get("emulator"))
verbs()
network()
launches()
tuned()
compiled_ahead()
print("done")
