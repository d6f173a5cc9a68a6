"""The native backend: C++ kernels for the CPU (``csrc/cpu``), one build each for AVX-512, AVX2 and any other CPU."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from ..contract import Backend

EXTENSION = "cnnengine._native"


def unavailable() -> str | None:
    """None, or why the native backend cannot run here."""
    if find_spec(EXTENSION) is None:
        return f"{EXTENSION} is not built: run `pip install -e .` or `python setup.py build_ext --inplace`"
    try:
        from ... import _native  # noqa: F401
    except (ImportError, ValueError) as error:  # ValueError: a wrong CNNENGINE_ variable
        return f"{EXTENSION} cannot be loaded: {error}"
    return None


def load() -> Backend:
    from ... import _native
    from ..winograd import follow
    from .backend import NativeBackend

    follow(_native.allow_winograd)
    return NativeBackend()


def get_num_threads() -> int:
    """Threads the kernels use: CNNENGINE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs this process may use."""
    from ... import _native

    return int(_native.get_num_threads())


def set_num_threads(count: int) -> None:
    """Changes how many threads the kernels use; results do not depend on it. Raises ValueError below 1."""
    from ... import _native

    _native.set_num_threads(count)


def memory_stats() -> dict[str, int]:
    """What the native backend's memory is doing; all but the counts in bytes.

    Arrays: ``in_use`` by arrays that somebody holds, ``cached`` for the next ones, ``peak`` the most ever in use,
    ``limit`` of in use and cached together; ``allocations`` from the system, ``reuses`` of cached blocks (counts).
    Scratch memory of the threads, kept between calls: ``scratch_activations``, ``scratch_weights`` (packed or
    transformed, and partial sums of their gradients). Arrays below 1 KB are NumPy's own and not counted.
    """
    from ... import _native

    stats: dict[str, int] = _native.memory_stats()
    return stats


def set_memory_limit(nbytes: int) -> None:
    """Cached blocks are freed, the oldest first, where they and the arrays in use would pass ``nbytes``; 0 caches
    nothing. At first CNNENGINE_MEMORY_LIMIT (bytes, or such as "500M"), else half of the machine's memory. Raises
    ValueError for a negative number."""
    from ... import _native

    if nbytes < 0:
        raise ValueError(f"set_memory_limit: expected 0 bytes or more, received {nbytes}")
    _native.set_memory_limit(nbytes)


def empty_cache() -> None:
    """Give cached blocks, and the scratch memory of this thread and the pool's, back to the system. Arrays stay."""
    from ... import _native

    _native.empty_cache()


def workspace_of(run: Callable[[], object]) -> tuple[int, int]:
    """Bytes of scratch memory that the native kernels called by ``run()`` ask for, on all threads together:
    (activations, weights), told apart as by ``memory_stats``. One measurement at a time."""
    from ... import _native

    activations, weights = _native.workspace_of(run)
    return activations, weights
