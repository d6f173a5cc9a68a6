"""The CPU that is here: its name, and what it reaches by NumPy's matrix product and by a copy past the caches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

MATRIX, COPY_BYTES, REPEATS = 1024, 64 << 20, 5


@dataclass(frozen=True, slots=True)
class CpuPeaks:
    """Attainable, measured now: float32 TFLOP/s and GB/s (read and written)."""

    tflops: float
    gbps: float


def name() -> str:
    """As the system calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, "a CPU")


@cache
def peaks() -> CpuPeaks:
    """The best of a few bursts of some hundredths of a second."""
    a = np.ones((MATRIX, MATRIX), np.float32)
    c = np.empty_like(a)
    source, target = np.ones(COPY_BYTES, np.uint8), np.zeros(COPY_BYTES, np.uint8)
    product = min(_seconds(lambda: np.matmul(a, a, out=c)) for _ in range(REPEATS))
    copy = min(_seconds(lambda: np.copyto(target, source)) for _ in range(REPEATS))
    return CpuPeaks(2e-12 * MATRIX**3 / product, 2e-9 * COPY_BYTES / copy)


def _seconds(run: object) -> float:
    start = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - start
