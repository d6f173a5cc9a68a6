"""The launcher: how arguments are packed, what the emulator and the CUDA driver are told and what they answer. The
driver here is fake_gpu/libcuda.cpp, which checks as the real one does and runs kernels on the emulator."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cnnengine import _launch
from cnnengine.backends import _kernel_library as library
from cnnengine.backends.registry import unavailable
from cnnengine.errors import KernelError
from cnnengine.jit import host, nvrtc
from cnnengine.jit.cache import default_cache
from cnnengine.jit.launch import EmulatorRuntime
from cnnengine.jit.source import KernelSource

FAKE_GPU = Path(__file__).parent / "fake_gpu"
needs_compiler = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))


def pack(argument: object, size: int) -> bytes:
    (packed,) = _launch.pack((argument,), [size], False)
    return packed


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (-7, struct.pack("<i", -7)),
        (2**31 - 1, struct.pack("<i", 2**31 - 1)),
        (1.5, struct.pack("<f", 1.5)),
        (None, bytes(8)),
        (b"a struct by value", b"a struct by value"),
        (np.int64(2**40), struct.pack("<q", 2**40)),
        (np.uint32(2**32 - 1), struct.pack("<I", 2**32 - 1)),
        (np.float64(0.1), struct.pack("<d", 0.1)),
        (np.float32(0.1), struct.pack("<f", 0.1)),
        (memoryview(b"bytes"), b"bytes"),
    ],
)
def test_values_are_packed_as_kernels_read_them(argument: object, expected: bytes) -> None:
    assert pack(argument, len(expected)) == expected


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
def test_an_array_is_packed_as_its_address(dtype: str) -> None:
    array = np.zeros((3, 4), dtype)[1:]
    assert pack(array, 8) == struct.pack("<Q", array.ctypes.data)


def test_many_arguments_keep_their_places() -> None:
    arguments = (1, np.int64(2), 3, b"12345", 4.0, None, np.uint8(5))
    packed = _launch.pack(arguments, [4, 8, 4, 5, 4, 8, 1], False)
    assert packed == [pack(a, n) for a, n in zip(arguments, [4, 8, 4, 5, 4, 8, 1], strict=True)]


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        (2**31, ValueError, "kernel argument 0: an int is passed as 32 bits, received 2147483648"),
        (-(2**31) - 1, ValueError, "received -2147483649"),
        (10**30, ValueError, "received 1000000000000000000000000000000"),
        (True, TypeError, "expected an array, None, int, float or bytes, received bool"),
        ("text", TypeError, "received str"),
        ([1, 2], TypeError, "received list"),
        (np.zeros((4, 4))[:, 1:], ValueError, "kernel argument 0: expected a C-contiguous array"),
        (bytes(32765), ValueError, "the arguments of a kernel have at most 32764 bytes"),
        (memoryview(bytes(32765)), ValueError, "a struct has at most 32764 bytes"),
    ],
)
def test_what_cannot_be_packed_is_named(argument: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pack(argument, 8)


def test_no_more_arguments_than_a_kernel_takes() -> None:
    with pytest.raises(ValueError, match="at most 128 arguments, received 129"):
        _launch.pack((1,) * 129, [4] * 129, False)


def test_a_table_of_pointers() -> None:
    a, b = np.zeros(3), np.zeros(4)
    assert _launch.pack_pointers([a, None, b], False) == struct.pack("<QQQ", a.ctypes.data, 0, b.ctypes.data)
    with pytest.raises(TypeError, match="kernel argument 1: a GPU kernel reads CuPy arrays, received a NumPy array"):
        _launch.pack_pointers([None, a], True)


@needs_compiler
def test_the_emulator_runs_a_kernel() -> None:
    kernel = EmulatorRuntime(default_cache()).kernel(
        library.source("activation", "float32"), "activation_forward<float, Relu>"
    )
    x, y = np.float32([-1, 0, 2, np.nan]), np.zeros(4, "float32")
    kernel((1, 1, 1), (32, 1, 1), 0, (x, y, np.int64(4)))
    np.testing.assert_array_equal(y, [0, 0, 2, np.nan])
    with pytest.raises(KernelError, match=r"a block of \(2048, 1, 1\) threads"):
        kernel((1, 1, 1), (2048, 1, 1), 0, (x, y, np.int64(4)))
    with pytest.raises(ValueError, match=r"grid: sizes are 1 to 2\^31 - 1, received \(0, 1, 1\)"):
        kernel((0, 1, 1), (32, 1, 1), 0, (x, y, np.int64(4)))
    with pytest.raises(ValueError, match=r"block: expected \(x, y, z\)"):
        kernel((1, 1, 1), (32,), 0, (x, y, np.int64(4)))  # type: ignore[arg-type]


@needs_compiler
def test_the_emulator_runs_clusters() -> None:
    text = "__global__ void ranks(int* y) { y[blockIdx.x] = 10 * ptx::cluster_blocks() + ptx::cluster_rank(); }\n"
    kernel = EmulatorRuntime(default_cache()).kernel(KernelSource("cuda/ptx.cuh", ("ranks",), text), "ranks")
    y = np.zeros(6, np.int32)
    for cluster, expected in (((3, 1, 1), [30, 31, 32] * 2), ((2, 1, 1), [20, 21] * 3), (None, [10] * 6)):
        kernel((6, 1, 1), (1, 1, 1), 0, (y,), cluster)
        np.testing.assert_array_equal(y, expected)
    with pytest.raises(KernelError, match=r"a grid of \(6, 1, 1\) blocks is no multiple of the cluster's \(4, 1, 1\)"):
        kernel((6, 1, 1), (1, 1, 1), 0, (y,), (4, 1, 1))
    with pytest.raises(ValueError, match=r"cluster: sizes are 1 to 2\^31 - 1, received \(0, 1, 1\)"):
        kernel((6, 1, 1), (1, 1, 1), 0, (y,), (0, 1, 1))


@needs_compiler
def test_a_kernel_that_is_not_in_the_source() -> None:
    with pytest.raises(KernelError, match="has no kernel nothing"):
        EmulatorRuntime(default_cache()).kernel(library.source("activation", "float32"), "nothing")


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    source = str(FAKE_GPU / "libcuda.cpp")
    subprocess.run([*host.compiler(), "-std=c++17", "-O1", "-shared", "-fPIC", source, "-o", str(library)], check=True)
    return library


def python(code: str, driver: Path | str, path: Path | None = None, **environment: str) -> str:
    """The output of a fresh process: the driver is opened once a process."""
    root = Path(__file__).parent.parent
    paths = os.pathsep.join(str(p) for p in (path, root) if p is not None)
    env = {**os.environ, "CNNENGINE_LIBCUDA": str(driver), "PYTHONPATH": paths, **environment}
    env.pop("CNNENGINE_BACKEND", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HIDE_CUPY = """
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "cupy" else find(name, *rest)
"""
REASON = "import cnnengine.backends as b; print(b.available()['cuda'])"


def test_the_reason_without_a_driver() -> None:
    assert python(REASON, "libnothing.so.1") == "no CUDA driver: libnothing.so.1 is not on this machine"


@needs_compiler
@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        (
            ("FAKE_CUDA_INIT", "100"),
            "the CUDA driver finds no usable GPU: cuInit: CUDA_ERROR_NO_DEVICE: as the fake driver",
        ),
        (("FAKE_CUDA_DEVICES", "0"), "the CUDA driver finds no GPU"),
        (("FAKE_CUDA_VERSION", "12040"), "the CUDA driver is too old: it offers CUDA 12.4, at least 12.8 is needed"),
        (("FAKE_CUDA_VERSION", "13000"), "CuPy is not installed: pip install 'cnnengine[cuda]'"),
        (("FAKE_CUDA_VERSION", "12080"), "CuPy is not installed: pip install 'cnnengine[cuda12]'"),
    ],
)
def test_the_reason_with_a_driver(fake_driver: Path, setting: tuple[str, str], reason: str) -> None:
    assert python(HIDE_CUPY + REASON, fake_driver, **dict([setting])).startswith(reason)


@needs_compiler
@pytest.mark.skipif(nvrtc.problem() is not None, reason=str(nvrtc.problem()))
def test_an_nvrtc_newer_than_the_driver_is_named(fake_driver: Path) -> None:
    if nvrtc.version()[0] < 13:
        pytest.skip("the installed NVRTC is not newer than the oldest driver")
    reason = python(REASON, fake_driver, FAKE_GPU, FAKE_CUDA_VERSION="12080")
    assert reason.startswith("the CUDA driver is too old for the installed NVRTC: it offers CUDA 12.8, NVRTC is 13.")


@needs_compiler
@pytest.mark.skipif(nvrtc.problem() is not None, reason=str(nvrtc.problem()))
def test_the_cuda_backend_computes_what_the_emulator_computes(fake_driver: Path) -> None:
    """Every verb and a network through NVRTC's cubins, module loading and cuLaunchKernel of the fake driver."""
    assert python((FAKE_GPU / "session.py").read_text(), fake_driver, FAKE_GPU) == "done"


