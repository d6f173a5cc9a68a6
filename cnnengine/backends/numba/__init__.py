"""Numba CUDA kernels (``kernels/``): on an NVIDIA GPU through CuPy arrays, else on NumPy arrays in Numba's simulator.

Whether Numba simulates is settled when it is first imported in a process. ``CNNENGINE_NUMBA_SIMULATOR=1`` asks for the
simulator although there is a GPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec

from ...errors import BackendUnavailable
from ..contract import Backend

_INSTALL = "install it with: pip install 'cnnengine[cuda]'"


def simulated() -> bool:
    """Whether this process runs, or will run, the kernels in Numba's simulator. Imports neither numba nor cupy."""
    config = sys.modules.get("numba.core.config")
    if config is not None:
        return bool(config.ENABLE_CUDASIM)  # decided when numba was imported
    return _asked("NUMBA_ENABLE_CUDASIM") or _asked("CNNENGINE_NUMBA_SIMULATOR") or _no_gpu() is not None


def unavailable() -> str | None:
    if find_spec("numba") is None:
        return f"Numba is not installed; {_INSTALL}"
    if simulated():
        return None
    no_gpu = "CNNENGINE_NUMBA_SIMULATOR asks for the simulator" if _asked("CNNENGINE_NUMBA_SIMULATOR") else _no_gpu()
    if no_gpu is not None:
        return (
            f"{no_gpu}, and numba was imported before cnnengine, without its simulator; use this backend first, or set"
            " NUMBA_ENABLE_CUDASIM=1 before numba is imported"
        )
    return None if find_spec("cupy") else f"CuPy is not installed; {_INSTALL}"


def load() -> Backend:
    reason = unavailable()
    if reason is not None:
        raise BackendUnavailable(f"backend 'numba' is not available: {reason}")
    if simulated():
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # without effect where numba is imported already
        from .simulator import SimulatorBackend

        return SimulatorBackend()
    from .gpu import GpuBackend

    return GpuBackend()


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")


def _no_gpu() -> str | None:
    """Why there is no GPU to run on, asked of the driver alone; None where there is one."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return "there is no CUDA driver"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the CUDA driver finds no GPU"
    return None
