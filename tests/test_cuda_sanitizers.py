"""Every CUDA kernel on the emulator under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cnnengine.backends.registry import unavailable
from cnnengine.jit import host

FLAGS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
EVERY_KERNEL = f"""
from cnnengine.backends.emulator.backend import EmulatorBackend
from tests import every_kernel
backend = EmulatorBackend(every_kernel.RecordingRuntime(flags={FLAGS!r}, threads=1))
every_kernel.run(backend, "{{dtype}}")
assert backend.runtime.launched == every_kernel.listed("{{dtype}}")
print("clean")
"""
OVERRUN = f"""
import numpy as np
from cnnengine.backends import _kernel_library as library
from tests import every_kernel
runtime = every_kernel.RecordingRuntime(flags={FLAGS!r}, threads=1)
kernel = runtime.kernel(library.source("activation", "float32"), "activation_forward<float, Relu>")
kernel((1, 1, 1), (32, 1, 1), 0, (np.zeros(1024, "float32"), np.zeros(8, "float32"), np.int64(9), 0.0))
"""


def sanitizer(name: str) -> str:
    """The run-time library that a sanitized shared object wants loaded first."""
    command = (*host.compiler(), f"-print-file-name={name}")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def libraries() -> str:
    if unavailable("emulator") is not None:
        pytest.skip(f"backend emulator is absent: {unavailable('emulator')}")
    found = [sanitizer(name) for name in ("libasan.so", "libubsan.so")]
    if not all(Path(path).is_file() for path in found):
        pytest.skip(f"{host.compiler()[0]} has no sanitizer libraries")
    return " ".join(found)


def run(code: str, libraries: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parent.parent)
    env = {**os.environ, "LD_PRELOAD": libraries, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": root}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=900, check=False
    )


def test_no_kernel_leaves_its_arrays(libraries: str) -> None:
    """In float32 and float16 at once: most of the time is g++'s."""
    codes = [EVERY_KERNEL.replace("{dtype}", dtype) for dtype in ("float32", "float16")]
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda code: run(code, libraries), codes):
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip() == "clean"


def test_an_overrun_is_reported(libraries: str) -> None:
    done = run(OVERRUN, libraries)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert "activation.cuh" in done.stderr
