"""The native backend: C++ kernels for the CPU (``csrc/cpu``), one build each for AVX-512, AVX2 and any other CPU."""

from __future__ import annotations

from importlib.util import find_spec

from ..contract import Backend

EXTENSION = "cnnengine._native"


def unavailable() -> str | None:
    """None, or why the native backend cannot run here."""
    if find_spec(EXTENSION) is None:
        return f"{EXTENSION} is not built: run `pip install -e .` or `python setup.py build_ext --inplace`"
    try:
        from ... import _native  # noqa: F401
    except (ImportError, ValueError) as error:  # ValueError: a wrong CNNENGINE_ISA or CNNENGINE_NUM_THREADS
        return f"{EXTENSION} cannot be loaded: {error}"
    return None


def load() -> Backend:
    from .backend import NativeBackend

    return NativeBackend()


def get_num_threads() -> int:
    """Threads the kernels use: CNNENGINE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs this process may use."""
    from ... import _native

    return int(_native.get_num_threads())


def set_num_threads(count: int) -> None:
    """Changes how many threads the kernels use; results do not depend on it. Raises ValueError below 1."""
    from ... import _native

    _native.set_num_threads(count)
