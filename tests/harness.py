"""Running one verb of a backend on host arrays, with guarded outputs; and which cases a backend is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from cnnengine.backends import get
from cnnengine.backends.contract import CONV2D_VERBS, Backend

TIERS = ("tiny", "small", "layer")
MARGIN = 64  # guarded elements before and after every output
SENTINEL = 0xA5
LONG = pytest.mark.skipif(os.environ.get("CNNENGINE_LONG") != "1", reason="takes minutes: set CNNENGINE_LONG=1")


def tier_of(backend: Backend) -> str:
    """The largest cases a backend is given: Numba's simulator interprets, the emulator switches fibers."""
    if "CNNENGINE_TEST_TIER" in os.environ:  # sanitizers are slow too
        return os.environ["CNNENGINE_TEST_TIER"]
    if backend.device == "cuda":
        return "layer"
    return {"numba": "tiny", "emulator": "small"}.get(backend.name, "layer")


def runs(backend: Backend, tier: str) -> bool:
    return TIERS.index(tier) <= TIERS.index(tier_of(backend))


def oracle() -> Backend:
    return get("numpy")


class Guarded:
    """An output array whose elements start as NaN (integers: a pattern) between two margins that nobody may touch."""

    def __init__(self, backend: Backend, shape: Sequence[int], dtype: Any, start: np.ndarray | None = None) -> None:
        self.backend = backend
        self.dtype = np.dtype(dtype)
        self.shape = tuple(shape)
        self.elements = int(np.prod(self.shape, dtype=np.int64))
        host = np.full((self.elements + 2 * MARGIN) * self.dtype.itemsize, SENTINEL, np.uint8).view(self.dtype)
        inside = host[MARGIN : MARGIN + self.elements]
        if start is not None:
            inside[:] = start.reshape(-1)
        elif self.dtype.kind not in "iu":
            inside[:] = np.nan
        self.buffer = backend.to_device(host)
        self.array = self.buffer[MARGIN : MARGIN + self.elements].reshape(self.shape)

    def result(self, what: str) -> np.ndarray:
        """The output on the host. Raises AssertionError if a margin was written."""
        host = np.array(self.backend.to_host(self.buffer))
        raw = host.view(np.uint8)
        edge = MARGIN * self.dtype.itemsize
        assert (raw[:edge] == SENTINEL).all(), f"{what}: written before the output's start"
        assert (raw[len(raw) - edge :] == SENTINEL).all(), f"{what}: written past the output's end"
        return host[MARGIN : MARGIN + self.elements].reshape(self.shape)


def run_verb(
    backend: Backend,
    call: Callable[..., None],
    inputs: Sequence[np.ndarray | None],
    outputs: Sequence[tuple[Sequence[int], Any]],
    what: str,
) -> list[np.ndarray]:
    """``call(*inputs, *outputs)`` with inputs on the backend's device and guarded outputs; the outputs on the host.
    Raises AssertionError if an input changed."""
    on_device = [None if a is None else backend.to_device(a.copy()) for a in inputs]
    guarded = [Guarded(backend, shape, dtype) for shape, dtype in outputs]
    call(*on_device, *(g.array for g in guarded))
    backend.synchronize()
    for given, device in zip(inputs, on_device, strict=True):
        if given is not None:
            same = np.array_equal(np.asarray(backend.to_host(device)).view(np.uint8), given.view(np.uint8))
            assert same, f"{what}: an input was changed"
    return [g.result(what) for g in guarded]


def root_of_squares(call: Callable[..., None], inputs: Sequence[np.ndarray], out: Sequence[int]) -> np.ndarray:
    """For a ``call`` of the oracle that adds products: the root of the sum of the squared terms of each element, which
    the comparator goes by."""
    squared = [np.square(a, dtype=np.float64) for a in inputs]
    (sums,) = run_verb(oracle(), call, squared, [(out, "float64")], "oracle")
    return np.sqrt(sums)


def random_array(rng: np.random.Generator, shape: Sequence[int], dtype: Any = "float32") -> np.ndarray:
    """Standard normal values"""
    return np.ascontiguousarray(rng.standard_normal(tuple(shape)).astype(np.dtype(dtype)))


def tie_free(rng: np.random.Generator, shape: Sequence[int], dtype: Any = "float32") -> np.ndarray:
    """Distinct values, a tenth apart or more, in random order; none near 0"""
    n = int(np.prod(shape))
    values = (np.arange(n) - n // 2 + 0.5) * (0.1 if n < 4096 else 1.0)
    return rng.permutation(values).reshape(tuple(shape)).astype(np.dtype(dtype))


def used_algorithm(backend: Backend, verb: str, shape: Any, algorithm: str | None) -> str | None:
    """The algorithm's name, where the native backend has a choice of convolutions."""
    if algorithm is not None or backend.name != "native" or verb not in CONV2D_VERBS:
        return algorithm
    from cnnengine import _native

    name: str = _native.conv2d_chosen(CONV2D_VERBS.index(verb), shape.packed)
    return name