@needs_compiler
@pytest.mark.skipif(nvrtc.problem() is not None, reason=str(nvrtc.problem()))
def test_a_second_call_of_a_kind_plans_nothing(fake_driver: Path) -> None:
    """One call into the launcher: no planning, no tensor map; with the results of a first call."""
    assert python((FAKE_GPU / "launch_session.py").read_text(), fake_driver, FAKE_GPU) == "done"


@needs_compiler
@pytest.mark.skipif(nvrtc.problem() is not None, reason=str(nvrtc.problem()))
def test_the_driver_captures_a_step(fake_driver: Path) -> None:
    """Begin, end, instantiate and launch in this order, then one launch a step; bit for bit as without a graph."""
    assert python((FAKE_GPU / "graph_session.py").read_text(), fake_driver, FAKE_GPU) == "done"


@needs_compiler
def test_threads_launch_at_the_same_time() -> None:
    """The launcher releases the GIL; each thread's results are its own."""
    kernel = EmulatorRuntime(default_cache()).kernel(
        library.source("activation", "float32"), "activation_forward<float, Relu>"
    )

    def launch(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal(5000).astype("float32")
        for _ in range(20):
            y = np.full_like(x, np.nan)
            kernel((5, 1, 1), (256, 1, 1), 0, (x, y, np.int64(x.size)))
            np.testing.assert_array_equal(y, np.maximum(x, 0))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(launch, range(8)))
