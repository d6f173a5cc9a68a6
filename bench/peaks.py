"""The two roofs of this machine, measured by the run that uses them: arithmetic and memory bandwidth."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .provenance import usable_cores

COPY_BYTES = 128 << 20  # an array of each thread: far past any cache
MATRIX = 8192


@dataclass(frozen=True)
class Peaks:
    """``gflops``: float32 multiply-adds counted as 2. ``gbps``: bytes read plus bytes written, decimal."""

    gflops: float
    gbps: float
    how: str

    def milliseconds(self, flops: int, nbytes: int) -> float:
        """The roofline: no version of that much work runs faster."""
        return max(flops / self.gflops, nbytes / self.gbps) * 1e-6


def cpu_peaks(seconds: float = 0.3, repeats: int = 3) -> Peaks:
    """The best of a few short bursts on all usable cores; without a C compiler a matrix product and a copy in NumPy."""
    threads = len(usable_cores())
    probe = _probe()
    if probe is None:
        return _numpy_peaks(seconds, repeats)
    flops = max(probe(threads, 0, seconds) for _ in range(repeats))
    nbytes = max(probe(threads, COPY_BYTES, seconds) for _ in range(repeats))
    return Peaks(1e-9 * flops, 1e-9 * nbytes, f"C probe, {threads} threads")


def burst(seconds: float = 3e-3) -> float | None:
    """GFLOP/s of one short burst: what the machine gives at this moment. None without a C compiler."""
    probe = _probe()
    return None if probe is None else 1e-9 * probe(len(usable_cores()), 0, seconds)


def cuda_peaks() -> dict[str, Peaks]:
    """By dtype: the rate of a large matrix product on random data, and of a device-to-device copy. CuPy copies; PyTorch
    multiplies, or where it is missing CuPy, which has no bfloat16."""
    import cupy

    source = cupy.random.random(1 << 28, dtype=cupy.float32)
    target = cupy.empty_like(source)
    gbps = 2e-9 * source.nbytes / _cuda_seconds(lambda: cupy.copyto(target, source))
    how = f"{MATRIX}^3 matrix product, 1 GiB copy"
    if find_spec("torch") is None:
        a, b = (cupy.random.random((MATRIX, MATRIX), dtype=cupy.float32) for _ in range(2))
        return {"float32": Peaks(2e-9 * MATRIX**3 / _cuda_seconds(lambda: a @ b), gbps, how)}
    return {dtype: Peaks(_torch_gflops(dtype), gbps, how) for dtype in ("float32", "bfloat16")}


def _torch_gflops(dtype: str) -> float:
    from .contenders.pytorch import configured_torch

    torch = configured_torch()
    a, b = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=getattr(torch, dtype)) for _ in range(2))
    return 2e-9 * MATRIX**3 / _cuda_seconds(lambda: a @ b)


def _cuda_seconds(run: Any) -> float:
    from .cuda_timer import CudaTimer

    timer = CudaTimer()
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
    probe.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_double]
    return probe


def _numpy_peaks(seconds: float, repeats: int) -> Peaks:
    a = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    source = np.ones(COPY_BYTES // 4, np.float32)
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
