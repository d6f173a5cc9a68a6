"""The CUDA kernels on an NVIDIA GPU: compiled by NVRTC, on CuPy's memory and streams."""

from __future__ import annotations

from importlib.util import find_spec

from ..contract import Backend

LEAST_DRIVER = (12, 8)


def unavailable() -> str | None:
    """None, or the reason why it cannot run here, the deepest one first: driver, device, CuPy, NVRTC."""
    if find_spec("cnnengine._launch") is None:
        return "cnnengine._launch is not built: pip install -e ."
    from ... import _launch

    reason: str | None = _launch.driver_problem()
    if reason is not None:
        return reason
    driver = _version(_launch.driver_version())
    if driver < LEAST_DRIVER:
        return f"the CUDA driver is too old: it offers CUDA {_text(driver)}, at least {_text(LEAST_DRIVER)} is needed"
    if find_spec("cupy") is None:
        return f"CuPy is not installed: pip install 'cnnengine[{'cuda' if driver[0] >= 13 else 'cuda12'}]'"
    from ...jit import nvrtc

    reason = nvrtc.problem()
    if reason is not None:
        return reason
    compiler = nvrtc.version()
    if compiler[0] > driver[0]:
        return (
            f"the CUDA driver is too old for the installed NVRTC: it offers CUDA {_text(driver)}, NVRTC is"
            f" {_text(compiler)}; update the driver or pip install 'cnnengine[cuda12]'"
        )
    return None


def load() -> Backend:
    from .backend import CudaBackend

    return CudaBackend()


def _version(number: int) -> tuple[int, int]:
    """12080 -> (12, 8)"""
    return number // 1000, number % 1000 // 10


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
