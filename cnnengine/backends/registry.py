"""Which backends there are, which can run here, and which one is active for each device.

The device is the array's type: NumPy arrays are on the "cpu", CuPy arrays on "cuda". Each device has one active
backend: the innermost ``use_backend``, else what ``set_backend`` or the environment variable ``CNNENGINE_BACKEND``
named, else the first that can run of ``native`` and ``numpy`` (cpu), of ``cuda`` and ``numba`` (cuda).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from threading import RLock

import numpy as np

from ..errors import BackendUnavailable
from .contract import Array, Backend

NAMES = ("native", "numpy", "cuda", "emulator", "numba")
_PREFERRED = {"cpu": ("native", "numpy"), "cuda": ("cuda", "numba")}
_loaded: dict[str, Backend] = {}
_default: dict[str, Backend | None] = {"cpu": None, "cuda": None}  # device -> backend, filled on first use
_lock = RLock()
_active_cpu: ContextVar[Backend | None] = ContextVar("active_cpu", default=None)
_active_cuda: ContextVar[Backend | None] = ContextVar("active_cuda", default=None)
_SCOPES = {"cpu": _active_cpu, "cuda": _active_cuda}


def unavailable(name: str) -> str | None:
    """The reason why a backend cannot run here, or None. Raises ValueError for an unknown name."""
    _check_name(name)
    if name in _loaded:
        return None
    reason: str | None = import_module(f"{__package__}.{name}").unavailable()
    return reason


def available() -> dict[str, str | None]:
    """Every backend with None, or with the reason why it cannot run here."""
    return {name: unavailable(name) for name in NAMES}


def get(name: str) -> Backend:
    """The backend of that name, loaded. Raises ValueError for an unknown name, BackendUnavailable with the reason."""
    if name not in _loaded:
        reason = unavailable(name)
        if reason is not None:
            raise BackendUnavailable(f"backend {name!r} is not available: {reason}")
        with _lock:
            if name not in _loaded:
                _loaded[name] = import_module(f"{__package__}.{name}").load()
    return _loaded[name]


def active(array: Array) -> Backend:
    """The backend that computes on an array. Raises TypeError for an array of neither NumPy nor CuPy."""
    if type(array) is np.ndarray:
        return _active_cpu.get() or _default["cpu"] or _choose("cpu")
    if device_of(array) == "cuda":
        return _active_cuda.get() or _default["cuda"] or _choose("cuda")
    return _active_cpu.get() or _default["cpu"] or _choose("cpu")


def active_on(device: str) -> Backend:
    """The backend that computes on "cpu" or "cuda". Raises ValueError for another name, BackendUnavailable."""
    if device not in _SCOPES:
        raise ValueError(f"device must be 'cpu' or 'cuda', received {device!r}")
    return _SCOPES[device].get() or _default[device] or _choose(device)


def device_of(array: Array) -> str:
    """ "cpu" for NumPy's, "cuda" for CuPy's arrays. Raises TypeError for anything else."""
    if isinstance(array, np.ndarray):
        return "cpu"
    if type(array).__module__.split(".")[0] == "cupy":
        return "cuda"
    raise TypeError(f"expected a NumPy or CuPy array, received {type(array).__module__}.{type(array).__qualname__}")


@contextmanager
def use_backend(name: str) -> Iterator[Backend]:
    """Within the block, arrays of the backend's device are computed by it (in this thread or task)."""
    with using(get(name)) as backend:
        yield backend


@contextmanager
def using(backend: Backend) -> Iterator[Backend]:
    """``use_backend`` with one that need not be registered."""
    scope = _SCOPES[backend.device]
    token = scope.set(backend)
    try:
        yield backend
    finally:
        scope.reset(token)


def set_backend(name: str) -> Backend:
    """From now on, wherever no ``use_backend`` says otherwise, the backend computes on its device."""
    backend = get(name)
    _default[backend.device] = backend
    return backend


def _choose(device: str) -> Backend:
    """The default of a device, found once."""
    with _lock:
        named = os.environ.get("CNNENGINE_BACKEND")
        if named:
            try:
                chosen = get(named)
            except (ValueError, BackendUnavailable) as error:
                raise type(error)(f"CNNENGINE_BACKEND: {error}") from error
            if chosen.device == device:
                return set_backend(named)
        reasons = {}
        for name in _PREFERRED[device]:
            reasons[name] = unavailable(name)
            if reasons[name] is None:
                if get(name).device == device:
                    break
                reasons[name] = "it runs on the CPU here, under a simulator"
        else:
            why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise BackendUnavailable(f"no backend for device {device!r}: {why}")
        if name == "numpy":
            warnings.warn(f"cnnengine computes with NumPy, slowly: {reasons['native']}", RuntimeWarning, stacklevel=3)
        return set_backend(name)


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"unknown backend {name!r}; there are {', '.join(NAMES)}")
