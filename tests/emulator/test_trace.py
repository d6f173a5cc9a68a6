"""The emulator's trace of kernels whose requests can be told by hand: order, lanes, addresses, bytes, places."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from cnnengine.errors import KernelError
from cnnengine.jit import host, trace
from cnnengine.jit.cache import default_cache
from cnnengine.jit.launch import EmulatorRuntime
from cnnengine.jit.source import KernelSource

from .conftest import NO_COMPILER

NO_GCC = NO_COMPILER is None and not host.can_count(host.compiler())
pytestmark = [
    pytest.mark.skipif(NO_COMPILER is not None, reason=str(NO_COMPILER)),
    pytest.mark.skipif(NO_GCC, reason="the counters need g++"),
]
KERNEL = """
#line 1 "traced/kernel.cuh"
struct Words { float v[64]; };

__global__ void kernel(const float* x, float* y) {
  DYN_SMEM(Words, words);
  const int t = threadIdx.x;
  words->v[63 - t] = x[t];
  if (t % 2) words->v[63 - t] += 100.0f;
  __syncthreads();
  y[blockIdx.x * 64 + t] = words->v[t];
}
"""
SOURCE = KernelSource("cuda/platform.cuh", ("kernel",), KERNEL)


def traced(schedule: int, block: int, most: int = trace.MOST) -> tuple[trace.Trace, np.ndarray, np.ndarray]:
    """The trace of one of two blocks of two warps, and both arrays"""
    runtime = EmulatorRuntime(default_cache(), count=True, schedule=schedule)
    x, y = np.arange(64, dtype=np.float32), np.zeros(128, np.float32)
    library = runtime.module(SOURCE).library
    trace.start(library, (block, 0, 0), most)
    runtime.kernel(SOURCE, "kernel")((2, 1, 1), (64, 1, 1), 256, (x, y))
    return trace.take(library), x, y


def test_requests_in_order_with_their_bytes(schedule: int) -> None:
    found, x, y = traced(schedule, block=1)
    requests = found.requests
    program = [
        "global_load",
        "shared_store",
        "shared_load",
        "shared_store",
        "block_barrier",
        "shared_load",
        "global_store",
    ]
    lines = [6, 6, 7, 7, 8, 9, 9]
    for warp in range(2):
        mine = requests[requests["warp"] == warp]
        assert [trace.KINDS[kind] for kind in mine["kind"]] == program
        assert [str(found.places[place][0]) for place in mine["place"]] == [f"traced/kernel.cuh:{n}" for n in lines]
        odd = 0xAAAAAAAA
        assert mine["lanes"].tolist() == [2**32 - 1, 2**32 - 1, odd, odd, 2**32 - 1, 2**32 - 1, 2**32 - 1]
        threads = np.arange(32) + 32 * warp
        assert mine["address"][0].tolist() == [x.ctypes.data + 4 * t for t in threads]
        assert mine["address"][1].tolist() == [4 * (63 - t) for t in threads]
        assert mine["address"][6].tolist() == [y.ctypes.data + 4 * (64 + t) for t in threads]
        values = mine["value"].view(np.float32)[:, :, 0]
        assert values[0].tolist() == values[1].tolist() == threads.tolist()
        assert values[3][1::2].tolist() == (threads[1::2] + 100).tolist()
        assert values[5].tolist() == values[6].tolist() == y[64 + threads].tolist()
    assert y[64:].tolist() == [63 - t + (100 if (63 - t) % 2 else 0) for t in range(64)]
    assert requests["warp"].tolist() == [0, 1] * 7, "warps take turns"


def test_another_block_and_none() -> None:
    found, _, y = traced(0, block=0)
    stores = found.requests[found.requests["kind"] == trace.KINDS.index("global_store")]
    assert stores["address"][0, 0] == y.ctypes.data
    assert len(traced(0, block=2)[0].requests) == 0


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(KernelError, match=r"makes 14 warp requests, a trace keeps 5: make the sum over R, S and"):
        traced(0, block=0, most=5)
    assert len(traced(0, block=0, most=14)[0].requests) == 14


def test_the_event_is_as_large_here_as_there() -> None:
    """Two requests that follow each other would be read from the wrong place."""
    found, _, _ = traced(0, block=0)
    assert set(found.requests["amount"].tolist()) == {0, 4}
    assert trace.TRACED.itemsize == 40 + 32 * ctypes.sizeof(ctypes.c_uint64) + 32 * 16
