"""The CUDA kernels on the CPU: ``csrc/cuda`` compiled by g++ over the emulator, on NumPy arrays."""

from __future__ import annotations

from importlib.util import find_spec

from ...errors import BackendUnavailable
from ..contract import Backend


def unavailable() -> str | None:
    """None, or the reason why it cannot run here."""
    from ...jit import host

    if find_spec("cnnengine._launch") is None:
        return "cnnengine._launch is not built: pip install -e ."
    try:
        host.compiler()
    except BackendUnavailable as reason:
        return str(reason)
    return None


def load() -> Backend:
    from .backend import EmulatorBackend

    return EmulatorBackend()
