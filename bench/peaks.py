"""The two roofs of this machine, measured by the run that uses them: arithmetic and memory bandwidth."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cnnengine.report.roofs import COPY, MIXTURE, MULTIPLY_ADDS, Peaks

from .interleave import watched
from .provenance import usable_cores

COPY_BYTES = 512 << 20  # of the array read and of the array written: past caches of some hundred MB
SMOKE_COPY_BYTES = 1 << 20
LINE = 64  # bytes
BURST_SECONDS = 3e-3
MATRIX = 8192
BURST_FLOPS = 10**9  # what a multiply-add row's milliseconds are for


def cpu_peaks(seconds: float = 0.3, repeats: int = 3, copy_bytes: int = COPY_BYTES) -> Peaks:
    """The best of a few short bursts on all usable cores; without a C compiler a matrix product and a copy in NumPy."""
    if _probe() is None:
        return _numpy_peaks(seconds, repeats)
    flops = max(_flops_per_second(seconds) for _ in range(repeats))
    nbytes = max(_bytes_per_second(seconds, copy_bytes) for _ in range(repeats))
    how = f"C probe, {len(usable_cores())} threads; copies of {copy_bytes >> 20} MB"
    return Peaks(1e-9 * flops, 1e-9 * nbytes, how)


class Roof:
    """One of the machine's roofs as a contender that is timed beside the others, in every round (``interleave``).
    ``streams``: lines read and lines written of each step past the caches; None for multiply-adds."""

    def __init__(self, name: str, streams: tuple[int, int] | None, copy_bytes: int) -> None:
        self.name = name
        self._streams, self._copy_bytes = streams, copy_bytes
        self.work = {"bytes": 2 * copy_bytes, "flops": 0} if streams else {"bytes": 0, "flops": BURST_FLOPS}
        self._cores = usable_cores()  # now: within a race this thread is pinned to one of them

    def calls(self) -> int:
        return 1

    def warm_up(self) -> None:
        """A burst has nothing to warm."""

    def sample(self, calls: int) -> tuple[float, bool]:
        """Of the fixed work at the rate of a burst that starts its own threads and clocks them."""
        return watched(self._seconds, calls)

    def _seconds(self) -> float:
        if self._streams:
            rate = _bytes_per_second(BURST_SECONDS, self._copy_bytes, self._streams, self._cores)
            return self.work["bytes"] / rate
        return self.work["flops"] / _flops_per_second(BURST_SECONDS, self._cores)


def roofs(streams: tuple[int, int] | None, copy_bytes: int) -> list[Roof]:
    """Those a race stands under: the multiply-adds where ``streams`` is None, else the copy and, where as many reads as
    writes are not what it does, its own mixture. None of them without a C compiler."""
    if _probe() is None:
        return []
    if streams is None:
        return [Roof(MULTIPLY_ADDS, None, copy_bytes)]
    mixture = [] if streams == (1, 1) else [Roof(MIXTURE, streams, copy_bytes)]
    return [Roof(COPY, (1, 1), copy_bytes), *mixture]


def _flops_per_second(seconds: float, cores: list[int] | None = None) -> float:
    cores = cores or usable_cores()
    return float(_probe()(len(cores), (ctypes.c_int * len(cores))(*cores), seconds, None, None, 0, 1, 1))


def _bytes_per_second(
    seconds: float, nbytes: int, streams: tuple[int, int] = (1, 1), cores: list[int] | None = None
) -> float:
    """Read and written together; ``nbytes``: of the larger array."""
    cores = cores or usable_cores()
    arrays = (a.ctypes.data_as(ctypes.c_void_p) for a in _copy_arrays(nbytes))
    steps = nbytes // LINE // max(streams)
    return float(_probe()(len(cores), (ctypes.c_int * len(cores))(*cores), seconds, *arrays, steps, *streams))


@lru_cache(maxsize=1)
def _copy_arrays(nbytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Target and source, aligned; their pages exist."""
    blocks = [np.ones(nbytes + LINE, np.uint8) for _ in range(2)]
    target, source = (a[-a.ctypes.data % LINE :][:nbytes] for a in blocks)
    return target, source


def cuda_peaks(smoke: bool = False) -> dict[str, Peaks]:
    """By dtype: the rate of a large matrix product on random data, and of a device-to-device copy. CuPy copies; PyTorch
    multiplies, or where it is missing CuPy, which has no bfloat16 and no tf32."""
    import cupy

    matrix, copied = (64, 1 << 16) if smoke else (MATRIX, 1 << 30)
    source = cupy.asarray(np.random.default_rng(0).standard_normal(copied // 4, np.float32))
    target = cupy.empty_like(source)
    gbps = 2e-9 * source.nbytes / _cuda_seconds(lambda: cupy.copyto(target, source))
    how = f"{matrix}^3 matrix product, copy of {copied >> 20} MB"
    multiply = _cupy_gflops if find_spec("torch") is None else _torch_gflops
    dtypes = ("float32", "float16") if find_spec("torch") is None else ("float32", "tf32", "float16", "bfloat16")
    return {dtype: Peaks(multiply(dtype, matrix), gbps, how) for dtype in dtypes}


def _cupy_gflops(dtype: str, matrix: int) -> float:
    import cupy

    rng = np.random.default_rng(0)
    a, b = (cupy.asarray(rng.standard_normal((matrix, matrix), np.float32).astype(dtype)) for _ in range(2))
    return 2e-9 * matrix**3 / _cuda_seconds(lambda: a @ b)


def _torch_gflops(dtype: str, matrix: int) -> float:
    from .contenders.pytorch import configured_torch

    torch = configured_torch()
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    storage = getattr(torch, "float32" if dtype == "tf32" else dtype)
    a, b = (torch.randn(matrix, matrix, device="cuda", dtype=storage) for _ in range(2))
    return 2e-9 * matrix**3 / _cuda_seconds(lambda: a @ b)


def _cuda_seconds(run: Any) -> float:
    from .cuda_timer import cuda_timer

    timer = cuda_timer()
    run()
    return min(timer.seconds(run, 1) for _ in range(5))


@cache
def _probe() -> Any:
    """The compiled probe, or None where no C compiler works."""
    source = Path(__file__).with_suffix(".c")
    compiler = os.environ.get("CC", "cc").split()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peaks.so"
        command = [*compiler, "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]
        try:
            subprocess.run([*command, str(source), "-o", str(library)], check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return None
        probe = ctypes.CDLL(str(library)).cnn_peak
    probe.restype = ctypes.c_double
    pointer = ctypes.c_void_p
    lines = (ctypes.c_size_t, ctypes.c_int, ctypes.c_int)
    probe.argtypes = [ctypes.c_int, pointer, ctypes.c_double, pointer, pointer, *lines]
    return probe


def _numpy_peaks(seconds: float, repeats: int) -> Peaks:
    a = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    source = np.ones(COPY_BYTES // 16, np.float32)
    target = np.zeros_like(source)
    product, moved = np.empty_like(a), source.nbytes * 2
    flops = max(2 * 1024**3 / _best_seconds(lambda: np.matmul(a, a, out=product), seconds) for _ in range(repeats))
    nbytes = max(moved / _best_seconds(lambda: np.copyto(target, source), seconds) for _ in range(repeats))
    return Peaks(1e-9 * flops, 1e-9 * nbytes, "NumPy matrix product and copy")


def _best_seconds(run: Any, seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best
